"""An answer is shared only if the same request would deserve it again."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.call import Call, read_call
from proxy.core.directives import Directives
from proxy.core.policy import (
    FETCH_ANEW,
    JOIN_ONLY,
    LEAD_ONLY,
    PLAIN,
    Freshness,
    Rules,
    Sampled,
    Verdict,
    accepts,
    accepts_stale,
    bypass,
    freshness,
    judge,
    lifetime,
    shadowed,
)

FUNCTION = {"type": "function", "function": {"name": "f", "parameters": {}}}
CUSTOM = {"type": "custom", "custom": {"name": "shell"}}
DATA_URL = "data:image/png;base64,iVBORw0KGgo="


def read(cache_control: bytes = b"", **members: Any) -> Call:
    body = {"model": "gpt-4.1", "messages": [{"role": "user", "content": "hi"}]} | members
    headers = {b"cache-control": cache_control} if cache_control else {}
    return read_call("chat/completions", query=b"", raw=json.dumps(body).encode(), headers=headers, forward=())


def verdict(cache_control: bytes = b"", *, rules: Rules | None = None, upstream: str = "up", **members: Any) -> Verdict:
    return judge(read(cache_control, **members), (upstream,), rules or Rules())


def part(**members: Any) -> dict[str, Any]:
    """Members of a request whose message has a text and this part."""
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "look"}, members]}]}


def nested(value: object, depth: int) -> dict[str, Any]:
    held: Any = value
    for level in range(depth):
        held = [held] if level % 2 else {"inner": held}
    return part(type="file", file=held)


STATE: dict[str, dict[str, Any]] = {
    "a stored answer": {"store": True},
    "a previous answer": {"previous_response_id": "resp_1"},
    "a conversation": {"conversation": {"id": "conv_1"}},
    "work in the background": {"background": True},
    "a prompt template": {"prompt": {"id": "pmpt_1"}},
    "an assistant's audio": {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]},
    "a file": part(type="file", file={"file_id": "file-1"}),
    "a file at the top of a part": part(type="input_file", file_id="file-1"),
    "a file deep down": nested([{"x": 1}, {"file_id": "file-1"}], 40),
    "a list of files": part(type="file", file={"file_id": ["file-1"]}),
}
SEARCH: dict[str, dict[str, Any]] = {
    "search options": {"web_search_options": {"search_context_size": "low"}},
    "search options as they come": {"web_search_options": {}},
    "plugins": {"plugins": [{"id": "web"}]},
    "search parameters": {"search_parameters": {"mode": "auto"}},
    "search parameters as they come": {"search_parameters": {}},
    "search enabled": {"enable_search": True},
    "search asked for": {"web_search": True},
    "a name that goes online": {"model": "deepseek/deepseek-chat:online"},
    "a name that goes online, in capitals": {"model": "gpt-4.1:ONLINE"},
    "a search model": {"model": "gpt-4o-search-preview-2025-03-11"},
    "a newer search model": {"model": "gpt-5-search-api"},
    "research": {"model": "o3-deep-research"},
    "perplexity": {"model": "perplexity/Sonar-Pro"},
    "groq": {"model": "groq/compound-mini"},
}
TOOLS: dict[str, dict[str, Any]] = {
    "a search tool": {"tools": [{"type": "web_search"}]},
    "a search tool behind a function": {"tools": [FUNCTION, {"type": "web_search_preview"}]},
    "code": {"tools": [{"type": "code_interpreter"}]},
    "a remote tool": {"tools": [CUSTOM, {"type": "mcp", "server_url": "https://x"}]},
    "a tool without a type": {"tools": [{"function": {"name": "f"}}]},
    "a type that is no name": {"tools": [{"type": ["function"]}]},
    "what is no tool": {"tools": ["function"]},
}
REMOTE: dict[str, dict[str, Any]] = {
    "an image": part(type="image_url", image_url={"url": "https://example.org/a.png"}),
    "an image without an object": part(type="image_url", image_url="http://example.org/a.png"),
    "in capitals": part(type="image_url", image_url={"url": "HTTPS://EXAMPLE.ORG/A.PNG"}),
    "a video in a list": part(type="video", video=["frame", "https://example.org/v.mp4"]),
    "deep down": nested("http://example.org", 33),
}
NEAR_MISSES: dict[str, dict[str, Any]] = {
    "an answer that is not stored": {"store": False},
    "store without a word": {"store": None},
    "the foreground": {"background": False},
    "no conversation": {"conversation": None, "previous_response_id": None},
    "no search": {"enable_search": False, "web_search": None, "plugins": [], "web_search_options": None},
    "functions and custom tools": {"tools": [FUNCTION, CUSTOM, FUNCTION]},
    "no tools": {"tools": []},
    "an address in a text part": {"messages": [{"role": "user", "content": [{"type": "text", "text": "https://a.b"}]}]},
    "an address in plain text": {"messages": [{"role": "user", "content": "http://a.b"}]},
    "an image inside": part(type="image_url", image_url={"url": DATA_URL}),
    "a word that begins as an address does": part(
        type="input_audio", input_audio={"data": "httpshttps://", "format": "wav"}
    ),
    "a file inside": part(type="file", file={"filename": "file_id", "file_data": DATA_URL}),
    "the voice of an answer": {"audio": {"voice": "alloy", "format": "wav"}, "modalities": ["audio"]},
    "a name with online in its middle": {"model": "x:online-7b"},
    "a name that only sounds like it": {"model": "research-7b"},
    "messages of no shape": {"messages": [None, 5, {"content": 7}, {"content": [3, "https://a.b"], "audio": "id"}]},
    "no messages": {"messages": "https://a.b"},
}


@pytest.mark.parametrize(
    ("reason", "members"),
    [
        pytest.param(reason, members, id=f"{reason}: {name}")
        for reason, cases in {"state": STATE, "search": SEARCH, "tools": TOOLS, "remote-media": REMOTE}.items()
        for name, members in cases.items()
    ],
)
def test_what_depends_on_more_than_the_request_is_a_bypass_and_says_why(reason: str, members: dict[str, Any]) -> None:
    assert verdict(**members) == bypass(reason)
    assert verdict(b"no-cache", **members) == bypass(reason)


@pytest.mark.parametrize("members", NEAR_MISSES.values(), ids=NEAR_MISSES)
def test_what_only_looks_like_it_is_cached(members: dict[str, Any]) -> None:
    assert verdict(**members) == PLAIN


def test_a_bypass_neither_reads_nor_joins_nor_leads_nor_keeps() -> None:
    assert bypass("x") == Verdict(look_up=False, join=False, lead=False, keep=False, reason="x")
    assert Verdict(look_up=True, join=True, lead=True, keep=True, reason=None) == PLAIN


def test_the_providers_own_name_of_a_model_counts_too() -> None:
    assert verdict(upstream="sonar-pro") == bypass("search")
    assert judge(read(), ("gpt-4.1", "gpt-4.1:online"), Rules()) == bypass("search")


def test_the_operator_may_allow_remote_media_but_no_state() -> None:
    rules = Rules(remote_media=True)
    assert all(verdict(rules=rules, **members) == PLAIN for members in REMOTE.values())
    assert all(verdict(rules=rules, **members) == bypass("state") for members in STATE.values())


def of_response(
    given: object = "hi", *, rules: Rules | None = None, path: str = "responses", **members: Any
) -> Verdict:
    body = {"model": "gpt-4.1", "input": given} | members
    return judge(read_call(path, raw=json.dumps(body).encode(), headers={}), ("up",), rules or Rules())


def said(*parts: object) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [{"type": "input_text", "text": "look"}, *parts]}]


def answered(output: object) -> list[dict[str, Any]]:
    return [{"type": "function_call_output", "call_id": "call_1", "output": output}]


HOSTED = {"type": "web_search"}
IMAGE = {"type": "input_image", "image_url": "https://example.org/a.png"}
RESPONSES: dict[str, dict[str, dict[str, Any]]] = {
    "state": {
        "a previous answer": {"previous_response_id": "resp_1"},
        "a conversation": {"conversation": "conv_1"},
        "work in the background": {"background": True},
        "a prompt template": {"prompt": {"id": "pmpt_1"}},
        "an item by its id": {"given": [{"type": "item_reference", "id": "msg_1"}]},
        "an item by its id alone": {"given": [{"role": "user", "content": "hi"}, {"id": "msg_1"}]},
        "an item of which only the id is said": {"given": [{"type": None, "id": "msg_1", "content": None}]},
        "an image by its id": {"given": [{"type": "image_generation_call", "id": "ig_1", "status": "completed"}]},
        "reasoning by its id": {"given": [{"type": "reasoning", "id": "rs_1", "summary": []}]},
        "reasoning without its content": {"given": [{"type": "reasoning", "id": "rs_1", "encrypted_content": None}]},
        "a file": {"given": said({"type": "input_file", "file_id": "file-1"})},
        "an image in a file": {"given": said({"type": "input_image", "file_id": "file-1"})},
        "a file deep down": {"given": said({"type": "x", "x": [{"y": {"file_id": "file-1"}}]})},
        "a file that a tool answered": {"given": answered([{"type": "input_file", "file_id": "file-1"}])},
        "a screenshot in a file": {
            "given": [{"type": "computer_call_output", "output": {"type": "computer_screenshot", "file_id": "file-1"}}]
        },
    },
    "search": {"a search model": {"model": "o3-deep-research"}, "search options": {"web_search_options": {}}},
    "tools": {
        "a search tool": {"tools": [HOSTED]},
        "one behind a function": {"tools": [{"type": "function", "name": "f"}, {"type": "file_search"}]},
        "tools that came later": {"given": [{"type": "additional_tools", "role": "developer", "tools": [HOSTED]}]},
    },
    "remote-media": {
        "an image": {"given": said(IMAGE)},
        "a file": {"given": said({"type": "input_file", "file_url": "HTTPS://example.org/a.pdf"})},
        "an image that a tool answered": {"given": answered([IMAGE])},
        "a screenshot": {"given": [{"type": "computer_call_output", "call_id": "c", "output": IMAGE}]},
    },
}
PLAIN_RESPONSES: dict[str, dict[str, Any]] = {
    "an answer that is stored": {"store": True},
    "an answer that is not": {"store": False},
    "an image inside": {"given": said({"type": "input_image", "image_url": DATA_URL, "file_id": None})},
    "functions and custom tools": {"tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "g"}]},
    "functions that came later": {
        "given": [{"type": "additional_tools", "tools": [{"type": "function", "name": "f"}]}]
    },
    "an address as a text": {"given": "https://a.b"},
    "an address in a text": {"given": [{"role": "user", "content": [{"type": "input_text", "text": "https://a.b"}]}]},
    "an address that a tool answered": {"given": answered("https://a.b")},
    "an address in a text that a tool answered": {"given": answered([{"type": "input_text", "text": "https://a.b"}])},
    "sources of an answer": {
        "given": [
            {
                "type": "message",
                "id": "msg_1",
                "role": "assistant",
                "content": [
                    {
                        "type": "output_text",
                        "text": "See there.",
                        "annotations": [
                            {"type": "url_citation", "url": "https://a.b"},
                            {"type": "file_citation", "file_id": "file-1"},
                        ],
                    }
                ],
            }
        ]
    },
    "reasoning that is there": {
        "given": [
            {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAAA"},
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "https://a.b"}]},
        ]
    },
    "a refusal": {"given": [{"role": "assistant", "content": [{"type": "refusal", "refusal": "https://a.b"}]}]},
    "a text part of a chat": {"given": [{"role": "user", "content": [{"type": "text", "text": "https://a.b"}]}]},
    "items of no shape": {"given": [None, 5, "https://a.b", {}, {"content": 7, "output": 5, "tools": "x"}]},
    "no items": {"given": None},
}


@pytest.mark.parametrize(
    ("reason", "members"),
    [
        pytest.param(reason, members, id=f"{reason}: {name}")
        for reason, cases in RESPONSES.items()
        for name, members in cases.items()
    ],
)
def test_a_response_that_depends_on_more_than_the_request_is_a_bypass(reason: str, members: dict[str, Any]) -> None:
    assert of_response(**members) == bypass(reason)
    assert of_response(**members, rules=Rules(remote_media=True)) == (
        PLAIN if reason == "remote-media" else bypass(reason)
    )


@pytest.mark.parametrize("members", PLAIN_RESPONSES.values(), ids=PLAIN_RESPONSES)
def test_a_response_that_follows_from_its_request_is_cached(members: dict[str, Any]) -> None:
    assert of_response(**members) == PLAIN


@pytest.mark.parametrize("prompt", ["Once", ["Once", "Twice"], [1, 2, 3], [[1, 2], [3]], None])
def test_a_prompt_that_is_there_is_no_state(prompt: object) -> None:
    body = {"model": "m", "prompt": prompt, "suffix": "https://a.b"}
    call = read_call("completions", raw=json.dumps(body).encode(), headers={})
    assert judge(call, ("up",), Rules()) == PLAIN


@pytest.mark.parametrize("given", ["https://a.b", ["https://a.b", "x"], [1, 2], [[1], [2]]])
def test_inputs_of_embeddings_are_texts(given: object) -> None:
    assert of_response(given, path="embeddings") == PLAIN
    assert of_response(given, path="embeddings", model="x:online") == bypass("search")


def test_no_store_and_a_cache_that_is_off_are_bypasses() -> None:
    assert verdict(b"no-store") == verdict(b"no-cache, no-store") == bypass("no-store")
    assert verdict(b"no-store", rules=Rules(enabled=False)) == bypass("cache-off")


def test_no_cache_leads_a_flight_of_its_own_and_is_kept() -> None:
    assert verdict(b"no-cache") == FETCH_ANEW
    assert (FETCH_ANEW.look_up, FETCH_ANEW.join, FETCH_ANEW.lead, FETCH_ANEW.keep) == (False, False, True, True)


@pytest.mark.parametrize("temperature", [0, 0.0, -0.0])
@pytest.mark.parametrize("sampled", ["cache", "collapse", "bypass"])
def test_a_greedy_request_is_cached_in_every_mode(temperature: float, sampled: Sampled) -> None:
    assert verdict(rules=Rules(sampled=sampled), temperature=temperature) == PLAIN


@pytest.mark.parametrize("members", [{}] + [{"temperature": t} for t in (False, None, "0", 1e-9, 1, True, [], [0])])
def test_a_sampled_request_does_what_the_mode_says(members: dict[str, Any]) -> None:
    assert verdict(**members) == PLAIN
    assert verdict(rules=Rules(sampled="collapse"), **members) == JOIN_ONLY
    assert verdict(rules=Rules(sampled="bypass"), **members) == bypass("sampled")
    assert (JOIN_ONLY.look_up, JOIN_ONLY.join, JOIN_ONLY.lead, JOIN_ONLY.keep) == (False, True, True, False)


def test_no_cache_never_joins_though_sampled_requests_may() -> None:
    found = verdict(b"no-cache", rules=Rules(sampled="collapse"), temperature=1)
    assert (found.look_up, found.join, found.lead, found.keep) == (False, False, True, False)
    assert verdict(b"no-cache", rules=Rules(sampled="collapse"), temperature=0) == FETCH_ANEW
    assert verdict(b"no-cache", rules=Rules(sampled="bypass"), temperature=1) == bypass("sampled")


SEEN = [(fresh, under_way) for fresh in (False, True) for under_way in (False, True)]


@pytest.mark.parametrize(
    ("allowed", "would"),
    [
        (PLAIN, ["miss", "collapsed", "hit", "hit"]),
        (JOIN_ONLY, ["miss", "collapsed", "miss", "collapsed"]),
        (FETCH_ANEW, ["miss"] * 4),
        (LEAD_ONLY, ["miss"] * 4),
    ],
)
def test_a_shadow_is_what_would_have_come_of_what_a_request_may_do(allowed: Verdict, would: list[str]) -> None:
    found = [shadowed(allowed, fresh=fresh, under_way=under_way) for fresh, under_way in SEEN]
    assert [each.shadow for each in found] == would
    assert [each.reason for each in found] == [f"shadow-{each}" for each in would]
    assert not any(each.look_up or each.join for each in found)


@pytest.mark.parametrize("allowed", [PLAIN, JOIN_ONLY, FETCH_ANEW, LEAD_ONLY])
def test_in_shadow_mode_only_a_miss_is_seen_by_others_and_kept_as_far_as_it_ever_is(allowed: Verdict) -> None:
    for fresh, under_way in SEEN:
        found = shadowed(allowed, fresh=fresh, under_way=under_way)
        missed = found.shadow == "miss"
        assert (found.lead, found.keep) == (missed, missed and allowed.keep)


def test_only_shadow_mode_has_a_shadow() -> None:
    assert {each.shadow for each in (PLAIN, JOIN_ONLY, FETCH_ANEW, LEAD_ONLY, bypass("state"))} == {None}


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-2, 2)
    | st.sampled_from(["", "https://a.b", "file_id", "function", DATA_URL]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["type", "file_id", "id", "url", "content", "audio"]), inner, max_size=3)
    ),
    max_leaves=12,
)
names = st.sampled_from(
    ["messages", "tools", "prompt", "store", "temperature", "plugins", "conversation", "audio", "x"]
)


@settings(deadline=None)
@given(st.dictionaries(names, values, max_size=4))
def test_a_request_of_any_shape_gets_a_verdict(members: dict[str, Any]) -> None:
    found = verdict(**members)
    assert found == PLAIN or found == bypass(found.reason or "")


@settings(deadline=None)
@given(st.lists(values, max_size=3) | values, st.dictionaries(names, values, max_size=2))
def test_a_response_of_any_shape_gets_a_verdict(items: Any, members: dict[str, Any]) -> None:
    found = of_response(items, **members)
    assert found == PLAIN or found == bypass(found.reason or "")


def test_an_entry_is_fresh_while_its_age_is_under_its_own_ttl_and_todays() -> None:
    assert freshness(100, 60, now=130, ttl_today=600) == Freshness(30, 30)
    assert freshness(100, 600, now=130, ttl_today=20) == Freshness(30, -10)
    assert freshness(100, 60, now=159.9, ttl_today=600).fresh
    assert not freshness(100, 60, now=160, ttl_today=600).fresh
    assert not freshness(100, 600, now=100, ttl_today=0).fresh


def test_a_clock_that_went_back_gives_age_0() -> None:
    assert freshness(100, 60, now=40, ttl_today=600) == Freshness(0, 60)


@pytest.mark.parametrize(
    ("max_age", "age", "left", "accepted"),
    [
        (None, 50, 10, True),
        (None, 50, 0, False),
        (None, 50, -1, False),
        (50, 50, 10, True),
        (49.9, 50, 10, False),
        (0, 0, 60, True),
        (0, 0.1, 60, False),
        (1e9, 50, -1, False),
    ],
)
def test_a_request_takes_no_answer_that_is_older_than_it_allows(
    max_age: float | None, age: float, left: float, accepted: bool
) -> None:
    assert accepts(Directives(max_age=max_age), Freshness(age, left)) is accepted


@pytest.mark.parametrize(
    ("directives", "left", "stale_if_error", "accepted"),
    [
        (Directives(), -10, 60, True),
        (Directives(), -59.9, 60, True),
        (Directives(), -60, 60, False),
        (Directives(), -10, 0, False),
        (Directives(), 0, 0, False),
        (Directives(), 10, 0, True),  # fresh, when the provider failed behind a flight that it may not answer
        (Directives(no_cache=True), -10, 60, False),
        (Directives(no_cache=True), 10, 60, False),
        (Directives(max_age=100), -10, 60, True),
        (Directives(max_age=99), -10, 60, False),
    ],
)
def test_a_stale_answer_is_given_within_what_operator_and_request_allow(
    directives: Directives, left: float, stale_if_error: float, accepted: bool
) -> None:
    assert accepts_stale(directives, Freshness(100, left), stale_if_error=stale_if_error) is accepted


@pytest.mark.parametrize(("asked", "kept"), [(None, 600), (60, 60), (0, 0), (6000, 600), (float("inf"), 600)])
def test_a_request_may_shorten_how_long_its_answer_is_kept_but_not_lengthen_it(
    asked: float | None, kept: float
) -> None:
    assert lifetime(Directives(ttl=asked), 600) == kept
