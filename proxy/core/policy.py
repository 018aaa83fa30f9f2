"""What may be looked up, joined and stored, and how fresh a stored answer is.

Rule: an answer is shared only if the same request would deserve it again. A request that refers to state at the
provider, or asks about the present, is a bypass, and the verdict says why (it becomes `detail=` in `Cache-Status`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from proxy.core.books import Shadow
from proxy.core.call import Call
from proxy.core.dialect import EMBEDDINGS, RESPONSES
from proxy.core.directives import Directives

Sampled = Literal["cache", "collapse", "bypass"]

# Members of a body by which providers let a model act on, or look at, what the request does not hold.
STATE = ("previous_response_id", "conversation", "background")
PRESENT = ("web_search_options", "plugins", "search_parameters", "enable_search", "web_search", "data_sources")
PURE_TOOLS = ("function", "custom")
TEXTS = ("input_text", "output_text", "reasoning_text", "summary_text", "refusal")  # of Responses
SEARCH_MODELS = re.compile(r"search-preview|search-api|deep-research|sonar|compound|:online$", re.IGNORECASE)
_SUSPECTS = frozenset({*STATE, *PRESENT, "store", "prompt"})


class Rules(msgspec.Struct, frozen=True):
    """The operator's part of the policy (`[cache]` in the settings)."""

    enabled: bool = True
    sampled: Sampled = "cache"
    remote_media: bool = False


class Verdict(msgspec.Struct, frozen=True):
    """What this request may do with the cache; `reason` is set where it may do less than usual. `shadow`: what would
    have become of it if the cache had been on; None where that is no question.
    """

    look_up: bool = True
    join: bool = True
    lead: bool = True  # others may join it
    keep: bool = True
    reason: str | None = None
    shadow: Shadow | None = None


PLAIN = Verdict()
FETCH_ANEW = Verdict(look_up=False, join=False, reason="no-cache")
JOIN_ONLY = Verdict(look_up=False, keep=False, reason="sampled")
LEAD_ONLY = Verdict(look_up=False, join=False, keep=False, reason="no-cache")


def bypass(reason: str) -> Verdict:
    """Not read, not stored, neither joins nor is joined."""
    return Verdict(look_up=False, join=False, lead=False, keep=False, reason=reason)


def shadowed(verdict: Verdict, *, fresh: bool, under_way: bool) -> Verdict:
    """The verdict on a call that is fetched whatever the cache holds. `fresh`: an entry would have answered it;
    `under_way`: a flight would have taken it.

    Nothing is left of who would not have asked: kept, its answer would be younger than the entry that it stands for,
    and more would seem to hit than will. Only a miss is kept, and seen by others as one that they would join.
    """
    would: Shadow = "hit" if fresh and verdict.look_up else "collapsed" if under_way and verdict.join else "miss"
    lone = bypass(f"shadow-{would}") if would != "miss" else verdict
    return msgspec.structs.replace(lone, look_up=False, join=False, reason=f"shadow-{would}", shadow=would)


def judge(call: Call, upstream_models: Iterable[str], rules: Rules) -> Verdict:
    """The verdict on a call that may be answered by `upstream_models` (the providers' own names)."""
    if not rules.enabled:
        return bypass("cache-off")
    if call.directives.no_store:
        return bypass("no-store")
    reason = _beyond_the_request(call, upstream_models, rules)
    if reason is not None:
        return bypass(reason)
    sampled = rules.sampled != "cache" and call.dialect is not EMBEDDINGS and not _is_greedy(call.body)
    if sampled and rules.sampled == "bypass":
        return bypass("sampled")
    if call.directives.no_cache:
        return LEAD_ONLY if sampled else FETCH_ANEW
    return JOIN_ONLY if sampled else PLAIN


def refers_to_state(call: Call) -> bool:
    """Does it refer to what its provider holds?"""
    return _beyond_the_request(call, (), Rules()) == "state"


def _is_greedy(body: Mapping[str, Any]) -> bool:
    temperature = body.get("temperature")
    return type(temperature) in (int, float) and temperature == 0


