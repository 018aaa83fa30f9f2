"""Everything that a request may say is read once, and refused by its name where it makes no sense."""

import json
from typing import Any

import pytest

from proxy.core.call import HEEDED, Call, header_map, read_call
from proxy.core.directives import DIRECTIVES, Directives, read_directives
from proxy.errors import InvalidRequest

Headers = dict[bytes, bytes]


def read(
    headers: Headers | None = None, *, forward: tuple[bytes, ...] = (), query: bytes = b"", **members: Any
) -> Call:
    body = {"model": "m", "messages": []} | members
    return read_call(
        "chat/completions", query=query, raw=json.dumps(body).encode(), headers=headers or {}, forward=forward
    )


def refused(raw: bytes, headers: Headers | None = None) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read_call("chat/completions", query=b"", raw=raw, headers=headers or {}, forward=())
    return caught.value


def test_headers_that_came_twice_are_joined_in_their_order() -> None:
    pairs = [
        (b"cache-control", b"no-cache"),
        (b"x", b"1"),
        (b"cache-control", b"max-age=5"),
        (b"x", b"2"),
        (b"x", b"3"),
    ]
    joined = header_map(pairs)
    assert joined == {b"cache-control": b"no-cache, max-age=5", b"x": b"1, 2, 3"}
    assert read_directives(joined) == Directives(no_cache=True, max_age=5)


def test_a_call_has_the_directives_of_its_headers() -> None:
    assert read({b"x-penstock-route": b"exact"}).directives == Directives(route="exact")
    assert set(DIRECTIVES) < set(HEEDED)


def test_a_call_holds_the_request_as_it_came() -> None:
    call = read(query=b"a=%2F+&b", model="gpt-4.1")
    assert (call.path, call.query, call.model) == ("chat/completions", b"a=%2F+&b", "gpt-4.1")
    assert json.loads(call.raw) == call.body == {"model": "gpt-4.1", "messages": []}


@pytest.mark.parametrize("model", ["null", '""', "5", "true", '["m"]', "{}"])
def test_a_model_must_be_a_name(model: str) -> None:
    assert refused(b'{"model":%s}' % model.encode()).param == "model"
    assert refused(b"{}").param == "model"


@pytest.mark.parametrize(("stream", "meant"), [(True, True), (False, False), (None, False)])
def test_a_stream_is_asked_for_by_true_alone(stream: bool | None, meant: bool) -> None:
    assert read(stream=stream).stream is meant
    assert read().stream is False


@pytest.mark.parametrize("stream", [1, 0, "true", "", [], {}, 1.0])
def test_a_stream_that_is_neither_true_nor_false_is_refused(stream: object) -> None:
    assert refused(json.dumps({"model": "m", "stream": stream}).encode()).param == "stream"


@pytest.mark.parametrize("options", [True, 1, "include_usage", [], ["include_usage"]])
def test_stream_options_that_are_no_object_are_refused(options: object) -> None:
    assert (
        refused(json.dumps({"model": "m", "stream": True, "stream_options": options}).encode()).param
        == "stream_options"
    )


@pytest.mark.parametrize(
    ("stream", "options", "wanted"),
    [
        (True, {"include_usage": True}, True),
        (True, {"include_usage": True, "include_obfuscation": False}, True),
        (True, {"include_usage": False}, False),
        (True, {"include_usage": None}, False),
        (True, {"include_usage": 1}, False),
        (True, {"include_usage": "true"}, False),
        (True, {}, False),
        (True, None, False),
        (False, {"include_usage": True}, False),
        (None, {"include_usage": True}, False),
    ],
)
def test_usage_is_wanted_where_a_stream_asks_for_it(stream: object, options: object, wanted: bool) -> None:
    assert read(stream=stream, stream_options=options).wants_usage is wanted


@pytest.mark.parametrize(("n", "choices"), [(1, 1), (3, 3), (2.0, 2), (None, 1), (1024, 1024), (1024.0, 1024)])
def test_the_choices_asked_for_are_counted(n: object, choices: int) -> None:
    assert read(n=n).choices == choices
    assert read().choices == 1


