"""Responses that are kept: got, deleted, continued, referred to; and those that are made in the background."""

from typing import Any

import httpx
import openai
import pytest

from proxy.simulator.errors import ApiError
from proxy.simulator.responses.shelf import Kept, Shelf

from .asking import Json, calls
from .asking_responses import FUNCTION, PATH, asking, lasting, refusal, text_of, told, types, whole


def test_a_response_is_kept_until_it_is_deleted(client: openai.OpenAI) -> None:
    made = client.responses.create(**asking())
    assert client.responses.retrieve(made.id) == made
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError, match=f"'{made.id}' not found"):
        client.responses.retrieve(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.delete(made.id)


def test_a_streamed_response_is_kept_as_it_ended(wire: httpx.Client) -> None:
    ended = told(wire, asking())[-1]["response"]
    assert wire.get(f"{PATH}/{ended['id']}").json() == ended


def test_a_response_that_is_not_to_be_stored_is_not_kept(wire: httpx.Client) -> None:
    made = whole(wire, asking(store=False))
    assert wire.get(f"{PATH}/{made['id']}").status_code == 404
    assert refusal(wire, asking(previous_response_id=made["id"]))["code"] == "previous_response_not_found"


def test_the_conversation_before_enters_the_words_and_the_tokens(wire: httpx.Client) -> None:
    first = whole(wire, asking("What is a weir?"))
    alone, continued = asking("And now?"), asking("And now?", previous_response_id=first["id"])
    one, other = whole(wire, alone), whole(wire, continued)
    assert text_of(one) != text_of(other)
    assert other["usage"]["input_tokens"] > one["usage"]["input_tokens"]
    assert other["previous_response_id"] == first["id"]


def test_a_continued_conversation_is_answered_as_the_same_one_written_out(wire: httpx.Client) -> None:
    first = whole(wire, asking("What is a weir?", model="sim-reasoning;first=0;gap=0"))
    model = {"model": "sim-instant"}
    continued = whole(wire, asking("And now?", **model, previous_response_id=first["id"]))
    written = [
        {"role": "user", "content": "What is a weir?"},
        *first["output"],
        {"role": "user", "content": "And now?"},
    ]
    direct = whole(wire, asking(written, **model))
    assert (direct["output"], direct["usage"]) == (continued["output"], continued["usage"])


def test_a_call_is_answered_through_the_response_that_made_it(wire: httpx.Client) -> None:
    first = whole(wire, asking(tools=[FUNCTION], parallel_tool_calls=False))
    (call,) = first["output"]
    unanswered = refusal(wire, asking("Well?", previous_response_id=first["id"]))
    assert unanswered["message"] == f"No tool output found for function call {call['call_id']}."
    result = {"type": "function_call_output", "call_id": call["call_id"], "output": "done"}
    assert types(whole(wire, asking([result], tools=[FUNCTION], previous_response_id=first["id"]))) == ["message"]


def test_an_id_that_nobody_knows_cannot_be_continued(client: openai.OpenAI) -> None:
    made = client.responses.create(**asking())
    client.responses.delete(made.id)
    for unknown in ("resp_0", made.id):
        with pytest.raises(
            openai.BadRequestError, match=f"Previous response with id '{unknown}' not found."
        ) as refused:
            client.responses.create(**asking(previous_response_id=unknown))
        assert (refused.value.code, refused.value.param) == ("previous_response_not_found", "previous_response_id")


def test_a_reference_stands_for_the_item_that_it_names(wire: httpx.Client) -> None:
    first = whole(wire, asking("What is a weir?"))
    (item,) = first["output"]
    more = {"role": "user", "content": "And now?"}
    written, referred = ([each, more] for each in (item, {"type": "item_reference", "id": item["id"]}))
    assert whole(wire, asking(written))["output"] == whole(wire, asking(referred))["output"]
    unknown = refusal(wire, asking([{"type": "item_reference", "id": "msg_0"}, more]), 404)
    assert "msg_0" in unknown["message"]


def test_the_input_items_are_listed_page_by_page(client: openai.OpenAI) -> None:
    said: Any = [{"role": "user", "content": f"Part {n}"} for n in range(5)]
    made = client.responses.create(**asking(said))
    newest_first = list(client.responses.input_items.list(made.id, limit=2))
    oldest_first = list(client.responses.input_items.list(made.id, order="asc"))
    assert newest_first == oldest_first[::-1]
    texts = [item.to_dict()["content"][0]["text"] for item in oldest_first]  # type: ignore[index]
    assert texts == [f"Part {n}" for n in range(5)]
    with pytest.raises(openai.BadRequestError):
        client.responses.input_items.list(made.id, limit=0)


def test_the_items_of_a_continued_response_begin_with_those_before(wire: httpx.Client) -> None:
    first = whole(wire, asking("One"))
    second = whole(wire, asking("Two", previous_response_id=first["id"]))
    listed = wire.get(f"{PATH}/{second['id']}/input_items", params={"order": "asc"}).json()["data"]
    assert [item["role"] for item in listed] == ["user", "assistant", "user"]
    assert listed[1] == first["output"][0]


def test_a_response_in_the_background_is_queued_and_ready_when_asked_after(client: openai.OpenAI) -> None:
    queued = client.responses.create(**asking(background=True))
    assert (queued.status, queued.output, queued.usage) == ("queued", [], None)
    ready = client.responses.retrieve(queued.id)
    assert ready.status == "completed"
    assert ready.output_text
    assert client.responses.cancel(queued.id).status == "completed"


def test_only_what_is_in_the_background_can_be_cancelled(client: openai.OpenAI) -> None:
    queued = client.responses.create(**asking(background=True))
    assert client.responses.cancel(queued.id).status == "cancelled"
    assert client.responses.retrieve(queued.id).output == []
    plain = client.responses.create(**asking())
    with pytest.raises(openai.BadRequestError, match="Cannot cancel a synchronous response"):
        client.responses.cancel(plain.id)


def test_what_is_kept_is_no_call_but_it_is_seen(wire: httpx.Client) -> None:
    made = whole(wire, asking())
    path = f"{PATH}/{made['id']}"
    assert wire.get(path, headers={"authorization": "Bearer bad-key"}).status_code == 401
    assert wire.get(path, params={"stream": "true"}).status_code == 400
    assert lasting(wire.get(path).json()) == lasting(made)
    assert calls(wire)["calls"] == 1
    last = wire.get("/simulator/last").json()
    assert (last["method"], last["path"]) == ("GET", path)


def kept(number: int) -> Kept:
    body: Json = {"id": f"resp_{number}", "output": [{"id": f"msg_{number}"}]}
    return Kept(body, ())


def test_a_full_shelf_forgets_the_oldest() -> None:
    shelf = Shelf(room=2)
    for number in range(3):
        shelf.put(kept(number))
    assert shelf.get("resp_2") == kept(2)
    assert shelf.item("msg_1") == {"id": "msg_1"}
    for unknown in (lambda: shelf.get("resp_0"), lambda: shelf.drop("resp_0"), lambda: shelf.item("msg_0")):
        with pytest.raises(ApiError) as refused:
            unknown()
        assert refused.value.status == 404
