"""A body of any endpoint as a chat completion's body, for what is counted, bounded, ranked and linked.

Rule: whatever a model is shown is in it, and nothing by which more could be charged is lost. What has no place in a
chat stays as it is, of whatever type, and nothing is raised. A likeness is never sent and never keyed.
"""

import hashlib
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, Final

import msgspec

from proxy.core.dialect import BY_PATH, CHAT, COMPLETIONS, RESPONSES

SHORT_ANSWER: Final = 16  # tokens of a text completion that names no limit, as OpenAI says

# What has another place in a chat, says nothing to a model, or is heeded nowhere but in a chat.
_OF_RESPONSES: Final = frozenset(
    "messages instructions input text include truncation max_output_tokens max_tokens max_completion_tokens".split()
)
_OF_COMPLETIONS: Final = frozenset(
    "messages prompt suffix echo best_of logprobs max_tokens max_completion_tokens".split()
)
_OF_EMBEDDINGS: Final = frozenset("messages input dimensions encoding_format max_tokens max_completion_tokens".split())

_LOGPROBS: Final = "message.output_text.logprobs"
_ENCRYPTED: Final = "reasoning.encrypted_content"  # models that do not reason refuse it

_THOUGHTS: Final = ("reasoning", "compaction")
_MADE: Final = (*_THOUGHTS, "program", "mcp_list_tools", "mcp_approval_request")  # besides what ends in _call
_TEXTS: Final = ("input_text", "output_text", "reasoning_text", "summary_text")
_IMAGES: Final = ("input_image", "computer_screenshot")
_OF_ITEMS: Final = ("type", "id", "status")  # of an item, and shown to nobody
_OF_CALLS: Final = (*_OF_ITEMS, "call_id", "name", "arguments", "input")

# Words of one token under either encoding, long enough to be no fewer for a quick upper bound.
_WORDS: Final = " the and for you are was not but all can her one our out day had".split(" ")[1:]


class Wordless(dict[str, Any]):
    """Of a request whose answer has no tokens. Nothing that a client sends is read as one."""


def as_chat(path: str, body: Mapping[str, Any]) -> Mapping[str, Any]:
    """The likeness of a parsed body; `path` is relative to a provider's base URL. A chat's is the body itself."""
    dialect = BY_PATH[path]
    if dialect is CHAT:
        return body
    if dialect is RESPONSES:
        return _of_response(body)
    return _of_completion(body) if dialect is COMPLETIONS else _of_embeddings(body)


def _less(given: Mapping[str, Any], names: frozenset[str] | tuple[str, ...]) -> dict[str, Any]:
    return {name: value for name, value in given.items() if name not in names}


def _of_embeddings(body: Mapping[str, Any]) -> Wordless:
    return Wordless(_less(body, _OF_EMBEDDINGS), messages=list(_texts(body.get("input"))))


def _of_completion(body: Mapping[str, Any]) -> dict[str, Any]:
    limit, logprobs = body.get("max_tokens"), body.get("logprobs")
    return _less(body, _OF_COMPLETIONS) | {
        "messages": [*_texts(body.get("prompt")), *_texts(body.get("suffix"))],
        "max_tokens": SHORT_ANSWER if limit is None else limit,
        "logprobs": logprobs is not None and logprobs is not False,  # 0: of the tokens that were chosen
    }


def _texts(given: Any) -> Iterator[object]:
    """Prompts, or inputs: each a text, or tokens."""
    for each in given if type(given) is list and not _is_tokens(given) else [given]:
        if type(each) is dict:
            yield {"content": [each]}
        elif each is not None:
            yield _as_text(each) if _is_tokens(each) else each


def _is_tokens(given: object) -> bool:
    return type(given) is list and set(map(type, given)) == {int}


