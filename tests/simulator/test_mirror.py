"""The mirror says what came, and sends bytes that can be checked."""

import hashlib
from collections.abc import Iterator

import httpx
import msgspec
import pytest

from tests.scripted import Wire

from .asking import Json, calls, settled
from .test_behaviour import until_broken
from .test_calls import begin

MIRROR = "/v1/mirror"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
def test_any_method_is_mirrored(wire: httpx.Client, method: str) -> None:
    seen = wire.request(method, f"{MIRROR}/files", content=b"abc").json()
    assert set(seen) == {"method", "target", "headers", "length", "sha256"}
    assert (seen["method"], seen["target"], seen["length"]) == (method, f"{MIRROR}/files", 3)
    assert seen["sha256"] == hashlib.sha256(b"abc").hexdigest()


@pytest.mark.parametrize(
    "target", ["/a%2Fb/%C3%BC?x=%20&x=+&y", "/?", "/a//b/./c", "/a%0Ab%00", "/bytes/x", "/a?b?c=%"]
)
def test_path_and_query_are_shown_as_they_came(address: str, target: str) -> None:
    with Wire(address, b"", path=MIRROR + target) as asked:
        seen = msgspec.json.decode(asked.read_head().read_body())
    assert seen["target"] == MIRROR + target.removesuffix("?")


def test_every_header_is_shown_in_its_order(wire: httpx.Client) -> None:
    seen = wire.get(f"{MIRROR}/h", headers=[("x-b", "1"), ("x-a", "2"), ("x-b", "3")]).json()
    assert [pair for pair in seen["headers"] if pair[0].startswith("x-")] == [["x-b", "1"], ["x-a", "2"], ["x-b", "3"]]


