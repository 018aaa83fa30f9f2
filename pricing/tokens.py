"""How many tokens a prompt has: counted where that is possible, estimated where it is not, and told apart.

Rule: a body is read once, with one encoding, whatever models it may go to; `Prompt.under` says what it is for each of
them. Whatever a body holds, it is counted and nothing is raised. What is charged is the `usage` of an answer.
A prompt is the sum of its messages, each read by itself, and of its frame: what is kept of a message serves every turn.

The chat rule and that of tools are those of OpenAI's cookbook (How_to_count_tokens_with_tiktoken), the rest is written
beside each number.
"""

import json
import math
from collections.abc import Callable, Container, Iterable, Mapping
from itertools import chain
from operator import mul
from typing import Any, Final, TypedDict

import msgspec

from pricing.encodings import Name, pieces, roughly
from pricing.families import Kind, encoding_of, factors_of, family_of, kind_of
from pricing.media import A_FILE, AN_ANSWERS_SECONDS, LARGEST, Image, file_tokens, image_of, image_rule, seconds_of

Counting = Callable[[str], int]
"""The tokens of a text: `Encodings.count` with its encoding, or `encodings.roughly` for a quick upper bound."""

PER_MESSAGE: Final = 3
PER_NAME: Final = 1
AT_THE_END: Final = 3  # every answer begins with <|start|>assistant<|message|>
PER_CALL: Final = 3  # a call of a tool, besides its name and arguments: estimated

PER_LEAF: Final = 2  # the marks around a text in JSON

# What no model is shown of a body, or what is counted by a rule of its own.
SETTINGS: Final = frozenset(
    "messages tools functions response_format model models stream stream_options n max_tokens max_completion_tokens "
    "stop temperature top_p top_k min_p seed presence_penalty frequency_penalty repetition_penalty logit_bias logprobs "
    "top_logprobs user metadata store service_tier reasoning_effort verbosity modalities audio parallel_tool_calls "
    "tool_choice function_call safety_identifier prompt_cache_key prompt_cache_retention".split()
)
SHAPE: Final = ("type", "json_schema")
CALLED: Final = ("name", "arguments")
# The members of media, by the type of their part, that are data or say what it is.
MEDIA: Final[dict[str, tuple[str, ...]]] = {
    "image_url": ("url", "detail"),
    "input_audio": ("data", "format"),
    "file": ("file_data",),
}

IMAGES: Final = 64  # that are told apart; more are taken for files of unknown length

PER_FUNCTION: Final[dict[Name, int]] = {"o200k_base": 7, "cl100k_base": 10}
PER_PROPERTIES, PER_PROPERTY, PER_ENUM, PER_ITEM, AFTER_TOOLS = 3, 3, -3, 3, 12


class Count(msgspec.Struct, frozen=True):
    """Tokens of a prompt for one model. `exact`: no part of it is estimated."""

    text: int
    images: int = 0
    audio: int = 0
    files: int = 0
    exact: bool = False

    @property
    def total(self) -> int:
        return self.text + self.images + self.audio + self.files

    @property
    def estimated(self) -> int:
        """What is no text, and so never more than an estimate."""
        return self.images + self.audio + self.files

    def times(self, factor: float) -> "Count":
        """With the factor of its text that was learned (Multipliers)."""
        if factor == 1.0:
            return self
        return msgspec.structs.replace(self, text=round(self.text * factor), exact=False)


class Prompt(msgspec.Struct, frozen=True):
    """What a body or a part of it holds, counted with `encoding`: `words` by Kind, the frame of messages, the tools.

    `tools` by OpenAI's rule less what that takes for each of the `functions`, `schemas` as the JSON that others show
    their models. `seconds` of audio, `files` in tokens. `exact`: nothing but messages of text.
    """

    encoding: Name
    words: tuple[int, int, int, int]
    frame: int = 0
    functions: int = 0
    tools: int = 0
    schemas: int = 0
    images: tuple[Image, ...] = ()
    seconds: float = 0.0
    files: int = 0
    exact: bool = False

    def under(self, family: str | None, model: str = "") -> Count:
        """Its tokens for a model of a tokenizer's family, both by name; an unknown family is taken for o200k.

        `model` tells what images cost. Nothing that was learned is in it yet.
        """
        its = family_of(family)
        factors = factors_of(its, self.encoding)
        text = self.frame + sum(map(mul, self.words, factors))
        if self.functions and its.encoding:
            text += self.tools + self.functions * PER_FUNCTION[its.encoding]
        elif self.functions:
            text += self.schemas * factors[Kind.JSON] + its.tools
        return Count(
            text=round(text),
            images=sum(map(image_rule(model).tokens, self.images)) if self.images else 0,
            audio=math.ceil(self.seconds * its.audio),
            files=self.files,
            exact=self.exact and its.encoding == self.encoding,
        )

    def plus(self, other: "Prompt") -> "Prompt":
        """Both. Raises ValueError if they were counted with different encodings."""
        return total((self, other))


