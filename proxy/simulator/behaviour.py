"""What a caller may ask the simulator to do: `sim-small;first=0.5;cut=3`, or the same in the header `x-simulator`.

The members of `Behaviour` are the grammar: `_` is written `-`, a flag needs no value. A new option is a new member,
and a row in `faults.FAULTS` if it spoils what is sent. The header overrides the model's suffix.
"""

import re
from collections.abc import Iterator
from typing import Annotated

import msgspec

from proxy.simulator.errors import ApiError

Seconds = Annotated[float, msgspec.Meta(ge=0, le=86400)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Header = Annotated[str, msgspec.Meta(pattern=r"^[\x20-\x7e]*$")]
Status = Annotated[int, msgspec.Meta(ge=300, le=599)]


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """`first`, `gap`: seconds. K of `cut`, `reset`, `stall`, `error`: so many events are sent before."""

    # when and how much
    first: Seconds | None = None
    gap: Seconds | None = None
    chunks: Count | None = None

    # what the answer says
    finish: str | None = None
    empty: bool = False
    refusal: bool = False
    badjson: bool = False
    nousage: bool = False
    json: bool = False

    # refusals
    status: Status | None = None
    retry_after: Header | None = None
    retry_after_ms: Header | None = None
    should_retry: bool | None = None
    refuse_usage: bool = False

    # faults of what is sent, see faults.py
    cut: Count | None = None
    reset: Count | None = None
    stall: Count | None = None
    error: Count | None = None
    nodone: bool = False
    html: bool = False

    # only the first K calls of this very request suffer the faults named beside it (none named: status 503)
    fail: Count | None = None

    def spared(self) -> "Behaviour":
        """This behaviour without its faults: what a call sees once `fail` is used up."""
        return Behaviour(
            first=self.first,
            gap=self.gap,
            chunks=self.chunks,
            finish=self.finish,
            nousage=self.nousage,
            refuse_usage=self.refuse_usage,
        )

    def failing(self) -> "Behaviour":
        """This behaviour while `fail` lasts."""
        named = msgspec.structs.replace(self, fail=None, retry_after=None, retry_after_ms=None, should_retry=None)
        return msgspec.structs.replace(self, status=503) if named == self.spared() else self

    def error_headers(self) -> tuple[tuple[str, str], ...]:
        """The headers of an error that say when to try again."""
        should = None if self.should_retry is None else str(self.should_retry).lower()
        told = (("retry-after", self.retry_after), ("retry-after-ms", self.retry_after_ms), ("x-should-retry", should))
        return tuple((name, value) for name, value in told if value is not None)


_OPTIONS = frozenset(field.encode_name for field in msgspec.structs.fields(Behaviour))
_PATH = re.compile(r" - at `\$\.([a-z-]+)`")


def parse(model: str, header: str) -> tuple[str, Behaviour]:
    """The plain model name and what is asked of it; ApiError 400 names options that do not exist."""
    name, *suffix = model.split(";")
    options = dict(_options([*suffix, *header.split(";")]))
    unknown = sorted(options.keys() - _OPTIONS)
    if unknown:
        raise ApiError(400, f"Unknown simulator options: {', '.join(unknown)}.", param="model", code="unknown_option")
    try:
        return name.strip(), msgspec.convert(options, Behaviour, strict=False)
    except msgspec.ValidationError as error:
        found = _PATH.search(str(error))
        option = found[1] if found else "?"
        said = _PATH.sub("", str(error))
        message = f"Simulator option '{option}={options.get(option, '')}': {said}."
        raise ApiError(400, message, param="model", code="invalid_option") from None


def _options(written: list[str]) -> Iterator[tuple[str, str]]:
    for option in filter(None, map(str.strip, written)):
        name, equals, value = option.partition("=")
        yield name.strip(), value.strip() if equals else "true"
