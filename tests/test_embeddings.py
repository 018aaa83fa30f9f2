"""Lists of embeddings through the whole proxy: each input is known, joined, or asked for once."""

import base64
import json
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from random import Random
from typing import Any, Final

import pytest

from tests.conftest import MakeProxy, Sdk
from tests.scripted import Scripted, Turn, Wire
from tests.support import DEADLINE, FakeClock, Json, Proxy, Simulator, eventually

EMBEDDINGS: Final = "/v1/embeddings"
MODEL: Final = "sim-embed"
PRICE: Final = {MODEL: {"price": {"input": "1"}}}  # a dollar for a million tokens


def body(*inputs: object, model: str = MODEL, **members: Any) -> Json:
    return {"model": model, "input": list(inputs), **members}


def said(proxy: Proxy, asked: Json, **headers: str) -> tuple[str, Json]:
    """(Cache-Status, the answer)."""
    answer = proxy.http.post(EMBEDDINGS, json=asked, headers=headers).raise_for_status()
    return answer.headers["cache-status"], answer.json()


def direct(simulator: Simulator, asked: Json) -> Json:
    answer: Json = simulator.http.post(EMBEDDINGS, json=asked).raise_for_status().json()
    return answer


def asked_for(simulator: Simulator) -> dict[str, int]:
    """How often each input was asked of the provider, by itself as JSON."""
    counts: dict[str, int] = simulator.http.get("/simulator/inputs").json()
    return counts


def answers(turn: Turn, answer: Json, status: int = 200) -> None:
    turn.answer(json.dumps(answer).encode(), content_type="application/json", status=status)


class Provider:
    """A provider of embeddings that the test plays: the vector of an input is its number of characters."""

    def __init__(self, scripted: Scripted) -> None:
        self._scripted = scripted

    def turn(self) -> tuple[Turn, list[str]]:
        """The next call, and the inputs that it asks."""
        turn = self._scripted.turn()
        return turn, turn.body["input"]

    def makes_known(self, proxy: Proxy, clients: ThreadPoolExecutor, text: str) -> None:
        """Have the proxy asked for this text, and answer it."""
        asked = clients.submit(said, proxy, body(text))
        self.answer(self.turn()[0])
        asked.result()

    @staticmethod
    def answer(turn: Turn) -> None:
        inputs = turn.body["input"]
        data = [{"object": "embedding", "index": at, "embedding": [len(each)]} for at, each in enumerate(inputs)]
        usage = {"prompt_tokens": len(inputs), "total_tokens": len(inputs)}
        answers(turn, {"object": "list", "data": data, "model": "m", "usage": usage})


@pytest.fixture
def provider(scripted: Scripted) -> Provider:
    return Provider(scripted)


@pytest.fixture
def clients() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as threads:
        yield threads


def vectors(answer: Json) -> list[Any]:
    assert [each["index"] for each in answer["data"]] == list(range(len(answer["data"])))
    return [each["embedding"] for each in answer["data"]]


# What is asked, and what comes back.


@pytest.mark.parametrize("form", [None, "float", "base64"])
def test_an_answer_is_the_providers_cold_and_warm(
    proxy: Proxy, simulator: Simulator, prompt: str, form: str | None
) -> None:
    asked = body(f"{prompt} a", f"{prompt} b", **({"encoding_format": form} if form else {}))
    expected = direct(simulator, asked)
    assert said(proxy, asked) == ("penstock; fwd=miss; stored", expected)
    status, again = said(proxy, asked)
    assert status.startswith("penstock; hit; ttl=")
    assert again == expected


