"""A client that leaves ends its own request and no more; what is sent to it is whole and has OpenAI's shape."""

import asyncio
import json
from typing import Any

import pytest

from proxy import errors
from proxy.endpoints.client import PIECE, Attendance, send_error, send_whole
from proxy.errors import (
    BodyTooLarge,
    InvalidRequest,
    PenstockError,
    ShuttingDown,
    StartupError,
    UpstreamFailed,
    UpstreamReset,
)

Message = dict[str, Any]


class Client:
    """The other end: hangs up when it is told to, notes what it is sent."""

    def __init__(self) -> None:
        self.hangs_up = asyncio.Event()
        self.listening = asyncio.Event()
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if not self.listening.is_set():
            self.listening.set()
            return {"type": "http.request"}  # what is left of the request is nobody's business
        await self.hangs_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(dict(message))

    @property
    def status(self) -> int:
        status: int = self.sent[0]["status"]
        return status

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])


async def turns() -> None:
    """Let everything that is ready run."""
    for _ in range(5):
        await asyncio.sleep(0)


async def waiting(attendance: Attendance, done: list[str]) -> str:
    async with attendance:
        try:
            await asyncio.Event().wait()
        finally:
            done.append("ended")
    done.append("after")
    return "went on"


async def test_a_client_that_stays_changes_nothing() -> None:
    client = Client()
    async with Attendance(client.receive) as attendance:
        await turns()
    assert not attendance.left
    client.hangs_up.set()
    await turns()  # nobody listens any more: this task is not cancelled
    assert not attendance.left


async def test_a_client_that_leaves_ends_what_is_done_for_it_and_no_more() -> None:
    client, done = Client(), list[str]()
    attendance = Attendance(client.receive)
    task = asyncio.create_task(waiting(attendance, done))
    await turns()
    client.hangs_up.set()
    assert await task == "went on"
    assert done == ["ended", "after"]
    assert attendance.left
    assert task.cancelling() == 0


async def test_a_cancellation_from_outside_passes() -> None:
    client, done = Client(), list[str]()
    attendance = Attendance(client.receive)
    task = asyncio.create_task(waiting(attendance, done))
    await turns()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == ["ended"]
    assert not attendance.left


@pytest.mark.parametrize("outside_first", [True, False])
async def test_a_cancellation_from_outside_passes_though_the_client_leaves_at_once(outside_first: bool) -> None:
    client, done = Client(), list[str]()
    attendance = Attendance(client.receive)
    task = asyncio.create_task(waiting(attendance, done))
    await turns()
    if outside_first:
        task.cancel()
        client.hangs_up.set()
    else:
        client.hangs_up.set()
        for _ in range(5):  # up to the very turn in which it leaves
            if not attendance.left:
                await asyncio.sleep(0)
        assert attendance.left
        assert not done
        task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "after" not in done


async def test_a_timeout_around_it_is_still_a_timeout() -> None:
    client = Client()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0), Attendance(client.receive):
            await asyncio.Event().wait()


async def test_an_error_is_not_swallowed_with_the_cancellation() -> None:
    client = Client()

    async def failing() -> None:
        async with Attendance(client.receive):
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                raise InvalidRequest("no") from None

    task = asyncio.create_task(failing())
    await turns()
    client.hangs_up.set()
    with pytest.raises(InvalidRequest):
        await task
    assert task.cancelling() == 0


async def test_what_is_done_in_the_turn_in_which_the_client_leaves_cancels_nothing_later() -> None:
    client, ready = Client(), asyncio.Event()

    async def answered() -> str:
        async with Attendance(client.receive):
            await ready.wait()
        await turns()
        return "answered"

    task = asyncio.create_task(answered())
    await turns()
    ready.set()
    client.hangs_up.set()
    assert await task == "answered"
    assert task.cancelling() == 0


async def test_no_task_is_left_behind() -> None:
    before = asyncio.all_tasks()
    for _ in range(3):
        async with Attendance(Client().receive):
            await turns()
    await turns()
    assert asyncio.all_tasks() == before


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 5])
async def test_an_answer_says_its_length_and_goes_out_in_bounded_pieces(size: int) -> None:
    client, body = Client(), bytes(index % 251 for index in range(1000)) * (size // 1000 + 1)
    await send_whole(client.send, 201, [(b"x", b"1")], body[:size])
    assert client.status == 201
    assert client.headers == {b"x": b"1", b"content-length": b"%d" % size}
    assert client.body == body[:size]
    pieces = client.sent[1:]
    assert all(len(piece["body"]) <= PIECE for piece in pieces)
    assert [piece.get("more_body", False) for piece in pieces] == [True] * (len(pieces) - 1) + [False]


async def error_sent(error: PenstockError, *headers: tuple[bytes, bytes], close: bool = False) -> Client:
    client = Client()
    await send_error(client.send, error, headers, close=close)
    return client


async def test_an_error_has_openais_shape() -> None:
    client = await error_sent(InvalidRequest("`n` must be positive.", param="n"), (b"x-request-id", b"req_1"))
    said = {"message": "`n` must be positive.", "type": "invalid_request_error", "param": "n", "code": None}
    assert (client.status, json.loads(client.body)) == (400, {"error": said})
    assert client.headers[b"content-type"] == b"application/json"
    assert client.headers[b"x-request-id"] == b"req_1"
    assert not {b"x-should-retry", b"retry-after", b"connection"} & client.headers.keys()


async def test_an_error_says_whether_to_come_again_and_when() -> None:
    lost = await error_sent(UpstreamReset("lost"))
    assert lost.headers[b"x-should-retry"] == b"false"
    for seconds, said in [(0.01, b"1"), (1.0, b"1"), (30.0, b"30")]:
        busy = await error_sent(ShuttingDown("full", retry_after=seconds))
        assert busy.headers[b"retry-after"] == said
    told = PenstockError("again")
    told.retry = True
    assert (await error_sent(told)).headers[b"x-should-retry"] == b"true"


async def test_a_body_that_was_not_read_is_not_waited_for() -> None:
    assert (await error_sent(BodyTooLarge("no"), close=True)).headers[b"connection"] == b"close"
    assert b"connection" not in (await error_sent(BodyTooLarge("no"))).headers


async def test_a_providers_own_error_is_told_in_its_words() -> None:
    said = {"message": "overloaded", "code": 529, "metadata": {"provider": "x"}}
    client = await error_sent(UpstreamFailed(said))
    assert json.loads(client.body) == {"error": said}
    assert json.loads(UpstreamFailed("just words").body()) == {"error": {"message": "just words"}}


def tree(kind: type[PenstockError]) -> list[type[PenstockError]]:
    return [kind, *(each for child in kind.__subclasses__() for each in tree(child))]


def test_the_tree_that_is_drawn_is_the_tree_that_is_there() -> None:
    drawn = {}
    for line in (errors.__doc__ or "").splitlines():
        words = line.strip("│├└─ ").split()
        if len(words) > 1 and words[1].isdigit():
            drawn[words[0]] = int(words[1])
    assert drawn == {kind.__name__: kind.status for kind in tree(PenstockError)}


def test_every_error_that_a_client_may_see_is_told_apart_by_its_code() -> None:
    codes = [kind.code for kind in tree(PenstockError) if kind not in (InvalidRequest, UpstreamFailed)]
    assert len(set(codes)) == len(codes)
    assert not issubclass(StartupError, PenstockError)