def _beyond_the_request(call: Call, upstream_models: Iterable[str], rules: Rules) -> str | None:
    """Why the answer depends on more than the request, or None."""
    body = call.body
    if not _SUSPECTS.isdisjoint(body):
        # A Response is stored unless that is forbidden, which says nothing of what it was asked.
        stored = body.get("store") is True and call.dialect is not RESPONSES
        if stored or any(body.get(name) for name in STATE) or isinstance(body.get("prompt"), dict):
            return "state"
        # `web_search_options: {}` asks for a search with every option as it comes.
        if any(value or value == {} for value in map(body.get, PRESENT)):
            return "search"
    if any(SEARCH_MODELS.search(name) for name in {call.model, *upstream_models}):
        return "search"
    tools = body.get("tools")
    if isinstance(tools, list) and not all(_is_pure(tool) for tool in tools):
        return "tools"
    of_items = call.dialect is RESPONSES
    return _item_reason(body.get("input"), rules) if of_items else _message_reason(body.get("messages"), rules)


def _is_pure(tool: object) -> bool:
    return isinstance(tool, dict) and tool.get("type") in PURE_TOOLS


def _message_reason(messages: object, rules: Rules) -> str | None:
    if not isinstance(messages, list):
        return None
    for message in messages:
        if not isinstance(message, dict):
            continue
        audio = message.get("audio")
        if isinstance(audio, dict) and "id" in audio:
            return "state"
        content = message.get("content")
        if isinstance(content, list) and (reason := _part_reason(content, rules)):
            return reason
    return None


def _item_reason(items: object, rules: Rules) -> str | None:
    """The same of a Response's input."""
    for item in items if isinstance(items, list) else ():
        if not isinstance(item, dict):
            continue
        if _is_reference(item):
            return "state"
        tools = item.get("tools")
        if isinstance(tools, list) and not all(_is_pure(tool) for tool in tools):
            return "tools"
        for parts in (item.get("content"), item.get("output")):
            held = [parts] if isinstance(parts, dict) else parts if isinstance(parts, list) else ()
            media = [part for part in held if isinstance(part, dict) and part.get("type") not in TEXTS]
            if reason := _part_reason(media, rules):
                return reason
    return None


def _is_reference(item: Mapping[str, Any]) -> bool:
    """Does it stand for what the provider holds?"""
    if item.get("type") == "item_reference":
        return True
    if item.get("type") == "reasoning" and item.get("id") and not item.get("encrypted_content"):
        return True
    said = [name for name, value in item.items() if value is not None and name not in ("type", "role", "status")]
    return said == ["id"]


def _part_reason(parts: list[Any], rules: Rules) -> str | None:
    for part in parts:
        if not isinstance(part, dict) or part.get("type") == "text":
            continue
        for name, value in _leaves(part):
            if name == "file_id":
                return "state"
            if not rules.remote_media and value[:8].lower().startswith(("http://", "https://")):
                return "remote-media"
    return None


def _leaves(value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every string in an object, at any depth, with the name of its member (the depth is bounded by the parser)."""
    for name, inner in value.items():
        if isinstance(inner, str):
            yield name, inner
        elif isinstance(inner, dict):
            yield from _leaves(inner)
        elif isinstance(inner, list):
            for item in inner:
                yield from _leaves(item if isinstance(item, dict) else {name: item})


class Freshness(msgspec.Struct, frozen=True):
    """`age` and `left` in seconds: `left` is negative once the entry has expired."""

    age: float
    left: float

    @property
    def fresh(self) -> bool:
        return self.left > 0


def freshness(ended: float, ttl: float, *, now: float, ttl_today: float) -> Freshness:
    """How fresh an entry is that ended at `ended` (seconds since the epoch). A clock that went back gives age 0."""
    age = max(0.0, now - ended)
    return Freshness(age, min(ttl, ttl_today) - age)


def accepts(directives: Directives, found: Freshness) -> bool:
    """May a fresh entry answer this request?"""
    return found.fresh and (directives.max_age is None or found.age <= directives.max_age)


def accepts_stale(directives: Directives, found: Freshness, *, stale_if_error: float) -> bool:
    """May this entry answer when the provider failed? Never for no-cache, never beyond the request's max-age."""
    if directives.no_cache or found.left + stale_if_error <= 0:
        return False
    return directives.max_age is None or found.age <= directives.max_age


def lifetime(directives: Directives, ttl_today: float) -> float:
    """How long this request lets its answer be kept, in seconds; 0: it may be joined, but is not kept."""
    return ttl_today if directives.ttl is None else min(directives.ttl, ttl_today)
