"""`/chat/stream` on a real port: what a page reads there is what the provider says, and what an SDK would be told."""

import asyncio
import json
from decimal import Decimal
from typing import Any, NamedTuple

import httpx
import pytest

from tests.conftest import MakeProxy
from tests.core.test_plain import BAD
from tests.keyed import asks, key, shows
from tests.routed import OF_THE_SIMULATOR, UPSTREAMS, counted, model, routing
from tests.scripted import DONE, Scripted, Wire, answer, chunk, event, events, usage_chunk, whole_stream
from tests.support import FakeClock, Json, Proxy, Simulator, ask, eventually, free_port, together

PAGE = "/chat/stream"
pytestmark = pytest.mark.usefixtures("loaded", "unheard")


class Told(NamedTuple):
    """What a page was told. `whole`: it ended as HTTP ends."""

    status: int
    headers: httpx.Headers
    raw: bytes
    whole: bool

    @property
    def events(self) -> list[tuple[str, Json]]:
        """Name ("" where it has none) and data of each."""
        return [parsed(block) for block in self.raw.split(b"\n\n") if block and not block.startswith(b":")]

    def text(self, channel: str = "content") -> str:
        return "".join(data[channel] for name, data in self.events if not name and channel in data)

    @property
    def done(self) -> Json:
        """The figures, which are the last word of a whole answer, and of no other."""
        assert (self.status, self.whole) == (200, True), self
        assert self.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert [name for name, _ in self.events if name] == ["done"], self.raw
        return self.events[-1][1]

    @property
    def error(self) -> Json:
        """An error in place of an answer, or the last word of one that broke."""
        if self.status == 200:
            assert [name for name, _ in self.events if name] == ["error"], self.raw
            assert not self.whole
        said = self.events[-1][1] if self.status == 200 else json.loads(self.raw)
        assert set(said) == {"error"}
        assert set(said["error"]) == {"message", "type", "param", "code"}
        error: Json = said["error"]
        return error


def parsed(block: bytes) -> tuple[str, Json]:
    """An event as a page may read it: by lines."""
    *named, data = block.split(b"\n")
    assert len(named) <= 1
    return b"".join(named).removeprefix(b"event: ").decode(), json.loads(data.removeprefix(b"data: "))


def plainly(prompt: str, name: str | None = "sim-instant", **members: Any) -> Json:
    return {"messages": [{"role": "user", "content": prompt}], **({"model": name} if name else {}), **members}


def told(proxy: Proxy, body: Json, **headers: str) -> Told:
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    with proxy.http.stream("POST", PAGE, json=body, headers=said) as response:
        pieces: list[bytes] = []
        whole = True
        try:
            pieces.extend(response.iter_raw())
        except httpx.RemoteProtocolError:
            whole = False
        return Told(response.status_code, response.headers, b"".join(pieces), whole)


# An answer.


def test_text_arrives_as_the_provider_sends_it(make_proxy: MakeProxy, scripted: Scripted, prompt: str) -> None:
    proxy = make_proxy(scripted.base_url)
    with Wire(proxy.url, plainly(prompt, "m"), path=PAGE) as wire:
        turn = scripted.turn()
        turn.head()
        turn.send(chunk(""))
        wire.read_head()
        for word in ("one", " two\n", " 🙂"):
            turn.send(chunk(word))
            assert parsed(wire.read_event().rstrip()) == ("", {"content": word})
        turn.send(chunk(finish="stop"), DONE)
        turn.end()
        name, done = parsed(wire.read_event().rstrip())
        assert (name, done["finish_reason"], wire.read_event(), wire.clean) == ("done", "stop", b"", True)