def _as_text(tokens: Any) -> object:
    """A text of as many tokens that no other tokens have. A few stay as they are: a text would not tell them apart."""
    if len(tokens) < len(_WORDS):
        return tokens
    digest = hashlib.blake2b(msgspec.json.encode(tokens), digest_size=len(_WORDS) // 2).hexdigest()
    return " ".join(_WORDS[int(digit, 16)] for digit in digest) + " the" * (len(tokens) - len(_WORDS))


def _of_response(body: Mapping[str, Any]) -> dict[str, Any]:
    instructions, include = body.get("instructions"), body.get("include")
    system = [] if instructions is None else [{"role": "system", "content": _content(instructions)}]
    chat = (
        _less(body, _OF_RESPONSES) | {"messages": [*system, *_messages(body.get("input"))]} | _shape(body.get("text"))
    )
    if "max_output_tokens" in body:
        chat["max_completion_tokens"] = body["max_output_tokens"]
    if type(include) is list and _LOGPROBS in include:
        chat["logprobs"] = True
    if type(include) is list and _ENCRYPTED in include:
        given = body.get("reasoning")
        chat["reasoning"] = (given if type(given) is dict else {}) | {"enabled": True}
    return chat


def _shape(text: object) -> dict[str, Any]:
    """What the answer is to look like."""
    if type(text) is not dict:
        return {} if text is None else {"text": text}
    found: dict[str, Any] = {"verbosity": text.get("verbosity")}
    if more := _less(text, ("format", "verbosity")):
        found["text"] = more
    match text.get("format"):
        case {"type": "json_schema", **schema}:
            found["response_format"] = {"type": "json_schema", "json_schema": schema}
        case form:
            found["response_format"] = form
    return found


def _messages(given: object) -> list[Any]:
    """The items of an input; what a model made at one go is one message, before which its prompt ends."""
    if type(given) is not list:
        return [] if given is None else [{"role": "user", "content": given}]
    found: list[Any] = []
    for made, items in groupby(given, _is_made):
        each = list(items)
        found += [_turn(each)] if made else map(_message, each)
    return found


def _is_made(item: object) -> bool:
    if type(item) is not dict:
        return False
    kind = item.get("type")
    if kind is None or kind == "message":
        return item.get("role") == "assistant"
    return kind in _MADE or (type(kind) is str and kind.endswith("_call"))


def _message(item: Any) -> dict[str, Any]:
    match item:
        case {"type": str(kind), "output": output} if kind.endswith("_output"):
            answer = {"role": "tool", "tool_call_id": item.get("call_id"), "content": _content(output)}
            return _less(item, (*_OF_ITEMS, "call_id", "output")) | answer
        case {"content": content} if item.get("type") in (None, "message"):
            return _less(item, _OF_ITEMS) | {"content": _content(content)}
        case dict():
            return {"content": [item]}
    return {"role": "user", "content": item}


def _content(given: Any) -> object:
    if type(given) is list:
        return [_part(part) for part in given]
    return [_part(given)] if type(given) is dict else given


def _part(part: Any) -> object:
    match part:
        case {"type": kind, "text": str()} if kind in _TEXTS:
            return _less(part, ("logprobs",)) | {"type": "text"}
        case {"type": "refusal", "refusal": str(text)}:
            return {"type": "text", "text": text}
        case {"type": kind, **more} if kind in _IMAGES:
            url, detail = more.pop("image_url", None), more.pop("detail", None)
            image = url if type(url) is dict else {"url": url, "detail": detail}
            return more | {"type": "image_url", "image_url": image}
        case {"type": "input_file", **file}:
            return {"type": "file", "file": file}
    return part


def _turn(items: list[dict[str, Any]]) -> dict[str, Any]:
    """The assistant's message that holds all of these."""
    turn = _Turn()
    for item in items:
        kind = item.get("type")
        if kind in _THOUGHTS:
            turn.think(item)
        elif kind is None or kind == "message":
            turn.say(item)
        else:
            turn.call(item)
    return {"role": "assistant"} | {name: held for name, held in turn.members.items() if held}


class _Turn:
    """Gathers what a model made. `members` of a message, some of them empty."""

    def __init__(self) -> None:
        self.members: dict[str, Any] = {"content": [], "tool_calls": [], "reasoning_details": [], "items": []}

    def think(self, item: dict[str, Any]) -> None:
        texts = [part for name in ("summary", "content") for part in _parts(item.get(name))]
        said = [part["text"] for part in texts if type(part) is dict and type(part.get("text")) is str]
        self.members["reasoning_content"] = "\n".join([*filter(None, [self.members.get("reasoning_content")]), *said])
        self.members["reasoning_details"].append(item)
        if item.get("id") and not item.get("encrypted_content"):
            self.members["content"].append({"type": "item_reference"})  # the provider holds it, whatever its length

    def say(self, item: dict[str, Any]) -> None:
        content = item.get("content")
        self.members["content"] += [{"type": "text", "text": content}] if type(content) is str else _parts(content)
        if more := _less(item, (*_OF_ITEMS, "role", "content")):
            self.members["items"].append(more)

    def call(self, item: dict[str, Any]) -> None:
        match item:
            case {"type": "function_call", "name": name, "arguments": arguments} | {
                "type": "custom_tool_call",
                "name": name,
                "input": arguments,
            }:
                function = {"name": name, "arguments": arguments}
                called = {"id": item.get("call_id"), "type": "function", "function": function}
                self.members["tool_calls"].append(_less(item, _OF_CALLS) | called)
            case {"call_id": str()}:  # others that the client answers
                self.members["tool_calls"].append(item)
            case {"type": "image_generation_call", "result": str(data)}:
                image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
                self._hosted(item, image)
            case _:
                self._hosted(item, item)

    def _hosted(self, item: dict[str, Any], shown: object) -> None:
        """A call that the provider answered, and may hold the answer of."""
        self.members["tool_calls"].append({"type": item.get("type")})
        self.members["content"].append(shown)


def _parts(content: object) -> list[Any]:
    found = _content(content)
    return found if type(found) is list else [] if found is None else [found]
