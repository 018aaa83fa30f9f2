"""What was purged: a number that counts purges, and what the last of them meant.

Rule: an entry that was begun before a purge that means it is a miss, whatever form it is in and wherever it lies;
removing it only frees its space. Entries carry the number of purges at their beginning, so an answer that is under way
is judged like one that is kept. What is forgotten of old purges makes more entries misses, never fewer.
"""

from typing import Annotated, Literal

import msgspec

from proxy.core.entry import Meta, meta_of

Kind = Literal["all", "key", "model", "entry"]
Wanted = Literal["key", "model", "request", "all"]  # what a purge is asked of

MOST = 256  # purges of something that are remembered one by one

_Count = Annotated[int, msgspec.Meta(ge=0, le=(1 << 63) - 1)]
_Hex = Annotated[str, msgspec.Meta(pattern="^([0-9a-f]{2})+$")]


class Selection(msgspec.Struct, frozen=True):
    """What a purge means: "all", or the entries of any of the `values`: ids of keys, providers' own names of models,
    entries' keys in hexadecimal.
    """

    kind: Kind = "all"
    values: tuple[str, ...] = ()


EVERYTHING = Selection()


class PurgeLog(msgspec.Struct, frozen=True, omit_defaults=True):
    """How often the cache was purged, and of what.

    Whatever was begun before purge `floor` is purged. `keys`, `models` and `entries` say the number of the last purge
    of each value. Of purges up to `swept` nothing lies on the disk any more. Of those up to `closed` it is not known
    what they meant: nothing that was begun before is kept from now on, while what was kept then has been removed.
    """

    number: _Count = 0
    floor: _Count = 0
    swept: _Count = 0
    closed: _Count = 0
    keys: dict[str, _Count] = {}
    models: dict[str, _Count] = {}
    entries: dict[_Hex, _Count] = {}

    def covers(self, meta: Meta) -> bool:
        """Was it begun before a purge that means it?"""
        began = meta.epoch
        if began < self.floor:
            return True
        if self.keys:
            # Who owns an entry of an older version is not known: it may be anybody's.
            last = max(self.keys.values()) if meta.owner is None else self.keys.get(meta.owner, 0)
            if began < last:
                return True
        if self.models and began < self.models.get(meta.model, 0):
            return True
        return bool(self.entries) and began < self.entries.get(meta.key.hex(), 0)

    def spares(self, meta: Meta) -> bool:
        """May it answer? Not if it is from a time that is not known here: what was purged since is not known either."""
        return meta.epoch <= self.number and not self.covers(meta)

    def admits(self, meta: Meta) -> bool:
        """May this answer, which has just come to its end, be kept?"""
        return meta.epoch >= self.closed and self.spares(meta)

    def covers_row(self, head: bytes) -> bool:
        """Of a packed entry's first bytes: should it be removed? What is no entry should: it is a miss anyway."""
        meta = meta_of(head)
        return meta is None or self.covers(meta)

    def plus(self, selection: Selection) -> "PurgeLog":
        """With one purge more."""
        number = self.number + 1
        if selection.kind == "all":
            return PurgeLog(number, floor=number, swept=self.swept, closed=number)
        news = dict.fromkeys(selection.values, number)
        grown = msgspec.structs.replace(
            self,
            number=number,
            keys={**self.keys, **news} if selection.kind == "key" else self.keys,
            models={**self.models, **news} if selection.kind == "model" else self.models,
            entries={**self.entries, **news} if selection.kind == "entry" else self.entries,
        )
        return _bounded(grown)

    def cleaned(self, upto: int) -> "PurgeLog":
        """Once all that purges up to this number meant is removed from the disk."""
        return msgspec.structs.replace(self, swept=max(self.swept, min(upto, self.number)))

    @property
    def pending(self) -> list[bytes] | None:
        """The keys of all entries that may still lie on the disk though they were purged; None: any may."""
        last = max((self.floor, *self.keys.values(), *self.models.values()))
        if last > self.swept:
            return None
        return [bytes.fromhex(key) for key, number in self.entries.items() if number > self.swept]


def _bounded(log: PurgeLog) -> PurgeLog:
    """Forgets the oldest of more than MOST. Where they are not swept, all that was begun before them is purged."""
    tables = (log.keys, log.models, log.entries)
    numbers = sorted(number for table in tables for number in table.values())
    if len(numbers) <= MOST:
        return log
    last = numbers[-MOST - 1]
    keys, models, entries = ({value: number for value, number in table.items() if number > last} for table in tables)
    floor = log.floor if last <= log.swept else last
    return PurgeLog(log.number, max(log.floor, floor), log.swept, max(log.closed, last), keys, models, entries)


_log = msgspec.json.Decoder(PurgeLog | _Count)


def write_log(log: PurgeLog) -> bytes:
    return msgspec.json.encode(log) + b"\n"


def read_log(text: bytes) -> PurgeLog:
    """What `write_log` wrote, or a bare number of purges, each of which meant all. Anything else: none ever was."""
    try:
        found = _log.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return PurgeLog()
    return found if isinstance(found, PurgeLog) else PurgeLog(found, found, found, found)