def total(parts: Iterable[Prompt]) -> Prompt:
    """All parts, in one pass. Raises ValueError if there are none, or if they were counted with different encodings.

    The frame of a body belongs in it once.
    """
    columns = zip(*map(msgspec.structs.astuple, parts), strict=True)
    encodings, words, frames, functions, tools, schemas, images, seconds, files, exact = columns
    (encoding,) = set(encodings)
    prose, code, data, chinese = map(sum, zip(*words, strict=True))
    return Prompt(
        encoding=encoding,
        words=(prose, code, data, chinese),
        frame=sum(frames),
        functions=sum(functions),
        tools=sum(tools),
        schemas=sum(schemas),
        seconds=sum(seconds),
        exact=all(exact),
        **_bounded(tuple(chain.from_iterable(images)), sum(files)),
    )


def _bounded(images: tuple[Image, ...], files: int) -> "_Seen":
    """Images and files, of absurdly many images the first ones: a conversation's prompts hold those of all before."""
    return {"images": images[:IMAGES], "files": files + A_FILE * max(0, len(images) - IMAGES)}


class _Seen(TypedDict):
    images: tuple[Image, ...]
    files: int


def text_tokens(text: str, count: Counting, family: str | None) -> int:
    """Tokens of a text by itself, as an answer is one; `count` counts with the encoding_of the family."""
    reader = _Reader(count)
    reader.text(text)
    factors = factors_of(family_of(family), encoding_of(family))
    return round(sum(tokens * factor for tokens, factor in zip(reader.words, factors, strict=True)))


def read_prompt(body: Mapping[str, Any], count: Counting, encoding: Name = "o200k_base") -> Prompt:
    """A chat completion's parsed body, counted by `count`, which counts with `encoding`. Takes as long as `count`.

    It is the total of its messages and its frame, but for the last bits of `seconds`.
    """
    reader = _Reader(count)
    for message in messages_of(body):
        reader.message(message)
    reader.end(body)
    return reader.prompt(encoding)


def read_message(message: object, count: Counting, encoding: Name = "o200k_base") -> Prompt:
    """One of messages_of(body) by itself, without what ends a prompt."""
    reader = _Reader(count)
    reader.message(message)
    return reader.prompt(encoding)


def read_frame(body: Mapping[str, Any], count: Counting, encoding: Name = "o200k_base") -> Prompt:
    """What a body holds besides its messages: declared tools, the schema of the answer, and what ends a prompt."""
    reader = _Reader(count)
    reader.end(body)
    return reader.prompt(encoding)


def messages_of(body: Mapping[str, Any]) -> list[object]:
    """A body's messages; one that is no list counts as a message of an unexpected type."""
    messages = body.get("messages")
    return messages if type(messages) is list else [messages]


def is_bare(body: Mapping[str, Any]) -> bool:
    """Does it hold texts or token arrays in place of messages, which are no conversation and get no answer of one?"""
    messages = messages_of(body)
    return bool(messages) and all(
        type(each) is str or (type(each) is list and each and type(each[0]) is int) for each in messages
    )


def most(body: Mapping[str, Any]) -> Prompt:
    """As much as this body's prompt may be: fast and with nothing loaded.

    As far as `roughly` is no fewer; up to three times what read_prompt gives, and more where that leaves out what some
    provider may show its model: every text counts, wherever it is, but for the data of images, sound and files.
    """
    reader = _Most(roughly)
    for message in messages_of(body):
        reader.message(message)
    reader.end(body)
    return reader.prompt("o200k_base")