def parts(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield bytes([number % 251]) * 65_536


def test_a_body_in_parts_is_hashed_but_not_shown_when_it_is_long(wire: httpx.Client) -> None:
    seen = wire.post(f"{MIRROR}/upload", content=parts(64)).json()
    assert (seen["length"], seen["sha256"]) == (64 * 65_536, hashlib.sha256(b"".join(parts(64))).hexdigest())
    last = wire.get("/simulator/last").json()
    assert (last["method"], last["path"], last["raw"], last["body"]) == ("POST", f"{MIRROR}/upload", "", None)


def test_the_last_request_is_shown_with_a_small_body(wire: httpx.Client) -> None:
    wire.put(f"{MIRROR}/small?a=b", json={"a": 1}, headers={"x-one": "1"})
    last = wire.get("/simulator/last").json()
    assert (last["method"], last["query"], last["body"], last["headers"]["x-one"]) == ("PUT", "a=b", {"a": 1}, "1")


def test_mirrored_requests_are_not_counted_as_calls(wire: httpx.Client) -> None:
    before = calls(wire)
    wire.post(f"{MIRROR}/x", content=b"abc")
    wire.get(f"{MIRROR}/bytes/5", headers={"x-simulator": "status=500"})
    assert calls(wire) == before


def test_the_one_bad_key_is_refused(wire: httpx.Client) -> None:
    refused = wire.get(f"{MIRROR}/x", headers={"authorization": "Bearer bad-key"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    assert wire.get(f"{MIRROR}/x", headers={"authorization": "Bearer any"}).status_code == 200


def some_bytes(wire: httpx.Client, count: int, wanted: str | None = None, **headers: str) -> httpx.Response:
    return wire.get(f"{MIRROR}/bytes/{count}", headers={**headers, **({"range": wanted} if wanted else {})})


@pytest.mark.parametrize("count", [0, 1, 200_000])
def test_bytes_are_as_many_as_asked_and_the_same_each_time(wire: httpx.Client, count: int) -> None:
    first, second = some_bytes(wire, count), some_bytes(wire, count)
    assert (first.status_code, int(first.headers["content-length"]), len(first.content)) == (200, count, count)
    assert first.content == second.content
    assert first.headers["etag"] == second.headers["etag"]
    assert some_bytes(wire, 200_001).content.startswith(first.content)


@pytest.mark.parametrize(
    ("wanted", "begin", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=65530-140000", 65_530, 140_001),
        ("bytes=100000-", 100_000, 200_000),
        ("bytes=-7", 199_993, 200_000),
        ("bytes=-300000", 0, 200_000),
        ("bytes=199999-999999999", 199_999, 200_000),
    ],
)
def test_a_range_is_a_part_of_the_whole(wire: httpx.Client, wanted: str, begin: int, end: int) -> None:
    whole, part = some_bytes(wire, 200_000), some_bytes(wire, 200_000, wanted)
    assert part.status_code == 206
    assert part.content == whole.content[begin:end]
    assert part.headers["content-range"] == f"bytes {begin}-{end - 1}/200000"
    assert part.headers["etag"] == whole.headers["etag"]


@pytest.mark.parametrize("wanted", ["bytes=200000-", "bytes=-0", "bytes=999999-1000000"])
def test_a_range_beyond_the_end_is_refused(wire: httpx.Client, wanted: str) -> None:
    refused = some_bytes(wire, 200_000, wanted)
    assert (refused.status_code, refused.headers["content-range"]) == (416, "bytes */200000")


@pytest.mark.parametrize("wanted", ["bytes=-", "bytes=5-2", "bytes=0-1,5-6", "lines=0-1", "x"])
def test_a_range_that_makes_no_sense_is_passed_over(wire: httpx.Client, wanted: str) -> None:
    assert len(some_bytes(wire, 10, wanted).content) == 10


def test_a_range_of_another_version_is_passed_over(wire: httpx.Client) -> None:
    etag = some_bytes(wire, 10).headers["etag"]
    versions = [some_bytes(wire, 10, "bytes=0-1", **{"if-range": one}).status_code for one in (etag, '"older"')]
    assert versions == [206, 200]


def test_head_has_the_length_and_no_body(wire: httpx.Client) -> None:
    response = wire.head(f"{MIRROR}/bytes/10")
    assert (response.headers["content-length"], response.content) == ("10", b"")


def test_so_many_bytes_are_refused_that_no_test_can_mean_them(wire: httpx.Client) -> None:
    assert some_bytes(wire, 9_999_999_999).status_code == 400


def told(wire: httpx.Client, options: str, path: str = "bytes/1000") -> httpx.Response:
    return wire.get(f"{MIRROR}/{path}", headers={"x-simulator": options})


def test_options_shape_the_answer(wire: httpx.Client) -> None:
    assert told(wire, "status=429;retry-after=7").headers["retry-after"] == "7"
    assert told(wire, "redirect=/elsewhere").headers["location"] == "/elsewhere"
    shaped = told(wire, "type=image/png;header=x-odd:1;cookie=crumb")
    wire.cookies.clear()
    names = ("content-type", "x-odd", "set-cookie")
    assert [shaped.headers[name] for name in names] == ["image/png", "1", "sim=crumb; Path=/"]
    assert told(wire, "bogus").status_code == 400


@pytest.mark.parametrize("path", ["bytes/200000", "reflection"])
def test_the_answer_may_end_at_any_byte(wire: httpx.Client, path: str) -> None:
    cut = told(wire, "cut-at=70", path)
    assert (cut.status_code, len(cut.content)) == (200, 70)
    with wire.stream("GET", f"{MIRROR}/{path}", headers={"x-simulator": "reset-at=70"}) as response:
        assert int(response.headers["content-length"]) > 70
        received, broken = until_broken(response.iter_bytes())
    assert (len(received), broken) == (70, True)


@pytest.mark.parametrize("count", [1, 2, 50])
@pytest.mark.parametrize(("path", "sent"), [("bytes/1", 0), ("bytes/200000", 100_000), ("reflection", None)])
def test_a_stalled_answer_never_comes_whole(wire: httpx.Client, path: str, sent: int | None, count: int) -> None:
    with wire.stream("GET", f"{MIRROR}/{path}", headers={"x-simulator": f"stall={count}"}, timeout=0.1) as response:
        promised = int(response.headers["content-length"])
        received, broken = until_broken(response.iter_bytes())
    assert broken
    assert len(received) == (promised // 2 if sent is None else sent)


@pytest.mark.parametrize(("path", "options"), [("bytes/0", "stall=1"), ("reflection", "status=304;stall=1")])
def test_a_stall_where_there_is_no_body_holds_back_the_head(wire: httpx.Client, path: str, options: str) -> None:
    with pytest.raises(httpx.ReadTimeout):
        wire.get(f"{MIRROR}/{path}", headers={"x-simulator": options}, timeout=0.1)


def test_failures_end_after_so_many_requests(wire: httpx.Client) -> None:
    codes = [told(wire, "fail=2;status=503", path).status_code for path in ("a", "a", "b", "a")]
    assert codes == [503, 503, 503, 200]


def test_a_caller_who_leaves_while_sending_leaves_nothing_open(wire: httpx.Client, address: str) -> None:
    wire.get(f"{MIRROR}/before")
    with begin(address, b"abc", 100, target=f"{MIRROR}/half"):
        pass
    counts: Json = settled(wire)
    assert counts["calls"] == 0
    assert wire.get("/simulator/last").json()["path"] == f"{MIRROR}/before"
