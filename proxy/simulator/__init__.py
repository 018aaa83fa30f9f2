"""The built-in provider: OpenAI's API without a network, deterministic, with real streaming and faults on demand.

It is the referee of the tests, so it shares no code with the proxy: standard library, starlette and msgspec only.

    app.py        build_simulator(): routes, /v1/models, /simulator/*             (replies.py)
    calling.py    one call of any endpoint, from its bytes to its tally
    chat.py       /v1/chat/completions    chat_request.py: its request    render.py: its answer → script
    completions.py  /v1/completions       continuations.py: its answer → script
    embeddings.py   /v1/embeddings        vectors.py
    responses/    /v1/responses, and the Responses that are kept
    mirror.py     /v1/mirror/…: what came, or N bytes
    request.py    what every request is checked for, as OpenAI checks it; the seed of its answer
    behaviour.py  the grammar of options: `sim-small;first=0.5;cut=3`
    answers.py    wish → choices            from  text.py  forms.py  schema.py  tools.py  tokens.py  logprobs.py
    script.py     everything that one call will send, encoded before the first byte leaves
    faults.py     what options do to a finished script         (manner.py: how each kind of stream spells it)
    delivery.py   sends a script on time, notices a caller who leaves       (slow.py: dribbles, comments, no end)
    memory.py     the last call, and how often each `fail=K` request has failed
    tally.py      what was asked and served
    models.py     the catalogue: speeds and prices
    errors.py     refusals in OpenAI's shape
"""

from proxy.simulator.app import build_simulator
from proxy.simulator.models import MODELS, Model

__all__ = ["MODELS", "Model", "build_simulator"]