def test_of_a_list_only_what_is_not_known_is_asked(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    known = [f"{prompt} {number}" for number in range(9)]
    said(proxy, body(*known))
    simulator.forget()
    asked = body(*known[:4], f"{prompt} new", *known[4:])
    status, answer = said(proxy, asked)
    assert status == "penstock; fwd=partial; stored"
    assert asked_for(simulator) == {f'"{prompt} new"': 1}
    assert answer == direct(simulator, asked)


def test_a_text_that_stands_twice_is_asked_once(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    asked = body(prompt, "x" + prompt, prompt)
    status, answer = said(proxy, asked)
    assert status == "penstock; fwd=miss; stored"
    assert set(asked_for(simulator).values()) == {1}
    assert answer["data"] == direct(simulator, asked)["data"]


def test_a_lone_text_and_a_list_of_it_are_the_same(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    said(proxy, body(prompt))
    alone = {"model": MODEL, "input": prompt}
    status, answer = said(proxy, alone)
    assert status.startswith("penstock; hit")
    assert answer == direct(simulator, alone)


def test_token_arrays_are_inputs(proxy: Proxy, simulator: Simulator) -> None:
    asked = body([1, 2, 3], [4, 5])
    said(proxy, asked)
    simulator.forget()
    status, answer = said(proxy, body([4, 5], [6]))
    assert status == "penstock; fwd=partial; stored"
    assert asked_for(simulator) == {"[6]": 1}
    assert answer == direct(simulator, body([4, 5], [6]))
    assert said(proxy, {"model": MODEL, "input": [1, 2, 3]})[0].startswith("penstock; hit")


@pytest.mark.parametrize(("first", "then"), [("float", "base64"), ("base64", "float")])
def test_one_entry_serves_both_encodings(
    proxy: Proxy, simulator: Simulator, prompt: str, first: str, then: str
) -> None:
    said(proxy, body(prompt, encoding_format=first))
    asked = body(prompt, encoding_format=then)
    status, answer = said(proxy, asked)
    assert status.startswith("penstock; hit")
    assert answer == direct(simulator, asked)


def test_other_dimensions_are_other_answers(proxy: Proxy, prompt: str) -> None:
    said(proxy, body(prompt, dimensions=8))
    status, answer = said(proxy, body(prompt, dimensions=16))
    assert status == "penstock; fwd=miss; stored"
    assert [len(each) for each in vectors(answer)] == [16]


def test_the_sdk_gets_what_it_gets_without_a_proxy(proxy: Proxy, simulator: Simulator, sdk: Sdk, prompt: str) -> None:
    texts = [f"{prompt} {number}" for number in (1, 2, 1)]
    expected = sdk(simulator.base_url).embeddings.create(model=MODEL, input=texts)
    for _ in range(2):
        assert sdk(proxy.base_url).embeddings.create(model=MODEL, input=texts) == expected


def test_each_of_a_thousand_inputs_is_asked_once_and_stands_in_its_place(
    proxy: Proxy, simulator: Simulator, sdk: Sdk, prompt: str, clients: ThreadPoolExecutor
) -> None:
    luck = Random(7)
    distinct = [f"{prompt} {number}" for number in range(500)]
    inputs = distinct + distinct
    luck.shuffle(inputs)
    lists = [inputs[start : start + 100] for start in range(0, 1000, 100)]
    client = sdk(proxy.base_url)
    answers = list(clients.map(lambda texts: client.embeddings.create(model=MODEL, input=texts), lists))
    counts = asked_for(simulator)
    assert len(counts) == 500
    assert set(counts.values()) == {1}
    at_provider = sdk(simulator.base_url)
    for texts, answer in zip(lists, answers, strict=True):
        expected = at_provider.embeddings.create(model=MODEL, input=texts)
        assert [each.embedding for each in answer.data] == [each.embedding for each in expected.data]
        assert [each.index for each in answer.data] == list(range(100))


def test_what_cannot_be_told_apart_goes_to_the_provider_as_it_came(
    make_proxy: MakeProxy, scripted: Scripted, clients: ThreadPoolExecutor
) -> None:
    proxy = make_proxy(scripted.base_url)
    odd: object
    for odd in ([["a", "b"], ["c"]], [{"text": "a"}], [], {}, 7):
        waiting = clients.submit(proxy.http.post, EMBEDDINGS, json={"model": "m", "input": odd})
        turn = scripted.turn()
        assert turn.body == {"model": "m", "input": odd}
        answers(turn, {"object": "list", "data": [{"index": 0, "embedding": [1]}], "model": "m"})
        answer = waiting.result()
        assert answer.headers["cache-status"] == "penstock; fwd=bypass; detail=input"
        assert answer.json()["data"][0]["embedding"] == [1]


# Who joins, who pays.


def test_what_is_under_way_for_another_is_joined(
    make_proxy: MakeProxy, scripted: Scripted, provider: Provider, clients: ThreadPoolExecutor
) -> None:
    proxy = make_proxy(scripted.base_url)
    first = clients.submit(said, proxy, body("a", "bb"))
    turn, inputs = provider.turn()
    assert inputs == ["a", "bb"]
    second = clients.submit(said, proxy, body("bb", "ccc"))
    other, its_own = provider.turn()
    assert its_own == ["ccc"]
    third = clients.submit(said, proxy, body("bb", "a"))
    eventually(lambda: proxy.readers() == 4)
    provider.answer(turn)
    provider.answer(other)
    assert [(future.result()[0], vectors(future.result()[1])) for future in (first, second, third)] == [
        ("penstock; fwd=miss; stored", [[1], [2]]),
        ("penstock; fwd=partial; stored", [[2], [3]]),
        ("penstock; fwd=miss; collapsed", [[2], [1]]),
    ]


def test_a_call_lives_while_any_of_its_inputs_has_a_reader(
    make_proxy: MakeProxy, scripted: Scripted, provider: Provider, clients: ThreadPoolExecutor
) -> None:
    proxy = make_proxy(scripted.base_url)
    with Wire(proxy.url, body("a", "bb"), path=EMBEDDINGS):
        turn, _ = provider.turn()
        joined = clients.submit(said, proxy, body("bb"))
        eventually(lambda: proxy.readers() == 2)
    eventually(lambda: proxy.readers() == 1)
    provider.answer(turn)
    assert vectors(joined.result()[1]) == [[2]]
    assert said(proxy, body("a"))[0].startswith("penstock; hit")  # the rest of it was kept as well


def test_who_joined_a_list_that_was_given_up_before_it_was_sent_asks_for_its_own_part(
    make_proxy: MakeProxy, scripted: Scripted, provider: Provider, clients: ThreadPoolExecutor
) -> None:
    proxy = make_proxy(scripted.base_url, provider={"max_concurrent": 1}, models=PRICE)
    before = clients.submit(said, proxy, body("x"))
    turn, _ = provider.turn()
    with Wire(proxy.url, body("a", "and", "more"), path=EMBEDDINGS):
        eventually(lambda: proxy.readers() == 2)
        joined = clients.submit(said, proxy, body("a", "bb"))
        eventually(lambda: proxy.readers() == 4)
    eventually(lambda: proxy.readers() == 2)
    provider.answer(turn)
    before.result()
    asked = []
    for _ in range(2):
        turn, inputs = provider.turn()
        asked += inputs
        provider.answer(turn)
    assert sorted(asked) == ["a", "bb"]
    assert vectors(joined.result()[1]) == [[1], [2]]
    row = proxy.told(3)[-1]
    assert (row.outcome, row.leader, row.saved, row.cost) == ("miss", None, None, Decimal("0.000002"))


def test_a_list_takes_nothing_from_an_older_call_than_the_one_it_joined(
    make_proxy: MakeProxy, scripted: Scripted, provider: Provider, clients: ThreadPoolExecutor
) -> None:
    proxy = make_proxy(scripted.base_url)
    first = clients.submit(said, proxy, body("a", "b"))
    older, _ = provider.turn()
    second = clients.submit(said, proxy, body("b"), **{"cache-control": "no-cache"})
    newer, _ = provider.turn()
    third = clients.submit(said, proxy, body("a", "b"))
    eventually(lambda: proxy.readers() == 4)
    answers(newer, {"object": "list", "data": [{"index": 0, "embedding": [99]}], "model": "m"})
    second.result()
    provider.answer(older)
    assert vectors(first.result()[1]) == [[1], [1]]
    assert vectors(third.result()[1]) == [[1], [99]]
    assert vectors(said(proxy, body("b"))[1]) == [[99]]


def test_what_one_wants_kept_for_less_is_kept_for_less_and_nothing_else(
    make_proxy: MakeProxy, scripted: Scripted, provider: Provider, clients: ThreadPoolExecutor
) -> None:
    proxy = make_proxy(scripted.base_url)
    first = clients.submit(said, proxy, body("a", "bb"))
    turn, _ = provider.turn()
    joined = clients.submit(said, proxy, body("bb"), **{"x-penstock-ttl": "0"})
    eventually(lambda: proxy.readers() == 2)
    provider.answer(turn)
    assert first.result()[0] == "penstock; fwd=miss; stored"
    joined.result()
    only = {"cache-control": "only-if-cached"}
    assert said(proxy, body("a"), **only)[0].startswith("penstock; hit")
    assert proxy.http.post(EMBEDDINGS, json=body("bb"), headers=only).status_code == 504


def test_a_list_that_waits_holds_up_nobody_whose_answer_is_too_large_to_be_kept(
    make_proxy: MakeProxy, scripted: Scripted, provider: Provider, clients: ThreadPoolExecutor
) -> None:
    proxy = make_proxy(scripted.base_url, cache={"max_entry": "64KiB"})
    first = clients.submit(said, proxy, body("a", "bb"))
    large, _ = provider.turn()
    second = clients.submit(said, proxy, body("a", "ccc"))
    slow, _ = provider.turn()
    eventually(lambda: proxy.readers() == 3)
    vector = [0.25] * 200_000
    data = [{"index": at, "embedding": vector} for at in range(2)]
    answers(large, {"object": "list", "data": data, "model": "m"})
    assert len(vectors(first.result()[1])[1]) == 200_000
    provider.answer(slow)
    provider.answer(provider.turn()[0])  # what it could not have of the first
    assert vectors(second.result()[1]) == [[1], [3]]


def test_a_refusal_of_what_was_asked_is_passed_on_and_costs_no_second_call(
    make_proxy: MakeProxy, scripted: Scripted, provider: Provider, clients: ThreadPoolExecutor
) -> None:
    proxy = make_proxy(scripted.base_url)
    provider.makes_known(proxy, clients, "a")
    refused = clients.submit(proxy.http.post, EMBEDDINGS, json=body("a", "far too long"))
    turn, asked = provider.turn()
    assert asked == ["far too long"]
    error = {"error": {"message": "too long", "type": "invalid_request_error", "param": "input[0]", "code": None}}
    answers(turn, error, status=400)
    assert (refused.result().status_code, refused.result().json()) == (400, error)


def test_who_joined_what_is_refused_asks_at_once_and_not_one_after_the_other(
    make_proxy: MakeProxy, scripted: Scripted, provider: Provider, clients: ThreadPoolExecutor
) -> None:
    proxy = make_proxy(scripted.base_url)
    asked = [clients.submit(proxy.http.post, EMBEDDINGS, json=body("bad", "a")) for _ in range(4)]
    turn, _ = provider.turn()
    eventually(lambda: proxy.readers() == 4)
    error = {"error": {"message": "no", "type": "invalid_request_error", "param": "input", "code": None}}
    answers(turn, error, status=400)
    turns = [provider.turn()[0] for _ in range(3)]  # all of them before any is answered
    for each in turns:
        answers(each, error, status=400)
    assert [each.result().status_code for each in asked] == [400] * 4


def test_a_list_of_which_nothing_is_to_be_kept_does_not_say_that_it_is(
    make_proxy: MakeProxy, scripted: Scripted, provider: Provider, clients: ThreadPoolExecutor
) -> None:
    proxy = make_proxy(scripted.base_url)
    first = clients.submit(said, proxy, body("a", "bb"))
    turn, _ = provider.turn()
    second = clients.submit(said, proxy, body("bb", "a"), **{"x-penstock-ttl": "0"})
    eventually(lambda: proxy.readers() == 2)
    provider.answer(turn)
    assert (first.result()[0], second.result()[0]) == ("penstock; fwd=miss", "penstock; fwd=miss; collapsed")
    assert proxy.count("penstock_recordings_total", result="ttl") == 1


@pytest.mark.parametrize("asked", [["b"], ["known", "b"], ["known", "b", "c"]])
def test_a_list_is_put_together_however_much_else_is_held(
    make_proxy: MakeProxy, scripted: Scripted, provider: Provider, clients: ThreadPoolExecutor, asked: list[str]
) -> None:
    proxy = make_proxy(scripted.base_url, server={"max_buffered": "1MiB", "max_body": "64KiB"})
    provider.makes_known(proxy, clients, "known")
    waiting = clients.submit(said, proxy, body(*asked))
    turn, inputs = provider.turn()
    data = [{"index": at, "embedding": [0.25] * 500_000} for at in range(len(inputs))]  # more than may be held
    answers(turn, {"object": "list", "data": data, "model": "m"})
    assert len(vectors(waiting.result()[1])) == len(asked)


def test_a_list_waits_for_no_older_one_that_holds_nothing(
    make_proxy: MakeProxy, scripted: Scripted, provider: Provider, clients: ThreadPoolExecutor
) -> None:
    proxy = make_proxy(scripted.base_url, server={"max_buffered": "1MiB", "max_body": "64KiB"})
    silent = clients.submit(said, proxy, body("a", "b"))
    older, _ = provider.turn()
    large = clients.submit(said, proxy, body("c", "d"))
    turn, _ = provider.turn()
    data = [{"index": at, "embedding": [0.25] * 250_000} for at in range(2)]
    answers(turn, {"object": "list", "data": data, "model": "m"})
    assert len(vectors(large.result()[1])) == 2
    provider.answer(older)
    assert vectors(silent.result()[1]) == [[1], [1]]


def test_lists_that_are_more_than_may_be_held_come_one_after_the_other(
    make_proxy: MakeProxy, scripted: Scripted, provider: Provider, clients: ThreadPoolExecutor
) -> None:
    proxy = make_proxy(scripted.base_url, server={"max_buffered": "1MiB", "max_body": "64KiB"})
    waiting, turns = [], []
    for number in range(4):
        waiting.append(clients.submit(said, proxy, body(f"{number}", f"{number}!")))
        turns.append(provider.turn()[0])
    for turn in turns:
        data = [{"index": at, "embedding": [0.25] * 250_000} for at in range(2)]
        answers(turn, {"object": "list", "data": data, "model": "m"})
    assert [len(vectors(each.result()[1])) for each in waiting] == [2] * 4


@pytest.mark.parametrize(
    ("before", "asked", "headers", "status"),
    [
        (["a"], ["a", "b"], {"x-penstock-ttl": "0"}, "fwd=partial"),
        ([], ["a", "a"], {"x-penstock-ttl": "0"}, "fwd=miss"),
        ([], ["a", "a"], {"cache-control": "no-cache"}, "fwd=request; stored"),
        ([], ["a", "b"], {}, "fwd=miss; stored"),
    ],
)
def test_a_list_says_what_became_of_it(
    before: list[str], asked: list[str], headers: Json, status: str, make_proxy: MakeProxy
) -> None:
    proxy = make_proxy()
    if before:
        said(proxy, body(*before))
    assert said(proxy, body(*asked), **headers)[0] == f"penstock; {status}"


@pytest.mark.parametrize("asked", [["a"], ["a", "b"]])
def test_a_list_that_was_known_and_is_too_old_says_so(make_proxy: MakeProxy, asked: list[str]) -> None:
    clock = FakeClock()
    proxy = make_proxy(clock=clock, cache={"ttl": 60})
    said(proxy, body(*asked))
    clock.ahead = 120
    assert said(proxy, body(*asked))[0] == "penstock; fwd=stale; stored"


def test_lists_whose_vectors_depend_on_each_other_are_not_taken_apart(proxy: Proxy, prompt: str) -> None:
    for _ in range(2):
        answer = proxy.http.post(EMBEDDINGS, json=body(prompt, "x", late_chunking=True))
        assert answer.headers["cache-status"] == "penstock; fwd=bypass; detail=input"


def test_a_call_that_nobody_reads_any_more_is_ended(
    make_proxy: MakeProxy, scripted: Scripted, provider: Provider
) -> None:
    proxy = make_proxy(scripted.base_url)
    with Wire(proxy.url, body("a", "bb"), path=EMBEDDINGS):
        turn, _ = provider.turn()
    eventually(lambda: not proxy.flights())
    assert turn.gone.wait(DEADLINE)


def test_who_joined_what_was_refused_asks_for_itself(
    make_proxy: MakeProxy, scripted: Scripted, provider: Provider, clients: ThreadPoolExecutor
) -> None:
    proxy = make_proxy(scripted.base_url)
    first = clients.submit(proxy.http.post, EMBEDDINGS, json=body("a", "far too long"))
    turn, asked = provider.turn()
    assert asked == ["a", "far too long"]
    second = clients.submit(said, proxy, body("a", "bb"))
    other, its_own = provider.turn()
    assert its_own == ["bb"]
    refusal = {"error": {"message": "too long", "type": "invalid_request_error", "param": "input", "code": None}}
    answers(turn, refusal, status=400)
    provider.answer(other)
    again, inputs = provider.turn()
    assert inputs == ["a"]
    provider.answer(again)
    assert (first.result().status_code, first.result().json()) == (400, refusal)
    assert vectors(second.result()[1]) == [[1], [2]]


def test_a_failure_of_what_was_joined_is_everybodys(
    make_proxy: MakeProxy, scripted: Scripted, provider: Provider, clients: ThreadPoolExecutor
) -> None:
    proxy = make_proxy(scripted.base_url, provider={"max_retries": 0})
    first = clients.submit(proxy.http.post, EMBEDDINGS, json=body("a"))
    turn, _ = provider.turn()
    second = clients.submit(proxy.http.post, EMBEDDINGS, json=body("a", "bb"))
    other, _ = provider.turn()
    provider.answer(other)
    answers(turn, {"error": {"message": "no", "type": "server_error", "param": None, "code": None}}, status=500)
    assert [future.result().status_code for future in (first, second)] == [500, 500]
    assert said(proxy, body("bb"))[0].startswith("penstock; hit")


@pytest.mark.parametrize(
    "data",
    [
        [{"index": 0, "embedding": [1]}],
        [{"index": 0, "embedding": [1]}, {"index": 0, "embedding": [2]}],
        [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": []}],
    ],
)
def test_an_answer_that_lacks_a_vector_is_passed_on_and_forgotten(
    make_proxy: MakeProxy, scripted: Scripted, provider: Provider, clients: ThreadPoolExecutor, data: list[Json]
) -> None:
    proxy = make_proxy(scripted.base_url)
    for _ in range(2):
        waiting = clients.submit(said, proxy, body("a", "bb"))
        turn, inputs = provider.turn()
        assert inputs == ["a", "bb"]
        answers(turn, {"object": "list", "data": data, "model": "m"})
        assert waiting.result()[1]["data"] == data


def test_a_part_that_lacks_a_vector_is_an_error_for_a_list_that_holds_more(
    make_proxy: MakeProxy, scripted: Scripted, provider: Provider, clients: ThreadPoolExecutor
) -> None:
    proxy = make_proxy(scripted.base_url)
    provider.makes_known(proxy, clients, "a")
    failing = clients.submit(proxy.http.post, EMBEDDINGS, json=body("a", "bb"))
    turn, _ = provider.turn()
    answers(turn, {"object": "list", "data": [], "model": "m"})
    answer = failing.result()
    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_bad_content_type")


# What a request may say.


def test_no_cache_asks_for_all_of_it_anew_and_keeps_it(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    said(proxy, body(prompt))
    status, _ = said(proxy, body(prompt), **{"cache-control": "no-cache"})
    assert status == "penstock; fwd=request; stored"
    assert set(asked_for(simulator).values()) == {2}


def test_no_store_is_a_bypass(proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    for _ in range(2):
        status, _ = said(proxy, body(prompt), **{"cache-control": "no-store"})
        assert status == "penstock; fwd=bypass; detail=no-store"
    assert set(asked_for(simulator).values()) == {2}


def test_only_if_cached_needs_all_of_a_list(proxy: Proxy, prompt: str) -> None:
    said(proxy, body(prompt))
    only = {"cache-control": "only-if-cached"}
    assert said(proxy, body(prompt), **only)[0].startswith("penstock; hit")
    answer = proxy.http.post(EMBEDDINGS, json=body(prompt, f"{prompt} more"), headers=only)
    assert answer.status_code == 504


def test_an_old_answer_stands_in_for_a_provider_that_fails(make_proxy: MakeProxy, simulator: Simulator) -> None:
    clock = FakeClock()
    proxy = make_proxy(clock=clock, cache={"ttl": 60, "stale_if_error": 600}, provider={"max_retries": 0})
    first = said(proxy, body("old", "older"))[1]
    clock.ahead = 120
    proxy.refuse_connections(10)
    status, answer = said(proxy, body("older", "old"))
    assert status == "penstock; hit; ttl=-60; detail=stale-if-error"
    assert vectors(answer) == vectors(first)[::-1]
    assert proxy.http.post(EMBEDDINGS, json=body("older", "never seen")).status_code == 502
    (row, _) = proxy.told(2)
    assert row.outcome == "stale"


# What it costs.


def test_the_ledger_has_what_was_paid_and_the_answer_what_all_of_it_takes(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(models=PRICE)
    first = proxy.http.post(EMBEDDINGS, json=body("12345678", "1234"))
    assert first.json()["usage"] == {"prompt_tokens": 3, "total_tokens": 3}
    part = proxy.http.post(EMBEDDINGS, json=body("1234", "a text of 20 chars !", "12345678"))
    assert part.json()["usage"] == {"prompt_tokens": 8, "total_tokens": 8}
    assert (part.headers["x-penstock-cost-usd"], part.headers["x-penstock-saved-usd"]) == ("0.000005", "0.000003")
    whole = proxy.http.post(EMBEDDINGS, json=body("12345678", "1234"))
    assert (whole.headers["x-penstock-cost-usd"], whole.headers["x-penstock-saved-usd"]) == ("0", "0.000003")
    rows = proxy.told(3)
    assert [(row.outcome, row.cost, row.saved) for row in rows] == [
        ("miss", Decimal("0.000003"), None),
        ("miss", Decimal("0.000005"), Decimal("0.000003")),
        ("hit", 0, Decimal("0.000003")),
    ]
    assert proxy.count("penstock_embedding_inputs_total", result="known") == 4
    assert proxy.count("penstock_embedding_inputs_total", result="asked") == 3
    assert proxy.count("penstock_saved_usd_total", cause="cache") == pytest.approx(6e-6)
    assert proxy.count("penstock_tokens_total", kind="input") == 8
    assert proxy.count("penstock_saved_tokens_total", kind="input") == 6


def test_in_shadow_mode_everything_is_asked_and_what_would_have_hit_is_told(
    make_proxy: MakeProxy, simulator: Simulator
) -> None:
    proxy = make_proxy(cache={"mode": "shadow"}, models=PRICE)
    for asked in (body("a", "b"), body("b", "a", "b"), body("b", "c")):
        said(proxy, asked)
    assert asked_for(simulator) == {'"a"': 2, '"b"': 4, '"c"': 1}
    assert [row.shadow for row in proxy.told(3)] == ["miss", "hit", "miss"]


def test_a_route_never_mixes_the_vectors_of_two_models(make_proxy: MakeProxy, simulator: Simulator) -> None:
    models = {
        "large": {"upstream": "sim-embed-large", "price": {"input": "5"}},
        "small": {"upstream": "sim-embed", "price": {"input": "1"}},
    }
    proxy = make_proxy(models=models, routes={"vectors": {"models": ["large", "small"]}})
    asked = body("a", "b", model="vectors")
    status, answer = said(proxy, asked)
    assert status == "penstock; fwd=miss; stored"
    assert vectors(answer) == vectors(direct(simulator, body("a", "b", model="sim-embed-large")))
    said(proxy, asked)
    counts = {result: proxy.count("penstock_embedding_inputs_total", result=result) for result in ("asked", "known")}
    assert counts == {"asked": 2, "known": 2}
    assert proxy.count("penstock_embedding_inputs_total", model="large") == 4  # who answered, not what was named


def test_a_vector_as_base64_is_little_endian_float32(proxy: Proxy, prompt: str) -> None:
    plain = said(proxy, body(prompt, encoding_format="float"))[1]
    packed = said(proxy, body(prompt, encoding_format="base64"))[1]
    raw = base64.b64decode(vectors(packed)[0])
    assert list(struct.unpack(f"<{len(raw) // 4}f", raw)) == vectors(plain)[0]