@pytest.mark.parametrize("n", [0, -2, 0.0, 1025, 10**400, 1e300, True, False, "2", "50", 2.5, [2], {}])
def test_choices_that_another_may_count_otherwise_are_refused(n: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(n=n)
    assert (caught.value.status, caught.value.type, caught.value.param) == (400, "invalid_request_error", "n")
    assert caught.value.message == "`n` must be a whole number from 1 to 1,024, or null."


LIMITS = ["max_tokens", "max_completion_tokens"]


def limited(name: str, limit: object) -> Call:
    return read_call("chat/completions", json.dumps({"model": "m", name: limit}).encode(), {})


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("limit", ["100", "", True, False, 1.5, [], {}])
def test_a_limit_of_an_answer_that_another_may_read_otherwise_is_refused(name: str, limit: object) -> None:
    with pytest.raises(InvalidRequest) as caught:
        limited(name, limit)
    assert (caught.value.status, caught.value.param) == (400, name)
    assert caught.value.message == f"`{name}` must be a whole number or null."


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("limit", [None, 1, 100.0, 0, -1, 10**400, 1e300])
def test_a_limit_that_is_a_whole_number_is_the_providers_to_judge(name: str, limit: object) -> None:
    assert limited(name, limit).choices == 1


def test_headers_are_chosen_by_name_and_in_a_fixed_order() -> None:
    headers = {
        b"x-beta": b"b",
        b"cookie": b"c",
        b"openai-project": b"p",
        b"api-key": b"k",
        b"authorization": b"Bearer a",
        b"openai-organization": b"o",
        b"openai-beta": b"v2",
    }
    call = read(headers, forward=(b"openai-beta", b"x-absent", b"x-beta"))
    assert call.credentials == ((b"authorization", b"Bearer a"), (b"api-key", b"k"))
    assert call.account == ((b"openai-organization", b"o"), (b"openai-project", b"p"))
    assert call.forwarded == ((b"openai-beta", b"v2"), (b"x-beta", b"b"))
    shuffled = dict(reversed(headers.items()))
    assert read(shuffled, forward=(b"openai-beta", b"x-absent", b"x-beta")) == call


def test_a_client_that_retries_by_itself_is_known_by_its_header() -> None:
    assert read({b"x-stainless-retry-count": b"0"}).retries_itself
    assert not read().retries_itself


def test_a_body_that_is_not_understood_is_refused() -> None:
    assert refused(b"[]").status == 400
    assert refused(b'{"model":"m","model":"n"}').status == 400


# Other endpoints than chat.


def to(path: str, **members: Any) -> Call:
    return read_call(path, json.dumps({"model": "m"} | members).encode(), {})


def refused_to(path: str, **members: Any) -> str | None:
    """The member that is named."""
    with pytest.raises(InvalidRequest) as caught:
        to(path, **members)
    return caught.value.param


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("chat/completions", "chat"),
        ("completions", "completions"),
        ("responses", "responses"),
        ("embeddings", "embeddings"),
    ],
)
def test_a_call_knows_the_dialect_of_its_endpoint(path: str, name: str) -> None:
    assert (to(path).dialect.name, to(path).dialect.path) == (name, path)


@pytest.mark.parametrize(
    ("members", "choices", "made"),
    [
        ({}, 1, 1),
        ({"prompt": "a", "n": 3}, 3, 3),
        ({"prompt": ["a", "b"]}, 2, 2),
        ({"prompt": ["a", "b"], "n": 3}, 6, 6),
        ({"prompt": []}, 1, 1),
        ({"prompt": [1, 2, 3]}, 1, 1),  # tokens of one prompt
        ({"prompt": [1]}, 1, 1),
        ({"prompt": [[1, 2], [3]]}, 2, 2),
        ({"prompt": "a", "best_of": 4}, 1, 4),
        ({"prompt": ["a", "b"], "n": 2, "best_of": 5}, 4, 10),
        ({"prompt": "a", "n": 3, "best_of": 2}, 3, 3),
        ({"prompt": "a", "best_of": None}, 1, 1),
    ],
)
def test_of_a_text_completion_each_prompt_has_its_choices_and_the_best_are_of_more(
    members: dict[str, Any], choices: int, made: int
) -> None:
    call = to("completions", **members)
    assert (call.choices, call.made) == (choices, made)


