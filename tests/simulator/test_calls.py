"""What the simulator remembers: counts, tokens, hang-ups, the last call."""

import socket

import httpx
import msgspec
import openai
import pytest

from .asking import PATH, as_json, as_stream, calls, request, settled


def test_the_tally_adds_up_the_tokens_of_each_model(client: openai.OpenAI, wire: httpx.Client) -> None:
    long = request("x" * 6000)
    long["messages"] = [*long["messages"], {"role": "user", "content": "more"}]
    usages = [as_json(client, long)["usage"], as_stream(client, request(n=2))["usage"]]
    served = settled(wire)["by_model"]["sim-instant"]
    assert served["calls"] == 2
    for name in ("prompt_tokens", "completion_tokens"):
        assert served[name] == sum(usage[name] for usage in usages)
    assert served["cached_tokens"] == usages[0]["prompt_tokens_details"]["cached_tokens"] > 0


@pytest.mark.parametrize("shape", ["refusal", "chunks=9", "nodone"])
def test_both_forms_count_the_same_tokens(client: openai.OpenAI, wire: httpx.Client, shape: str) -> None:
    body = request(model=f"sim-reasoning;first=0;gap=0;{shape}")
    as_json(client, body)
    one = settled(wire)["by_model"]["sim-reasoning"]
    as_stream(client, body)
    both = settled(wire)["by_model"]["sim-reasoning"]
    assert both == {name: 2 * count for name, count in one.items()}


def test_a_streaming_caller_who_leaves_is_counted_and_billed_so_far(wire: httpx.Client) -> None:
    body = request(model="sim-instant;gap=0.01;chunks=1000", stream=True)
    with wire.stream("POST", PATH, json=body) as response:
        assert next(response.iter_bytes())
    counts = settled(wire)
    assert (counts["hung_up"], counts["answered"]) == (1, 0)
    assert counts["by_model"]["sim-instant"]["completion_tokens"] < 1000


def test_a_json_caller_who_leaves_is_counted(wire: httpx.Client) -> None:
    with pytest.raises(httpx.ReadTimeout):
        wire.post(PATH, json=request(model="sim-instant;first=60"), timeout=0.1)
    counts = settled(wire)
    assert (counts["hung_up"], counts["answered"]) == (1, 0)
    assert counts["by_model"]["sim-instant"]["completion_tokens"] == 0


def begin(address: str, body: bytes, promised: int, target: str = PATH) -> socket.socket:
    """A connection on which a call has begun; whoever closes it hangs up."""
    url = httpx.URL(address)
    connection = socket.create_connection((url.host, url.port))
    head = f"POST {target} HTTP/1.1\r\nhost: x\r\ncontent-length: {promised}\r\n\r\n"
    connection.sendall(head.encode() + body)
    return connection


def test_a_caller_who_leaves_in_the_middle_of_the_request_is_counted(wire: httpx.Client, address: str) -> None:
    with begin(address, b"{", 100):
        settled(wire, still_open=1)
    assert settled(wire)["hung_up"] == 1


def test_open_calls_are_seen_while_they_last(wire: httpx.Client, address: str) -> None:
    body = msgspec.json.encode(request(model="sim-instant;stall=0"))
    connections = [begin(address, body, len(body)) for _ in range(3)]
    assert settled(wire, still_open=3)["calls"] == 3
    for connection in connections:
        connection.close()
    assert settled(wire)["hung_up"] == 3


def test_refusals_and_faults_count_as_failed_and_cost_nothing(wire: httpx.Client) -> None:
    for model in ("sim-none", "sim-instant;status=500", "sim-instant;html"):
        wire.post(PATH, json=request(model=model))
    wire.post(PATH, content=b"{")
    counts = settled(wire)
    assert (counts["calls"], counts["failed"]) == (4, 4)
    assert counts["by_model"]["sim-instant"] == {
        "calls": 2,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "cached_tokens": 0,
    }


def test_a_reset_counts_as_failed_not_as_a_hang_up(wire: httpx.Client) -> None:
    with pytest.raises(httpx.TransportError):
        wire.post(PATH, json=request(model="sim-instant;reset=4", stream=True))
    counts = settled(wire)
    assert (counts["failed"], counts["hung_up"]) == (1, 0)


def test_deleting_sets_everything_to_zero(wire: httpx.Client) -> None:
    wire.post(PATH, json=request())
    wire.delete("/simulator/calls")
    assert calls(wire) == {"calls": 0, "open": 0, "hung_up": 0, "answered": 0, "failed": 0, "by_model": {}}


def test_the_last_call_is_shown_as_it_came(wire: httpx.Client) -> None:
    raw = b'{"messages" : [{"role":"user","content":"hi"}], "model": "sim-instant"}'
    wire.post(f"{PATH}?a=b", content=raw, headers=[("x-one", "1"), ("x-one", "2")])
    last = wire.get("/simulator/last").json()
    assert (last["method"], last["path"], last["query"]) == ("POST", PATH, "a=b")
    assert last["raw"].encode() == raw
    assert last["body"] == msgspec.json.decode(raw)
    assert [pair for pair in last["pairs"] if pair[0] == "x-one"] == [["x-one", "1"], ["x-one", "2"]]
    assert last["headers"]["host"]


def test_the_last_call_may_be_no_json(wire: httpx.Client) -> None:
    wire.post(PATH, content=b"{")
    last = wire.get("/simulator/last").json()
    assert (last["raw"], last["body"]) == ("{", None)


def test_models_and_inspection_are_not_counted(wire: httpx.Client) -> None:
    for path in ("/v1/models", "/simulator/calls", "/simulator/last"):
        wire.get(path)
    assert calls(wire)["calls"] == 0
