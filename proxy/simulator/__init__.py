"""The built-in provider: OpenAI's API without a network, deterministic, with real streaming and faults on demand.

It is the referee of the tests, so it shares no code with the proxy: standard library, starlette and msgspec only.

    app.py        build_simulator(): routes, /v1/models, /simulator/*
    chat.py       one call of /v1/chat/completions, from its bytes to its tally
    mirror.py     /v1/mirror/…: what came, or N bytes
    request.py    the request, checked as OpenAI checks it; the seed of its answer
    behaviour.py  the grammar of options: `sim-small;first=0.5;cut=3`
    answers.py    request → answer          from  text.py  schema.py  tools.py  tokens.py
    render.py     answer → script: one JSON body, or the events of a stream   (logprobs.py)
    script.py     everything that one call will send, encoded before the first byte leaves
    faults.py     what options do to a finished script
    delivery.py   sends a script on time, notices a caller who leaves       (slow.py: dribbles, comments, no end)
    memory.py     the last call, and how often each `fail=K` request has failed
    tally.py      what was asked and served
    models.py     the catalogue: speeds and prices
    errors.py     refusals in OpenAI's shape
"""

from proxy.simulator.app import build_simulator
from proxy.simulator.models import MODELS, Model

__all__ = ["MODELS", "Model", "build_simulator"]