@pytest.mark.parametrize("best_of", [0, "4", True, 1.5, 1025])
def test_a_best_of_that_another_may_count_otherwise_is_refused_where_it_means_something(best_of: object) -> None:
    assert refused_to("completions", best_of=best_of) == "best_of"
    assert to("chat/completions", best_of=best_of).made == 1


@pytest.mark.parametrize("path", ["responses", "embeddings"])
@pytest.mark.parametrize("n", [3, "3", 0])
def test_a_response_is_one_and_so_is_a_list_of_embeddings(path: str, n: object) -> None:
    call = to(path, n=n)
    assert (call.choices, call.made) == (1, 1)


@pytest.mark.parametrize(
    ("path", "bounds", "others"),
    [
        ("chat/completions", ["max_tokens", "max_completion_tokens"], ["max_output_tokens"]),
        ("completions", ["max_tokens"], ["max_completion_tokens", "max_output_tokens"]),
        ("responses", ["max_output_tokens"], ["max_tokens", "max_completion_tokens"]),
        ("embeddings", [], ["max_tokens", "max_completion_tokens", "max_output_tokens"]),
    ],
)
def test_each_endpoint_has_its_own_names_for_the_longest_answer(
    path: str, bounds: list[str], others: list[str]
) -> None:
    for name in bounds:
        assert refused_to(path, **{name: "100"}) == name
    for name in others:
        assert to(path, **{name: "100"}).body[name] == "100"


@pytest.mark.parametrize(
    ("path", "options", "wanted"),
    [
        ("completions", None, False),
        ("completions", {"include_usage": True}, True),
        ("responses", None, True),  # it says its usage to everyone
        ("responses", {"include_obfuscation": False}, True),
    ],
)
def test_usage_is_asked_for_only_where_it_has_to_be(path: str, options: object, wanted: bool) -> None:
    call = to(path, stream=True, stream_options=options)
    assert (call.stream, call.wants_usage) == (True, wanted)
    assert refused_to(path, stream=1) == "stream"
    assert refused_to(path, stream=True, stream_options=[]) == "stream_options"


@pytest.mark.parametrize("members", [{}, {"stream": True}, {"stream": "yes", "stream_options": 1}])
def test_embeddings_have_no_stream_whatever_is_said_of_it(members: dict[str, Any]) -> None:
    call = to("embeddings", **members)
    assert (call.stream, call.wants_usage) == (False, True)


def test_a_response_by_a_template_of_the_provider_needs_no_model() -> None:
    assert to("responses", model=None, prompt={"id": "pmpt_1"}).model == ""
    assert to("responses", prompt={"id": "pmpt_1"}).model == "m"
    for path, prompt in (("responses", "pmpt_1"), ("responses", None), ("completions", {"id": "p"})):
        assert refused_to(path, model=None, prompt=prompt) == "model"
    assert refused_to("responses", model="", prompt={"id": "pmpt_1"}) == "model"


def test_by_its_likeness_every_call_is_a_chat() -> None:
    chat = to("chat/completions", messages=[{"role": "user", "content": "hi"}])
    assert chat.likeness is chat.body
    response = to("responses", input="hi", max_output_tokens=5)
    assert response.likeness["max_completion_tokens"] == 5
    assert response.likeness["messages"]
    assert "messages" not in response.body
    for path, members in (("completions", {"prompt": "hi"}), ("embeddings", {"input": ["hi"]})):
        assert to(path, **members).likeness["messages"] == ["hi"]