class _Reader:
    """Adds up what a body holds. A member of an unexpected type is counted as the JSON that it is."""

    def __init__(self, count: Counting) -> None:
        self.count = count
        self.words = [0, 0, 0, 0]
        self.frame = self.functions = self.tools = self.schemas = self.files = 0
        self.seconds = 0.0
        self.images: list[Image] = []
        self.exact = True
        self._members = {
            "role": self._role,
            "name": self._name,
            "content": self._content,
            "tool_calls": self._calls,
            "function_call": lambda call: self._calls([call]),
            "reasoning_content": self._unsure,
            "reasoning": self._unsure,
            "refusal": self._unsure,
            "audio": self._earlier_audio,
        }

    def message(self, message: object) -> None:
        if type(message) is not dict:
            self._unsure(message)
            return
        self.frame += PER_MESSAGE
        for name, value in message.items():
            if value is not None:
                self._members.get(name, self._unread)(value)

    def end(self, body: Mapping[str, Any]) -> None:
        """What is no message: once for a body."""
        self._declare(body.get("tools"), body.get("functions"))
        self._shape(body.get("response_format"))
        if not is_bare(body):
            self.frame += AT_THE_END
        self.tools += AFTER_TOOLS  # counts only if there are functions

    def prompt(self, encoding: Name) -> Prompt:
        prose, code, data, chinese = self.words
        return Prompt(
            encoding=encoding,
            words=(prose, code, data, chinese),
            frame=self.frame,
            functions=self.functions,
            tools=self.tools,
            schemas=self.schemas,
            seconds=self.seconds,
            exact=self.exact and not self.images and not self.files and not self.functions,
            **_bounded(tuple(self.images), self.files),
        )

    def _declare(self, tools: object, functions: object) -> None:
        """The tools that a request declares."""
        for given in (tools, functions):
            for tool in given if type(given) is list else []:
                function = tool.get("function", tool) if type(tool) is dict else tool
                self.functions += 1
                self.schemas += self.count(_as_json(tool))
                self.tools += self._function(function) if type(function) is dict else self.count(_as_json(tool))

    def _shape(self, response_format: object) -> None:
        """The schema that an answer must keep to: shown to the model as it is, as far as anyone knows."""
        if type(response_format) is dict and response_format.get("type") != "text":
            self._unsure(response_format.get("json_schema"))
            self.exact = False

    def text(self, value: object) -> None:
        if type(value) is not str:
            value, self.exact = _as_json(value), False
        for piece in pieces(value):
            self.words[kind_of(piece)] += self.count(piece)

    def _unsure(self, value: object) -> None:
        """What some providers show the model and others don't."""
        if value:
            self.exact = False
            self.text(value)

    def _unread(self, _: object) -> None:
        self.exact = False

    def _role(self, value: object) -> None:
        self.frame += self.count(str(value))

    def _name(self, value: object) -> None:
        self.frame += PER_NAME
        self.text(value)

    def _content(self, content: object) -> None:
        if type(content) is list:
            for part in content:
                self._part(part)
        else:
            self.text(content)

    def _part(self, part: object) -> None:
        match part:
            case {"type": "text", "text": str(text)}:
                self.text(text)
            case str(text) | {"text": str(text)}:
                self._unsure(text)
            case {"type": "image_url", "image_url": dict() | str() as image}:
                self._image(image)
            case {"type": "input_audio", "input_audio": {"data": str(data)}}:
                self.seconds += seconds_of(data)
                self.exact = False
            case {"type": "file", "file": {"file_data": str(data)}}:
                self.files += file_tokens(data)
            case _:
                self.files += A_FILE

    def _image(self, image: Mapping[str, Any] | str) -> None:
        self.images.append(image_of(image))

    def _earlier_audio(self, _: object) -> None:
        self.seconds += AN_ANSWERS_SECONDS
        self.exact = False

    def _calls(self, calls: object) -> None:
        self.exact = False
        for call in calls if type(calls) is list else [calls]:
            function = call.get("function", call) if type(call) is dict else call
            match function:
                case {"name": str(name), "arguments": str(arguments)}:
                    self.frame += PER_CALL + self.count(name)
                    self.text(arguments)
                case _:
                    self.text(function)

    def _function(self, function: dict[str, Any]) -> int:
        line = _line(function.get("name"), function.get("description"))
        return self.count(line) + self._schema(function.get("parameters"))

    def _schema(self, schema: object) -> int:
        """The cookbook's rule for the properties of a function; what it does not speak of, nested ones, alike."""
        if type(schema) is list:
            return sum(map(self._schema, schema))
        if type(schema) is not dict:
            return 0
        nested = [schema.get(name) for name in ("items", "anyOf", "oneOf", "allOf")]
        for definitions in (schema.get("$defs"), schema.get("definitions")):
            nested += definitions.values() if type(definitions) is dict else []
        properties = schema.get("properties")
        if type(properties) is not dict or not properties:
            return sum(map(self._schema, nested))
        own = sum(PER_PROPERTY + self._property(name, each) for name, each in properties.items())
        return PER_PROPERTIES + own + sum(map(self._schema, nested))

    def _property(self, name: str, schema: object) -> int:
        if type(schema) is not dict:
            return self.count(name)
        tokens = self.count(_line(name, schema.get("type"), schema.get("description")))
        if type(items := schema.get("enum")) is list:
            tokens += PER_ENUM + sum(PER_ITEM + self.count(str(item)) for item in items)
        return tokens + self._schema(schema)


