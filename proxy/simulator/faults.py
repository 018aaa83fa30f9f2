"""What options do to a finished script. The normal path never comes here.

A fault takes a script and its option's value and returns another script. Where a stream has events, a JSON body has
two halves: `cut=1` of a JSON answer is its first half.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec

from proxy.simulator.behaviour import Behaviour
from proxy.simulator.errors import ApiError
from proxy.simulator.script import DONE, End, Script, whole

_PAGE = (
    b"<html><head><title>502 Bad Gateway</title></head>"
    b"<body><h1>502 Bad Gateway</h1><p>The simulator was told to send a page.</p></body></html>\n"
)

Fault = Callable[[Script, int], Script]


def spoil(script: Script, behaviour: Behaviour) -> Script:
    """The script with every fault that was asked for."""
    for option, fault in FAULTS.items():
        value = getattr(behaviour, option)
        if value is not None and value is not False:
            script = fault(script, value)
    return script


def _first(script: Script, count: int) -> Script:
    """The script's first events, with whatever Content-Length the whole would have had."""
    if not script.streamed:
        body = b"".join(script.events)
        half = len(body) // 2
        script = msgspec.structs.replace(
            script, events=(body[:half], body[half:]), tokens=(sum(script.tokens), 0), paced=0
        )
    return msgspec.structs.replace(
        script, events=script.events[:count], tokens=script.tokens[:count], paced=min(script.paced, count), failed=True
    )


def _cut(script: Script, count: int) -> Script:
    # Without a promised length: a client cannot see that this end is early.
    return msgspec.structs.replace(_first(script, count), length=None)


def _reset(script: Script, count: int) -> Script:
    return msgspec.structs.replace(_first(script, count), end=End.RESET)


def _stall(script: Script, count: int) -> Script:
    return msgspec.structs.replace(_first(script, count), end=End.STALL)


def _error(script: Script, count: int) -> Script:
    body = ApiError(500, "The server had an error while processing your request.", code="server_error").body()
    if not script.streamed:
        return msgspec.structs.replace(whole(body), failed=True)
    kept = _first(script, count)
    return msgspec.structs.replace(kept, events=(*kept.events, b"data: " + body + b"\n\n"), tokens=(*kept.tokens, 0))


def _nodone(script: Script, _: int) -> Script:
    if script.events[-1:] != (DONE,):
        return script
    return msgspec.structs.replace(script, events=script.events[:-1], tokens=script.tokens[:-1])


def _html(_script: Script, _: int) -> Script:
    page = whole(_PAGE, content_type="text/html")
    return msgspec.structs.replace(page, failed=True, billed=False)


# By option, in the order in which they are applied.
FAULTS: Mapping[str, Fault] = MappingProxyType(
    {"html": _html, "nodone": _nodone, "error": _error, "cut": _cut, "reset": _reset, "stall": _stall}
)
