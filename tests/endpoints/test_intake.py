"""Who may come in, and how much may be said."""

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.access import Access, Grant, Guard, digest
from proxy.core.load import Load
from proxy.endpoints.intake import ClientLeftError, Door, read_body
from proxy.errors import (
    BodyTooLarge,
    Forbidden,
    InvalidRequest,
    Overloaded,
    PenstockError,
    RequestTimeout,
    Unauthorized,
    UnsupportedEncoding,
    UnsupportedMediaType,
)
from tests.fakes import a_door

APP = "https://app.example.org"
DOOR = a_door(origins=frozenset({APP}))
PUBLIC = a_door(loopback_only=False)
GOOD = {b"host": b"localhost:8080", b"content-type": b"application/json"}


def refusal(headers: dict[bytes, bytes], door: Door = DOOR) -> PenstockError | None:
    try:
        door.check(GOOD | headers)
    except PenstockError as error:
        return error
    return None


HOSTS = [b"localhost", b"LocalHost:1", b"127.0.0.1", b"127.0.0.1:8080", b"[::1]", b"[::1]:8080"]


@pytest.mark.parametrize("host", HOSTS)
def test_without_keys_loopbacks_names_are_let_in(host: bytes) -> None:
    assert refusal({b"host": host}) is None


REBOUND = [
    b"",
    b":8080",
    b"example.org",
    b"localhost.example.org",
    b"example.org:80",
    b"127.0.0.1.example.org",
    b"127.0.0.2",
    b"0.0.0.0",
    b"2130706433",
    b"[::1",
    b"[::2]",
    b"localhost, example.org",
    b"\xff",
]


@pytest.mark.parametrize("host", REBOUND)
def test_without_keys_a_name_that_a_web_page_may_have_rebound_is_not(host: bytes) -> None:
    assert type(refusal({b"host": host})) is Forbidden
    assert refusal({b"host": host}, PUBLIC) is None


def test_once_there_are_keys_any_name_will_do() -> None:
    access = Access({})
    door = a_door(access=access)
    assert type(refusal({b"host": b"proxy.example"}, door)) is Forbidden
    access.replace({digest(b"sk"): Grant("a", "a")}, any_made=True)
    assert refusal({b"host": b"proxy.example", b"api-key": b"sk"}, door) is None


KEYED = Guard(digest(b"admin"), digest(b"scraper"))


def scraped(headers: dict[bytes, bytes], door: Door) -> int:
    try:
        door.check_scraper({b"host": b"localhost:8080"} | headers)
    except PenstockError as error:
        return error.status
    return 200


def test_the_metrics_are_open_under_loopbacks_names_and_cost_a_key_elsewhere() -> None:
    access = Access({}, any_made=True)
    shown = {b"authorization": b"Bearer scraper"}
    inside, outside = a_door(guard=KEYED, access=access), a_door(guard=KEYED, access=access, loopback_only=False)
    assert scraped({}, inside) == 200
    for headers, door in [({b"host": b"proxy.example"}, inside), ({}, outside)]:
        assert scraped(headers, door) == 401
        assert scraped(headers | {b"api-key": b"other"}, door) == 401
        assert scraped(headers | shown, door) == 200
        assert scraped(headers | shown | {b"origin": b"https://evil.example"}, door) == 403
    assert scraped({}, a_door(access=access, loopback_only=False)) == 403  # nobody has a key


def test_the_admins_door_is_closed_to_web_pages_and_to_who_has_no_admin_key() -> None:
    door = a_door(guard=KEYED, access=Access({digest(b"sk"): Grant("a", "a")}))
    door.check_admin({b"host": b"proxy.example", b"authorization": b"Bearer admin"})
    for key in (b"sk", b"scraper", b""):
        with pytest.raises(Unauthorized):
            door.check_admin({b"host": b"localhost", b"api-key": key})
    with pytest.raises(Forbidden):
        door.check_admin({b"origin": b"https://evil.example", b"authorization": b"Bearer admin"})


def test_without_keys_a_request_without_a_host_is_not_let_in() -> None:
    with pytest.raises(Forbidden):
        DOOR.check({b"content-type": b"application/json"})