def test_every_character_is_the_providers(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    body = plainly(prompt, "sim-instant;chunks=900")
    direct = simulator.direct(body)
    content = direct["choices"][0]["message"]["content"]
    assert all(each in content for each in ("\n", "é", "川", "🙂"))
    for cache in ("miss", "hit"):
        found = told(proxy, body)
        assert (found.text(), found.done["cache"]) == (content, cache)
        assert found.headers["x-accel-buffering"] == "no"
        usage, said = found.done["usage"], direct["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (
            said["prompt_tokens"],
            said["completion_tokens"],
        )
        assert found.done["finish_reason"] == "stop"


AWKWARD = "a\r\nb\rc\u2028d\u2029e\x85f\x0bg\x00 data: x\n\n: y \U0010ffff"


def test_what_ends_a_line_somewhere_does_not_end_an_event(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    with Wire(proxy.url, plainly(prompt, "m"), path=PAGE) as wire:
        stream = b"".join(whole_stream(AWKWARD, "👩\u200d👧"))
        scripted.turn().answer(*(stream[at : at + 1] for at in range(len(stream))))
        wire.read_head()
        words = [parsed(said.rstrip()) for said in wire.read_events()[:-1]]
    assert words == [("", {"content": AWKWARD}), ("", {"content": "👩\u200d👧"})]
    with proxy.http.stream("POST", PAGE, json=plainly(prompt, "m")) as response:  # by a client that splits as str does
        lines = [line for line in response.iter_lines() if line.startswith("data: ")]
    assert [json.loads(line[6:]) for line in lines[:2]] == [data for _, data in words]


def test_what_is_refused_or_thought_is_told_apart_from_the_text(
    proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    for name, said, member in (
        ("sim-instant;refusal", "refusal", "refusal"),
        ("sim-reasoning;first=0;gap=0", "reasoning", "reasoning_content"),
    ):
        message = simulator.direct(plainly(prompt, name))["choices"][0]["message"]
        found = told(proxy, plainly(prompt, name))
        assert found.done["finish_reason"] == "stop"
        assert (found.text(said), found.text()) == (message[member], message["content"] or "")
    assert found.done["usage"]["reasoning_tokens"] > 0


def test_the_request_is_made_as_it_was_meant(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    found = told(proxy, plainly(prompt, max_tokens=3, temperature=0.5))
    body = simulator.last()["body"]
    assert (body["max_tokens"], body["temperature"], body["model"]) == (3, 0.5, "sim-instant")
    assert body["messages"] == [{"role": "user", "content": prompt}]
    assert body["stream"] is True
    assert (found.done["finish_reason"], found.done["usage"]["completion_tokens"]) == ("length", 3)
    assert found.done["id"] == found.headers["x-penstock-request-id"]


def test_a_model_that_nobody_names_is_the_default_one(make_proxy: MakeProxy, prompt: str) -> None:
    sections = routing(alpha=model("alpha", "9", "9"), beta=model("beta", "1", "1"))
    proxy = make_proxy(**sections, routing={"default_model": "any"})
    found = told(proxy, plainly(prompt, None))
    assert (found.done["model"], found.done["provider"]) == ("beta", "sim")
    assert found.headers["x-penstock-model"] == UPSTREAMS["beta"]
    assert told(proxy, plainly(prompt, "alpha")).done["model"] == "alpha"


def test_without_a_default_model_the_error_says_how_to_set_one(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    found = told(proxy, plainly(prompt, None))
    assert (found.status, found.error["param"]) == (400, "model")
    assert "default_model" in found.error["message"]
    assert simulator.asked() == 0


# The cache, and money.

PRICED: Json = {"models": {"priced": {"upstream": "sim-instant", "price": {"input": "2", "output": "8"}}}}


def cost(done: Json) -> Decimal:
    usage: dict[str, int] = done["usage"]
    return (usage["prompt_tokens"] * Decimal(2) + usage["completion_tokens"] * Decimal(8)) / 1_000_000


def test_a_miss_says_what_it_cost_and_a_hit_what_that_saved(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy(**PRICED)
    first, again = (told(proxy, plainly(prompt, "priced")) for _ in range(2))
    assert (first.done["cache"], first.done["model"]) == ("miss", "priced")
    assert (Decimal(first.done["cost_usd"]), first.done["saved_usd"]) == (cost(first.done), "0")
    assert (again.done["cache"], again.done["cost_usd"]) == ("hit", "0")
    assert Decimal(again.done["saved_usd"]) == cost(first.done)
    assert again.headers["cache-status"].startswith("penstock; hit")
    assert again.headers["x-penstock-saved-usd"] == again.done["saved_usd"]
    assert (again.text(), again.done["usage"]) == (first.text(), first.done["usage"])
    for done in (first.done, again.done):
        assert 0 < done["first_token_seconds"] <= done["total_seconds"]


def test_where_no_price_is_known_nothing_is_said_of_it(proxy: Proxy, prompt: str) -> None:
    name = "sim-medium;first=0;gap=0"
    assert told(proxy, plainly(prompt, name)).done["cost_usd"] is None
    again = told(proxy, plainly(prompt, name)).done
    assert (again["cost_usd"], again["saved_usd"]) == ("0", None)


@pytest.mark.parametrize("form", [{}, {"stream": True}, {"stream": True, "stream_options": {"include_usage": True}}])
def test_it_shares_its_answers_with_those_who_have_an_sdk(
    form: Json, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    body = ask(prompt + " theirs", temperature=0.0)
    with Wire(proxy.url, body | form) as wire:
        wire.read_head().read_body()
    assert told(proxy, body).done["cache"] == "hit"
    body = ask(prompt + " ours", temperature=0.0)
    assert told(proxy, body).done["cache"] == "miss"
    with Wire(proxy.url, body | form) as wire:
        assert wire.read_head().headers["cache-status"].startswith("penstock; hit")
        wire.read_body()
    assert simulator.asked() == 2


@pytest.mark.parametrize("leader", ["page", "stream", "JSON"])
async def test_who_asks_the_same_meanwhile_joins(
    leader: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(**PRICED)
    body = plainly(prompt, "priced")
    first = {
        "page": lambda: told(proxy, body),
        "stream": lambda: events(proxy.url, body),
        "JSON": lambda: answer(proxy.url, body),
    }[leader]
    _, *joined = await together(
        proxy, simulator, lambda: asyncio.to_thread(first), *[lambda: asyncio.to_thread(told, proxy, body)] * 2
    )
    for found in joined:
        assert isinstance(found, Told)
        assert (found.done["cache"], found.done["cost_usd"]) == ("collapsed", "0")
        assert Decimal(found.done["saved_usd"]) == cost(found.done)
        assert found.text() == answer(proxy.url, body)["choices"][0]["message"]["content"]
    assert simulator.asked() == 1


def test_a_page_says_how_it_wants_to_be_answered(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    body = plainly(prompt)
    found = told(proxy, body, cache_control="only-if-cached")
    assert (found.status, found.error["code"]) == (504, "not_cached")
    assert told(proxy, body).done["cache"] == "miss"
    assert told(proxy, body, cache_control="only-if-cached").done["cache"] == "hit"
    assert told(proxy, body, cache_control="no-cache").done["cache"] == "miss"
    assert told(proxy, body, cache_control="no-store").done["cache"] == "bypass"
    assert told(proxy, body, x_penstock_sample="2").done["cache"] == "miss"
    assert simulator.asked() == 4
    replayed = told(proxy, body, x_penstock_replay="recorded")
    assert (replayed.done["cache"], replayed.text()) == ("hit", told(proxy, body).text())
    assert told(proxy, body, x_penstock_ttl="soon").error["param"] == "x-penstock-ttl"


def test_an_old_answer_says_that_it_is_one(make_proxy: MakeProxy, scripted: Scripted, prompt: str) -> None:
    clock = FakeClock()
    cache = {"ttl": "60s", "stale_if_error": "1h"}
    proxy = make_proxy(scripted.base_url, clock=clock, cache=cache, provider={"max_retries": 0})
    for answered, cached in ((200, "miss"), (503, "stale")):
        with Wire(proxy.url, plainly(prompt, "m"), path=PAGE) as wire:
            turn = scripted.turn()
            if answered == 200:
                turn.answer(*whole_stream("one"))
            else:
                turn.answer(b"{}", status=answered, content_type="application/json")
            wire.read_head()
            *words, done = [parsed(said.rstrip()) for said in wire.read_events()]
            assert (words, done[1]["cache"]) == ([("", {"content": "one"})], cached)
        clock.ahead = 100.0


def test_an_answer_of_many_pieces_out_of_the_cache_is_whole(proxy: Proxy, prompt: str) -> None:
    body = plainly(prompt, "sim-instant;big=900000")
    first, again = told(proxy, body), told(proxy, body)
    assert (first.done["cache"], again.done["cache"]) == ("miss", "hit")
    assert again.text() == first.text()
    assert "x" * 900_000 in again.text()


# Providers that do less than they might.


@pytest.mark.parametrize("usage", ["ask", "never"])
def test_where_a_provider_says_no_usage_none_is_made_up(usage: str, make_proxy: MakeProxy, prompt: str) -> None:
    models = {"priced": {**PRICED["models"]["priced"], "upstream": "sim-instant;nousage"}}
    proxy = make_proxy(provider={"usage": usage}, models=models)
    first, again = (told(proxy, plainly(prompt, "priced")).done for _ in range(2))
    assert [(each["cache"], each["usage"], each["saved_usd"]) for each in (first, again)] == [
        ("miss", None, None),
        ("hit", None, None),
    ]
    assert (first["cost_usd"], again["cost_usd"]) == (None, "0")


def test_a_provider_that_refuses_to_be_asked_for_usage_answers_all_the_same(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy()
    body = plainly(prompt, "sim-instant;refuse-usage;nousage")
    assert [told(proxy, body).done["cache"] for _ in range(2)] == ["miss", "hit"]


def test_a_provider_that_answers_with_json_is_told_as_a_stream(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    body = plainly(prompt, "sim-instant;json")
    content = simulator.direct(body)["choices"][0]["message"]["content"]
    for cache in ("miss", "hit"):
        found = told(proxy, body)
        assert (found.text(), found.done["cache"]) == (content, cache)
        assert "content-length" not in found.headers


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"hello": "world"}', 502, "upstream_bad_content_type"),
        (b'{"error": {"message": "no more", "type": "t", "param": null, "code": 402}}', 402, 402),
    ],
)
def test_json_that_is_no_answer_is_an_error_with_a_status(
    body: bytes, status: int, code: object, make_proxy: MakeProxy, scripted: Scripted, prompt: str
) -> None:
    proxy = make_proxy(scripted.base_url)
    with Wire(proxy.url, plainly(prompt, "m"), path=PAGE) as wire:
        scripted.turn().answer(body, content_type="application/json")
        found = Told(wire.read_head().status, httpx.Headers(wire.headers), wire.read_body(), wire.clean)
    assert (found.status, found.error["code"], found.whole) == (status, code, True)


def test_json_without_end_is_given_up(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.endpoints.stream.MOST", 100_000)
    proxy = make_proxy(cache={"max_entry": "10KiB"})
    found = told(proxy, plainly(prompt, "sim-instant;json;endless"))
    assert (found.status, found.error["code"]) == (502, "upstream_event_too_large")
    eventually(lambda: simulator.calls()["open"] == 0)


# What goes wrong.


@pytest.mark.parametrize(
    ("option", "status"), [("status=503", 503), ("status=429", 429), ("status=404", 404), ("error=0", 502)]
)
def test_an_error_before_the_first_byte_has_its_status(
    option: str, status: int, make_proxy: MakeProxy, prompt: str
) -> None:
    proxy = make_proxy(provider={"max_retries": 0})
    body = plainly(prompt, f"sim-instant;{option}")
    found = told(proxy, body)
    with Wire(proxy.url, {**body, "stream": True}) as wire:
        said = json.loads(wire.read_head().read_body())
        assert (found.status, found.error) == (wire.status, said["error"])
    assert found.status == status
    assert found.headers["content-type"].startswith("application/json")
    assert found.headers["x-penstock-request-id"].startswith("req_")


def test_a_provider_that_is_not_there_is_an_error_with_a_status(make_proxy: MakeProxy, prompt: str) -> None:
    found = told(make_proxy(f"http://127.0.0.1:{free_port()}/v1"), plainly(prompt))
    assert (found.status, found.error["code"]) == (502, "upstream_connect_error")


@pytest.mark.parametrize(
    ("option", "code"), [("cut=3", "upstream_truncated"), ("reset=3", "upstream_reset"), ("error=3", "server_error")]
)
def test_an_answer_that_breaks_says_so_and_has_no_clean_end(
    option: str, code: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy()
    body = plainly(prompt, f"sim-instant;{option}")
    for _ in range(2):  # nothing of it is kept
        found = told(proxy, body)
        assert (found.status, found.error["code"]) == (200, code)
        assert found.text()
    assert simulator.asked() == 2
    assert outcomes(proxy) == {"broken": 2}


def outcomes(proxy: Proxy) -> dict[str, float]:
    """Of this endpoint's requests, by how they ended."""
    known = {"miss", "hit", "broken", "refused", "left", "collapsed", "bypass"}
    requests = counted(proxy.metrics(), "penstock_requests_total")
    return {
        next(label for label in labels if label in known): value
        for labels, value in requests.items()
        if "stream" in labels
    }


def test_what_cannot_be_read_is_passed_over_and_no_answer_is_called_whole(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy()
    body = plainly(prompt, "sim-instant;chunks=9")
    whole = told(proxy, body).text()
    found = told(proxy, plainly(prompt, "sim-instant;chunks=9;malformed=4"))
    assert (found.text(), found.error["code"]) == (whole, "upstream_truncated")
    assert outcomes(proxy) == {"miss": 1, "broken": 1}


def test_an_end_without_a_reason_is_not_called_whole(make_proxy: MakeProxy, scripted: Scripted, prompt: str) -> None:
    proxy = make_proxy(scripted.base_url)
    with Wire(proxy.url, plainly(prompt, "m"), path=PAGE) as wire:
        scripted.turn().answer(chunk("one"), DONE)
        wire.read_head()
        found = Told(200, httpx.Headers(wire.headers), b"".join(wire.read_events()), wire.clean)
    assert (found.text(), found.error["code"]) == ("one", "upstream_truncated")


def test_a_page_that_is_closed_stops_the_provider(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    with proxy.http.stream("POST", PAGE, json=plainly(prompt, "sim-instant;stall=3")) as response:
        pieces = response.iter_raw()  # held, since it closes the page when it is let go
        assert next(pieces).startswith(b"data: ")
        assert simulator.calls()["open"] == 1
    eventually(lambda: simulator.calls()["hung_up"] == 1)
    proxy.becomes_quiet()


def test_a_page_that_is_closed_before_the_first_word_stops_the_provider(
    proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    wire = Wire(proxy.url, plainly(prompt, "sim-instant;first=30"), path=PAGE)
    eventually(lambda: simulator.calls()["open"] == 1)
    wire.close()
    eventually(lambda: simulator.calls()["hung_up"] == 1)
    proxy.becomes_quiet()


def test_a_silent_provider_is_bridged_by_comments(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.endpoints.client.PING_AFTER", 0.01)
    proxy = make_proxy(scripted.base_url)
    with Wire(proxy.url, plainly(prompt, "m"), path=PAGE) as wire:
        turn = scripted.turn()
        turn.head()
        turn.send(chunk("one"))
        wire.read_head()
        assert parsed(wire.read_event().rstrip()) == ("", {"content": "one"})
        assert [wire.read_event() for _ in range(3)] == [b": ping\n\n"] * 3
        turn.send(chunk(finish="stop"), usage_chunk(), DONE)
        turn.end()
        *pings, last = wire.read_events()
        assert set(pings) <= {b": ping\n\n"}
        assert last.startswith(b"event: done\n")


def test_events_that_say_nothing_to_a_page_are_no_silence(
    make_proxy: MakeProxy, scripted: Scripted, prompt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.endpoints.stream.PING_AFTER", 0.0)
    proxy = make_proxy(scripted.base_url)
    with Wire(proxy.url, plainly(prompt, "m"), path=PAGE) as wire:
        turn = scripted.turn()
        turn.head()
        turn.send(event({"choices": [{"index": 0, "delta": {"thinking_of": "something"}}]}))
        wire.read_head()
        assert wire.read_event() == b": ping\n\n"
        turn.send(*whole_stream("one"))
        turn.end()
        assert wire.read_events()[-1].startswith(b"event: done\n")


# Who may ask, and what.


@pytest.mark.parametrize(("body", "param"), BAD, ids=lambda value: str(value)[:40])
def test_what_is_no_such_request_is_refused_and_asks_nobody(
    body: object, param: str | None, proxy: Proxy, simulator: Simulator
) -> None:
    raw = body if isinstance(body, bytes) else json.dumps({"model": "sim-instant", **body}).encode()  # type: ignore[dict-item]
    with Wire(proxy.url, raw, path=PAGE) as wire:
        error = json.loads(wire.read_head().read_body())["error"]
        assert (wire.status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert simulator.asked() == 0


@pytest.mark.parametrize(
    ("members", "param"), [({"model": ""}, "model"), ({"model": 5}, "model"), ({"max_tokens": "9"}, "max_tokens")]
)
def test_what_makes_no_chat_completion_is_refused_as_there(
    members: Json, param: str, proxy: Proxy, simulator: Simulator, prompt: str
) -> None:
    found = told(proxy, plainly(prompt) | members)
    assert (found.status, found.error["param"]) == (400, param)
    assert simulator.asked() == 0


def test_only_posted_json_within_bounds_is_taken(make_proxy: MakeProxy, simulator: Simulator) -> None:
    proxy = make_proxy(server={"max_body": "1KiB"})
    assert proxy.http.get(PAGE).status_code == 405
    assert proxy.http.post(PAGE, content=b"{}", headers={"content-type": "text/plain"}).status_code == 415
    assert proxy.http.post(PAGE, json=plainly("x" * 2000)).status_code == 413
    assert proxy.http.post(PAGE + "/", json=plainly("x")).status_code == 404
    assert simulator.asked() == 0


@pytest.mark.parametrize("breaks", ["an error", "a cut", "no end"])
def test_an_answer_is_not_cut_before_its_error_was_heard(
    breaks: str, make_proxy: MakeProxy, scripted: Scripted, monkeypatch: pytest.MonkeyPatch, prompt: str
) -> None:
    monkeypatch.setattr("proxy.endpoints.stream.HEARD", 1e6)
    proxy = make_proxy(scripted.base_url, provider={"max_retries": 0})
    with Wire(proxy.url, plainly(prompt, "m"), path=PAGE) as wire:
        turn = scripted.turn()
        turn.head()
        turn.send(chunk("a"))
        wire.read_head().read_event()
        if breaks == "an error":
            turn.send(event({"error": {"message": "no", "code": float("nan")}}))
        if breaks == "a cut":
            turn.abort()
        else:
            turn.send(DONE)
            turn.end()
        name, said = parsed(wire.read_event().rstrip())
        assert (name, set(said)) == ("error", {"error"})
        assert not wire.clean
        assert proxy.metrics()["penstock_requests_open"] == 1
    proxy.becomes_quiet()  # whoever has left is not waited for


def test_a_page_elsewhere_may_not_ask_and_our_own_may(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    found = told(proxy, plainly(prompt), origin="https://evil.example")
    assert (found.status, found.error["code"]) == (403, "forbidden")
    found = told(proxy, plainly(prompt), origin="http://evil.example", host="evil.example")  # a name that was rebound
    assert (found.status, found.error["code"]) == (403, "forbidden")
    assert simulator.asked() == 0
    assert told(proxy, plainly(prompt), origin=proxy.url).done["cache"] == "miss"
    assert told(proxy, plainly(prompt), origin="http://localhost:1", host="localhost:1").done["cache"] == "hit"


def test_with_keys_a_page_of_our_own_needs_one_under_any_name(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy(key="sk-operator", keys=[key("team")])
    ours = {"origin": "https://proxy.example", "host": "proxy.example"}
    assert told(proxy, plainly(prompt), **ours).status == 401
    assert told(proxy, plainly(prompt), **ours, **shows("team")).done["cache"] == "miss"


def test_a_page_that_is_named_may_ask_and_read_what_is_said(make_proxy: MakeProxy, prompt: str) -> None:
    page = "https://app.example"
    proxy = make_proxy(server={"cors_origins": [page]})
    asks_for = "authorization, cache-control, content-type, x-penstock-sample"
    preflight = {"origin": page, "access-control-request-method": "POST", "access-control-request-headers": asks_for}
    allowed = proxy.http.options(PAGE, headers=preflight)
    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, page)
    assert "POST" in allowed.headers["access-control-allow-methods"]
    assert allowed.headers["access-control-allow-headers"] == asks_for
    found = told(proxy, plainly(prompt), origin=page)
    assert found.done["cache"] == "miss"
    refused = told(proxy, {}, origin=page)
    for one in (found, refused):
        assert one.headers["access-control-allow-origin"] == page
        assert "x-penstock-request-id" in one.headers["access-control-expose-headers"]
    other = proxy.http.options(PAGE, headers={**preflight, "origin": "https://evil.example"})
    assert "access-control-allow-origin" not in other.headers
    assert told(proxy, plainly(prompt), origin="https://evil.example").status == 403


def test_it_is_held_to_the_rights_limits_and_budget_of_its_key(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    rights = [
        key("narrow", models=["other-*"]),
        key("slow", requests_per_minute=1),
        key("poor", budget={"usd": "0.000001", "per": "total"}),
    ]
    proxy = make_proxy(key="sk-operator", **PRICED, keys=rights)
    body = plainly(prompt, "priced", max_tokens=100)
    assert told(proxy, body).status == 401
    assert told(proxy, body, **shows("other")).status == 401
    for name, status, code in (("narrow", 403, "model_not_allowed"), ("poor", 429, "insufficient_quota")):
        found = told(proxy, body, **shows(name))
        assert (found.status, found.error["code"], found.headers["x-should-retry"]) == (status, code, "false")
    assert simulator.asked() == 0
    first, second = (told(proxy, body, **shows("slow")) for _ in range(2))
    assert first.headers["x-ratelimit-limit-requests"] == "1"
    assert (first.done["cache"], second.status, second.error["code"]) == ("miss", 429, "rate_limit_exceeded")
    assert "retry-after" in second.headers
    assert asks(proxy, body, "slow").status == 429  # it counts wherever it asks
    assert simulator.asked() == 1


def test_the_provider_is_billed_for_what_a_page_was_told(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    sections = routing(alpha=model("alpha", "9", "9"), beta=model("beta", "1", "1"))
    proxy = make_proxy(**sections)
    done = [told(proxy, plainly(f"{prompt} {number}", "any")).done for number in (1, 2, 1, 2)]
    assert [each["cache"] for each in done] == ["miss", "miss", "hit", "hit"]
    served = simulator.calls()["by_model"][OF_THE_SIMULATOR["beta"]]
    assert served["completion_tokens"] == sum(each["usage"]["completion_tokens"] for each in done[:2])
    paid = sum(Decimal(each["cost_usd"]) for each in done)
    metrics = counted(proxy.metrics(), "penstock_cost_usd_total")
    assert sum(metrics.values()) == pytest.approx(float(paid))
    assert outcomes(proxy) == {"miss": 2, "hit": 2}
