"""Who sells models, what the two sources call them, and which of their models are wanted."""

import re
from dataclasses import dataclass
from datetime import datetime

from pricing.models import Model

# `makes`: what a maker's own models are called; a bare name means it, and what else it sells is left out.
# Prefixes: what other programs write before its names.
PROVIDERS = """
id         | genai      | litellm                       | prefixes                            | makes
openai     | openai     | openai text-completion-openai | openai                              | ^(?!gpt-oss)
anthropic  | anthropic  | anthropic                     | anthropic                           | ^claude
google     | google     | gemini                        | google gemini google-gla            | ^(gemini|gemma|learnlm)
deepseek   | deepseek   | deepseek                      | deepseek                            | ^deepseek
mistral    | mistral    | mistral codestral             | mistral mistralai codestral         | ^(?!.*glm)
xai        | x-ai       | xai                           | xai x-ai                            | ^grok
cohere     | cohere     | cohere cohere_chat            | cohere cohere_chat                  | .
moonshot   | moonshotai | moonshot                      | moonshot moonshotai                 | ^(kimi|moonshot)
zai        | zai        | zai                           | zai z-ai                            | ^glm
minimax    | minimax    | minimax                       | minimax                             | ^minimax
dashscope  |            | dashscope                     | dashscope alibaba                   | ^(qwen|qwq|qvq)
perplexity | perplexity | perplexity                    | perplexity                          | ^(sonar|pplx)
ai21       |            | ai21                          | ai21                                | .
meta       | meta       | meta meta_llama               | meta meta_llama                     | .
voyage     | voyageai   | voyage                        | voyage voyageai                     | .
azure      | azure      | azure                         | azure                               |
azure_ai   |            | azure_ai                      | azure_ai                            |
bedrock    | aws        | bedrock bedrock_converse      | bedrock aws amazon-bedrock          |
mantle     |            | bedrock_mantle                | bedrock_mantle mantle               |
vertex     | google     | vertex_ai*                    | vertex_ai vertex google-vertex      |
groq       | groq       | groq                          | groq                                |
cerebras   | cerebras   | cerebras                      | cerebras                            |
together   | together   | together_ai                   | together_ai together togetherai     |
fireworks  | fireworks  | fireworks_ai*                 | fireworks_ai fireworks fireworks-ai |
deepinfra  |            | deepinfra                     | deepinfra                           |
openrouter | openrouter |                               | openrouter                          |
"""

# They list thousands of models that nobody asks for: of these, what is described.
HOSTS = {"together", "fireworks", "openrouter", "deepinfra"}


@dataclass(frozen=True)
class Seller:
    id: str
    genai: str
    litellm: tuple[str, ...]
    prefixes: tuple[str, ...]
    makes: str

    def name(self, key: str) -> str:
        """litellm's key without the prefixes by which it tells providers apart."""
        prefixes = ("bedrock/converse/", *(f"{each}/" for each in self.prefixes))
        return next((key.removeprefix(prefix) for prefix in prefixes if key.startswith(prefix)), key)

    def sells(self, provider: str) -> bool:
        return any(provider == each or (each[-1] == "*" and provider.startswith(each[:-1])) for each in self.litellm)


def sellers() -> list[Seller]:
    lines = [[cell.strip() for cell in line.split("|", 4)] for line in PROVIDERS.strip().splitlines()[1:]]
    return [Seller(i, genai, tuple(lite.split()), tuple(pre.split()), makes) for i, genai, lite, pre, makes in lines]


def wanted(model: Model, seller: Seller, taken: datetime) -> bool:
    """Makers' retired models stay, since others still sell them; elsewhere they are gone."""
    if seller.makes:
        return bool(re.search(seller.makes, model.id.lower()))
    alive = model.retires is None or model.retires >= taken.date()
    return alive and (seller.id not in HOSTS or bool(model.window and (model.yes or "genai" in model.origin)))