@pytest.mark.parametrize(
    "origin",
    [b"https://evil.example", b"null", b"", b"*", b"http://app.example.org", b"https://app.example.org:8443", b"\xe9"],
)
def test_a_web_page_elsewhere_is_refused_unless_it_is_named(origin: bytes) -> None:
    assert refusal({b"origin": APP.encode()}) is None
    for door in (DOOR, PUBLIC):
        error = refusal({b"origin": origin}, door)
        assert type(error) is Forbidden
        assert (error.status, error.code) == (403, "forbidden")


OWN = [
    (b"http://localhost:8080", b"localhost:8080"),
    (b"https://localhost:8080", b"localhost:8080"),  # what ends TLS stands before us
    (b"http://127.0.0.1", b"127.0.0.1"),
    (b"http://[::1]:8080", b"[::1]:8080"),
]


@pytest.mark.parametrize(("origin", "host"), OWN)
def test_a_page_that_came_from_here_is_let_in(origin: bytes, host: bytes) -> None:
    for door in (DOOR, PUBLIC):
        assert refusal({b"origin": origin, b"host": host}, door) is None


NOT_OURS = [
    (b"http://localhost:3000", b"localhost:8080"),  # another server of this machine
    (b"http://localhost", b"localhost:8080"),
    (b"http://127.0.0.1:8080", b"localhost:8080"),
    (b"http://localhost:8080.evil.example", b"localhost:8080"),
    (b"http://evil.example/localhost:8080", b"localhost:8080"),
    (b"http://localhost:8080@evil.example", b"localhost:8080"),
    (b"http://evil.example@localhost:8080", b"localhost:8080"),
    (b"file://localhost:8080", b"localhost:8080"),
    (b"chrome-extension://localhost:8080", b"localhost:8080"),
    (b"localhost:8080", b"localhost:8080"),
    (b"://localhost:8080", b"localhost:8080"),
    (b"http://", b""),
    (b"http://http://localhost", b"localhost"),
]


@pytest.mark.parametrize(("origin", "host"), NOT_OURS)
def test_a_page_that_came_from_somewhere_else_is_not(origin: bytes, host: bytes) -> None:
    for door in (DOOR, PUBLIC):
        assert type(refusal({b"origin": origin, b"host": host}, door)) is Forbidden


def test_without_a_host_no_page_came_from_here() -> None:
    with pytest.raises(Forbidden):
        PUBLIC.check({b"origin": b"http://", b"content-type": b"application/json"})


def test_a_page_that_has_rebound_its_name_still_lacks_loopbacks_or_a_key() -> None:
    rebound = {b"origin": b"http://evil.example:8080", b"host": b"evil.example:8080"}
    assert type(refusal(rebound)) is Forbidden
    keyed = a_door(access=Access({digest(b"sk"): Grant("a", "a")}))
    assert type(refusal(rebound, keyed)) is Unauthorized
    with pytest.raises(Unauthorized):
        a_door(guard=KEYED, access=Access({}, any_made=True)).check_scraper(rebound)
    with pytest.raises(Unauthorized):
        a_door(guard=KEYED).check_admin({**rebound, b"host": b"localhost", b"origin": b"http://localhost"})


@pytest.mark.parametrize(
    "media",
    [b"application/json", b"application/json; charset=utf-8", b" Application/JSON ;x", b"application/vnd.api+json"],
)
def test_a_body_that_says_it_is_json_is_taken(media: bytes) -> None:
    assert refusal({b"content-type": media}) is None


@pytest.mark.parametrize(
    "media",
    [
        b"",
        b"text/plain",
        b"text/plain; application/json",
        b"application/x-www-form-urlencoded",
        b"multipart/form-data",
        b"json",
    ],
)
def test_a_body_that_a_web_page_can_send_without_asking_is_refused(media: bytes) -> None:
    error = refusal({b"content-type": media})
    assert type(error) is UnsupportedMediaType
    assert error.status == 415


@pytest.mark.parametrize("encoding", [b"gzip", b"br", b"identity, gzip", b"zstd", b"deflate"])
def test_an_encoded_body_is_refused(encoding: bytes) -> None:
    error = refusal({b"content-encoding": encoding})
    assert type(error) is UnsupportedEncoding
    assert error.status == 415
    assert refusal({b"content-encoding": b"Identity"}) is refusal({b"content-encoding": b""}) is None


