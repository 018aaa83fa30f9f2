"""What follows from a model's name: whether it gives text, what counts its tokens, the terms of its prompt cache."""

import re
from decimal import Decimal

from bench.catalogue.sellers import Seller
from pricing.models import Model, PromptCache

NO_TEXT = re.compile(
    r"whisper|tts|transcri|realtime|-live|lyria|sonic|(?<!titan-embed-)image|dall-?e|imagen|canvas|nano-banana|stable-|flux"
    r"|sora|veo-|pegasus|marengo|rerank|moderation|\bocr\b|container|robotics|deep-research-(max-|pro-)?preview"
    r"|^(text-)?(ada|babbage|curie|davinci)(-00\d)?$"
)
SEARCHES = re.compile(r"search-(preview|api)|deep-research|sonar")  # they always do, for a fee each time

# Which encoding counts a model's tokens, by the first pattern that its name holds.
TOKENIZERS = """
claude-4.7    | claude-(opus|sonnet|haiku)-(4[.-][7-9]|[5-9])|claude-(fable|mythos)-\\d
claude        | claude
gemini        | gemini
gemma         | gemma
llama3        | llama-?v?3|llama3|distill-llama
qwen          | qwen|qwq|qvq
deepseek      | deepseek
mistral       | mistral|mixtral|ministral|codestral|devstral|magistral|pixtral|voxtral
o200k_harmony | gpt-oss
cl100k        | gpt-4-|gpt-4$|gpt-4\\.5x|gpt-3\\.?5|text-embedding-(3|ada)
o200k         | gpt-4o|gpt-4\\.|gpt-[5-9]|gpt-audio|chatgpt|chat-latest|computer-use|codex-|(^|[/.:])o[134](-|$)
"""

# Terms of the prompt caches as the providers publish them; what a row says itself goes before. Prices are the row's.
CACHES = {
    "openai": PromptCache(automatic=True, least=1024, lifetime=300, longest=86400, write=Decimal(1)),
    "openai-5.6": PromptCache(automatic=True, lifetime=1800, write=Decimal("1.25")),
    "anthropic": PromptCache(automatic=False, lifetime=300, longest=3600, write=Decimal("1.25")),
    "gemini": PromptCache(automatic=True, write=Decimal(1)),
    "deepseek": PromptCache(automatic=True, lifetime=3600, write=Decimal(1)),
    "other": PromptCache(),
}


def tokenizer_of(name: str) -> str:
    for line in TOKENIZERS.strip().splitlines():
        family, _, pattern = line.partition(" | ")
        if re.search(pattern.strip(), name.lower()):
            return family.strip()
    return "unknown"


def cache_of(model: Model, seller: Seller) -> str | None:
    if model.standard is None or model.standard.cached_input is None:
        return None
    if "claude" in model.id:
        return "anthropic"
    if seller.id in {"openai", "azure"}:
        return "openai-5.6" if re.search(r"gpt-(5\.[6-9]|[6-9])", model.id) else "openai"
    if seller.id in {"google", "vertex"} and "gemini" in model.id:
        return "gemini"
    return "deepseek" if seller.id == "deepseek" else "other"
