"""What a caller may ask the simulator to do: `sim-small;first=0.5;cut=3`, or the same in the header `x-simulator`.

The members of `Behaviour` are the grammar: `_` is written `-`, a flag needs no value. A new option is a new member,
and a row in `faults.FAULTS` if it spoils what is sent. The header overrides the model's suffix.
"""

import re
from collections.abc import Iterator
from typing import Annotated

import msgspec

from proxy.simulator.errors import ApiError, on_demand

Seconds = Annotated[float, msgspec.Meta(ge=0, le=86400)]
Count = Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
Header = Annotated[str, msgspec.Meta(pattern=r"^[\x20-\x7e]*$")]
Field = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+:[\x20-\x7e]*$")]
Interval = Annotated[float, msgspec.Meta(gt=0, le=86400)]
Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 30)]
Word = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._~-]+$")]
Status = Annotated[int, msgspec.Meta(ge=300, le=599)]


class Behaviour(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """`first`, `gap`, `dribble`, `comments`: seconds. `cut-at`, `reset-at`, `big`: bytes.

    K of `cut`, `reset`, `stall`, `error`, `malformed`: so many events are sent before. Of a Response, `thoughts` shows
    the reasoning itself, and `failed` ends it as one that failed. Everything but what the answer says spoils errors
    too, so that `status=500;stall=1` is half an error.
    """

    # when and how much
    first: Seconds | None = None
    gap: Seconds | None = None
    chunks: Count | None = None
    comments: Interval | None = None

    # what the answer says
    finish: str | None = None
    empty: bool = False
    refusal: bool = False
    badjson: bool = False
    nousage: bool = False
    usage: bool = False
    json: bool = False
    thoughts: bool = False
    failed: bool = False

    # what every answer has, whatever its status
    header: Field | None = None
    cookie: Word | None = None

    # refusals
    redirect: Header | None = None
    detail: bool = False
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
    malformed: Count | None = None
    cut_at: Size | None = None
    reset_at: Size | None = None
    big: Size | None = None
    dribble: Seconds | None = None
    type: Header | None = None
    gzip: bool = False
    endless: bool = False
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
            comments=self.comments,
            finish=self.finish,
            nousage=self.nousage,
            usage=self.usage,
            thoughts=self.thoughts,
            header=self.header,
            cookie=self.cookie,
            detail=self.detail,
            refuse_usage=self.refuse_usage,
        )

    def failing(self) -> "Behaviour":
        """This behaviour while `fail` lasts."""
        named = msgspec.structs.replace(self, fail=None, retry_after=None, retry_after_ms=None, should_retry=None)
        return msgspec.structs.replace(self, status=503) if named == self.spared() else self

    def refuse(self) -> None:
        """Raises the ApiError that `status` or `redirect` asks for, 307 if only the latter is said."""
        if self.redirect is not None:
            raise on_demand(self.status or 307, (("location", self.redirect), *self._when_to_retry()))
        if self.status is not None:
            raise on_demand(self.status, self._when_to_retry())

    def _when_to_retry(self) -> tuple[tuple[str, str], ...]:
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


def on_any_answer(header: str) -> Behaviour:
    """Of the header's options, those that even the refusal of a call that makes no sense obeys."""
    try:
        _, asked = parse("", header)
    except ApiError:
        return Behaviour()
    return Behaviour(header=asked.header, cookie=asked.cookie, detail=asked.detail)


def _options(written: list[str]) -> Iterator[tuple[str, str]]:
    for option in filter(None, map(str.strip, written)):
        name, equals, value = option.partition("=")
        yield name.strip(), value.strip() if equals else "true"
