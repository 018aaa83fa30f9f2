"""What the normal path of a delivery does not do: a byte at a time, comments into the silence, no end.

Whatever waits here yields to the event loop, if only for one turn, so that a caller who leaves is noticed.
"""

import asyncio
import math
from collections.abc import AsyncIterator
from itertools import chain, repeat

from starlette.types import Message, Send

from proxy.simulator.script import COMMENT, End, Script


async def send_slowly(script: Script, first: float, gap: float, head: Message, send: Send) -> AsyncIterator[None]:
    """Everything up to the script's end, which the caller makes; yields whenever an event has left.

    `first` and `gap`: seconds, as in a `Pace`. The head leaves with whatever comes first, be it a comment.
    """
    line = _Line(script, head, send)
    await line.wait(first)
    time = asyncio.get_running_loop().time
    start = time()
    endless = repeat(script.again) if script.again else ()
    for number, event in enumerate(chain(script.events, endless)):
        await line.wait(start + min(number, script.paced) * gap - time())
        await line.say(event)
        yield
    if script.end is End.CLEAN:
        await line.begin()
    if script.end is End.STALL and script.comments:
        await line.wait(math.inf)


class _Line:
    def __init__(self, script: Script, head: Message, send: Send) -> None:
        self._comments = script.comments or math.inf
        self._dribble = script.dribble
        self._head: Message | None = head
        self._send = send

    async def begin(self) -> None:
        if self._head is not None:
            await self._send(self._head)
            self._head = None

    async def wait(self, seconds: float) -> None:
        """Silence, but for a comment each so many seconds."""
        while seconds > self._comments:
            await asyncio.sleep(self._comments)
            await self._say_whole(COMMENT)
            seconds -= self._comments
        await asyncio.sleep(seconds)

    async def say(self, event: bytes) -> None:
        if self._dribble is None:
            await self._say_whole(event)
            return
        for at in range(len(event)):
            if self._head is None:
                # A comment would break the line that is under way.
                await asyncio.sleep(self._dribble)
            await self._say_whole(event[at : at + 1])

    async def _say_whole(self, body: bytes) -> None:
        await self.begin()
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