class _Most(_Reader):
    """Counts as text whatever the reader does not know, and an image that does not say its pixels as a large one."""

    def message(self, message: object) -> None:
        super().message(message)
        if type(message) is dict:
            self._others(message, self._members)

    def end(self, body: Mapping[str, Any]) -> None:
        super().end(body)
        self.tools = max(self.tools, self.schemas)  # OpenAI's rule leaves out what others show
        shape = body.get("response_format")
        if type(shape) is dict:
            self._others(shape, SHAPE)
        self._others(body, SETTINGS)
        for name in ("tools", "functions"):
            if type(body.get(name)) is not list:
                self._all(body.get(name))

    def _others(self, given: Mapping[str, Any], known: Container[str]) -> None:
        for name, value in given.items():
            if name not in known:
                self._all(name)
                self._all(value)

    def _all(self, value: object) -> None:
        """Each text of it by itself: where runs without words lie between words, they would pass for words."""
        left = [value]
        while left:
            value = left.pop()
            if type(value) is dict:
                left += value.keys()
                left += value.values()
            elif type(value) is list:
                left += value
            elif value is not None:
                self._leaf(value if type(value) is str else _as_json(value))

    def _leaf(self, text: str) -> None:
        self.frame += PER_LEAF
        if text.isascii() and " " not in text:
            self.words[Kind.JSON] += len(text)  # as `roughly` says of it
        else:
            self.text(text)

    def _part(self, part: object) -> None:
        if type(part) is not dict:
            super()._part(part)
            if type(part) is list:
                self._all(part)
            return
        kind = str(part.get("type"))
        media = MEDIA.get(kind)
        if media is None:
            super()._part(part)
            known = ("text",) if type(part.get("text")) is str else ()
            self._others(part, ("type", *known) if kind == "text" else known)
            return
        super()._part({"type": kind, kind: part.get(kind)})
        self._others(part, ("type", kind))
        given = part.get(kind)
        if type(given) is dict:
            self._others(given, [name for name in media if type(given.get(name)) is str])
        elif kind != "image_url":
            self._all(given)

    def _image(self, image: Mapping[str, Any] | str) -> None:
        self.images.append(image_of(image, unseen=LARGEST))

    def _earlier_audio(self, audio: object) -> None:
        super()._earlier_audio(audio)
        if type(audio) is dict:
            self._others(audio, ("data",))
        else:
            self._all(audio)

    def _calls(self, calls: object) -> None:
        super()._calls(calls)
        for call in calls if type(calls) is list else [calls]:
            if type(call) is dict:
                self._others(call, ("function",) if "function" in call else CALLED)
                if type(function := call.get("function")) is dict:
                    self._others(function, CALLED)


def _line(*values: object) -> str:
    texts = (value if type(value) is str else _as_json(value) if value else "" for value in values)
    return ":".join(texts).removesuffix(".")


def _as_json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