@pytest.mark.parametrize("length", [b"-1", b"1, 1", b"0x10", b"", b"1.0", b" 1", b"\xb2"])
def test_a_length_that_is_no_number_is_refused(length: bytes) -> None:
    error = refusal({b"content-length": length})
    assert type(error) is InvalidRequest
    assert error.status == 400


@pytest.mark.parametrize("length", [b"101", b"1" * 30])
def test_a_body_that_is_too_large_is_refused_before_it_is_read(length: bytes) -> None:
    error = refusal({b"content-length": length})
    assert type(error) is BodyTooLarge
    assert error.status == 413
    assert refusal({b"content-length": b"100"}) is None


@settings(deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([b"host", b"origin", b"content-type", b"content-encoding", b"content-length"]),
        st.binary(max_size=20),
    )
)
def test_any_header_is_let_in_or_refused_in_our_words(headers: dict[bytes, bytes]) -> None:
    error = refusal(headers)
    assert error is None or 400 <= error.status < 500


class Client:
    """A client that sends these pieces, then perhaps hangs up."""

    def __init__(self, *pieces: bytes, leaves: bool = False) -> None:
        self._messages = self._all(pieces, leaves=leaves)
        self.read = 0

    def _all(self, pieces: tuple[bytes, ...], *, leaves: bool) -> Iterator[dict[str, Any]]:
        for number, piece in enumerate(pieces):
            yield {"type": "http.request", "body": piece, "more_body": leaves or number + 1 < len(pieces)}
        yield {"type": "http.disconnect"}

    async def __call__(self) -> dict[str, Any]:
        self.read += 1
        return next(self._messages)


@pytest.mark.parametrize(
    "pieces", [(b"",), (b"one",), (b"one", b"", b"two"), (b"", b"x"), (b"x" * 100,), (b"x" * 99, b"x")]
)
async def test_a_body_is_read_whole(pieces: tuple[bytes, ...]) -> None:
    client = Client(*pieces)
    assert await read_body(client, DOOR) == b"".join(pieces)
    assert client.read == len(pieces)


async def test_a_message_without_members_is_the_end_of_an_empty_body() -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request"}

    assert await read_body(receive, DOOR) == b""


@pytest.mark.parametrize("pieces", [(b"x" * 101,), (b"x" * 60, b"x" * 41, b"never read"), (b"x" * 101, b"never read")])
async def test_a_body_that_did_not_say_how_large_it_is_is_refused_once_it_is_too_large(
    pieces: tuple[bytes, ...],
) -> None:
    client = Client(*pieces)
    with pytest.raises(BodyTooLarge):
        await read_body(client, DOOR)
    assert client.read == len([piece for piece in pieces if piece != b"never read"])


@pytest.mark.parametrize("pieces", [(), (b"half",), (b"half", b"")])
async def test_a_client_that_leaves_before_its_body_is_whole_gets_no_answer(pieces: tuple[bytes, ...]) -> None:
    with pytest.raises(ClientLeftError):
        await read_body(Client(*pieces, leaves=True), DOOR)


async def test_a_body_that_does_not_become_whole_in_time_is_given_up_however_often_a_piece_comes() -> None:
    async def dripping() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"", "more_body": True}

    async def silent() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    for receive in (dripping, silent):
        with pytest.raises(RequestTimeout) as caught:
            await read_body(receive, a_door(body_timeout=0.05))
        assert caught.value.status == 408
        assert caught.value.message == "The body did not come within 0.05 seconds (server.body_timeout)."


async def test_a_body_that_is_there_needs_no_time() -> None:
    assert await read_body(Client(b"one", b"two"), a_door(body_timeout=0)) == b"onetwo"


async def test_bodies_are_counted_while_they_come_and_too_many_are_refused() -> None:
    load = Load(max_flights=1, max_readers=1, max_buffered=60)
    door = a_door(load=load)
    seen = []

    class Watching(Client):
        async def __call__(self) -> dict[str, Any]:
            seen.append(load.received)
            return await super().__call__()

    assert await read_body(Watching(b"a" * 30, b"b" * 20), door) == b"a" * 30 + b"b" * 20
    assert (seen, load.received) == ([0, 30], 0)
    with pytest.raises(Overloaded):
        await read_body(Client(b"a" * 30, b"b" * 40), door)
    assert load.received == 0
