"""Responses as the tests of them draw them: such as OpenAI would send, and such with odd values in odd places."""

import copy
from collections.abc import Callable
from typing import Any, Final

from hypothesis import strategies as st

Json = dict[str, Any]

text = st.text(st.sampled_from("ha aé🌍 \n\u200d世界"), max_size=30) | st.text(max_size=8)
names = st.sampled_from(["id", "type", "text", "name", "status", "output", "delta", "error", "object", "x"])
numbers = st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    st.none() | st.booleans() | numbers | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=5,
)
# Names that a provider may invent, at any level.
unknown = st.dictionaries(st.sampled_from(["x_extra", "provider", "phase_of_moon"]), values, max_size=2)


def _members(own: Json, **optional: Any) -> st.SearchStrategy[Json]:
    """An object of these members, with unknown ones besides."""
    fixed = {name: value if isinstance(value, st.SearchStrategy) else st.just(value) for name, value in own.items()}
    return st.tuples(unknown, st.fixed_dictionaries(fixed, optional=optional)).map(lambda pair: pair[0] | pair[1])


ids = st.sampled_from(["msg_1", "fc_2", "rs_3", "item_4"])
statuses = st.sampled_from(["completed", "incomplete"])
tops = _members({"token": text, "logprob": -0.5, "bytes": [104]})
tokens = _members({"token": text, "logprob": -0.25, "bytes": [104, 105], "top_logprobs": st.lists(tops, max_size=2)})
citations = _members({"type": "url_citation", "url": text, "title": text, "start_index": 0, "end_index": 3})
files = _members({"type": "file_citation", "file_id": "file-1", "filename": text, "index": st.integers(0, 9)})


@st.composite
def _texts(draw: st.DrawFn) -> Json:
    part = draw(_members({"type": "output_text", "text": text, "annotations": st.lists(citations | files, max_size=2)}))
    if draw(st.booleans()):
        part["logprobs"] = draw(st.lists(tokens, max_size=4))
        if part["logprobs"] and draw(st.booleans()):  # as in truth: the tokens make up the text
            part["text"] = "".join(token["token"] for token in part["logprobs"])
    return part


refusals = _members({"type": "refusal", "refusal": text})
messages = _members(
    {
        "type": "message",
        "id": ids,
        "role": "assistant",
        "status": statuses,
        "content": st.lists(_texts() | refusals, max_size=3),
    }
)
reasoning = _members(
    {
        "type": "reasoning",
        "id": ids,
        "summary": st.lists(_members({"type": "summary_text", "text": text}), max_size=3),
    },
    content=st.lists(_members({"type": "reasoning_text", "text": text}), max_size=2) | st.none(),
    encrypted_content=text | st.none(),
    status=statuses,
)
functions = _members(
    {"type": "function_call", "call_id": "call_1", "name": text, "arguments": text}, id=ids, status=statuses
)
customs = _members({"type": "custom_tool_call", "call_id": "call_2", "name": text, "input": text}, id=ids)
hosted = st.one_of(
    _members({"type": "web_search_call", "id": ids, "status": "completed", "action": {"type": "search", "query": "q"}}),
    _members({"type": "file_search_call", "id": ids, "status": "completed", "queries": ["q"]}, results=st.none()),
    _members({"type": "image_generation_call", "id": ids, "status": "completed", "result": "iVBORw0KGgo="}),
    _members({"type": "mcp_call", "id": ids, "server_label": "s", "name": "n", "arguments": text}, output=text),
    _members(
        {"type": "code_interpreter_call", "id": ids, "status": "completed", "container_id": "c", "code": text},
        outputs=st.none(),
    ),
)
items = messages | reasoning | functions | customs | hosted
usages = _members(
    {
        "input_tokens": st.integers(0, 99),
        "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 9,
    }
)
# How a Response may end.
ends: Final = st.one_of(
    st.just({"status": "completed", "completed_at": 1_700_000_009, "error": None, "incomplete_details": None}),
    st.sampled_from(["max_output_tokens", "content_filter"]).map(
        lambda reason: {"status": "incomplete", "error": None, "incomplete_details": {"reason": reason}}
    ),
    st.just({"status": "failed", "error": {"code": "server_error", "message": "No."}, "incomplete_details": None}),
)


@st.composite
def responses(draw: st.DrawFn) -> Json:
    """A Response as OpenAI would send it, with members besides that it would not."""
    known = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1_700_000_000,
        "model": "m",
        "instructions": draw(st.none() | text),
        "metadata": {},
        "parallel_tool_calls": True,
        "temperature": 1.0,
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "output": draw(st.lists(items, max_size=4)),
        "usage": draw(st.none() | usages),
        "service_tier": draw(st.none() | st.sampled_from(["default", "flex"])),
    }
    return copy.deepcopy(draw(unknown) | known | draw(ends))  # else what one test changes, the next one draws


@st.composite
def odd_responses(draw: st.DrawFn) -> Json:
    """A Response with any value in the place of some of its own, or with some left out."""
    whole = draw(responses())
    for _ in range(draw(st.integers(1, 4))):
        put_somewhere(draw, whole, lambda: draw(values))
    whole.setdefault("status", None)
    return whole


def put_somewhere(draw: Callable[..., Any], whole: Any, value: Callable[[], Any]) -> None:
    """Put `value()` in the place of one member or item, anywhere, or take it away."""
    place = whole
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = draw(st.sampled_from(keys))
        inner = place[key]
        if not isinstance(inner, dict | list) or not inner or draw(st.integers(0, 3)) == 0:
            break
        place = inner
    if draw(st.booleans()):
        place[key] = value()
    else:
        del place[key]


def response(*output: Any, **members: Any) -> Json:
    """A completed Response of that output."""
    known = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "status": "completed"}
    return known | {"error": None, "incomplete_details": None, "output": list(output), "usage": None} | members


def message(*parts: Any, **members: Any) -> Json:
    known = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
    return known | {"content": list(parts)} | members


def said(words: str, **members: Any) -> Json:
    return {"type": "output_text", "text": words, "annotations": []} | members
