"""Random requests, the same for the same seed: whatever a chat completion may ask, what fails, and what only passes.

Rule: every request is one that HTTP and OpenAI's API allow (the failing ones: that the provider, not the proxy,
refuses), and no two of one seed and mark are the same to a cache.
"""

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from bench.soak.lab import PATH

Json = dict[str, Any]
T = TypeVar("T")

# What parsers, encoders and those who look for ids and ends in bytes have stumbled over.
_ODD = (
    "data: [DONE]\n\n",
    '{"id":"chatcmpl-1","created":1}',
    "\x00\x1f\x7f",
    "\u2028\u2029\u0085",
    "🙂🏳️‍🌈",
    "e\u0301 שלום 水",
    'quote " back \\ slash / tab \t',
    "\r\n\r",
    "call_0123456789",
    "</script>&amp;%20",
    "\ufeff",
    " ",
)
_WORDS = "sluice gate water level north south turbine measure open slowly river because before 東京 naïve".split()
_NAMES = ("open_gate", "read_level", "shell-2", "a", "x" * 64)


@dataclass(frozen=True, slots=True)
class Asked:
    """A chat completion. `lines` are its header lines, `bypass` why the cache must leave it alone ("": it need not)."""

    body: Json
    lines: tuple[str, ...]
    query: str = ""
    bypass: str = ""

    @property
    def streamed(self) -> bool:
        return self.body.get("stream") is True

    @property
    def wants_usage(self) -> bool:
        return self.streamed and (self.body.get("stream_options") or {}).get("include_usage") is True

    @property
    def options(self) -> frozenset[str]:
        """The names of the simulator's options in the model's name."""
        _, *options = str(self.body["model"]).split(";")
        return frozenset(option.partition("=")[0].strip() for option in options)


@dataclass(frozen=True, slots=True)
class Passed:
    """A request that no endpoint understands. `target`: path and query as they stand on the wire."""

    method: str
    target: str
    lines: tuple[str, ...]
    body: bytes
    chunked: bool


class Requests:
    """Makes them. `mark` keeps the requests of one run apart from everybody else's."""

    def __init__(self, seed: int, mark: str) -> None:
        self._dice = random.Random(seed)
        self._mark = mark
        self._count = 0

    def good(self) -> Asked:
        """One that is answered."""
        asked = self._plain()
        return self._bypassing(asked) if self._dice.random() < 0.06 else asked

    def failing(self) -> Asked:
        """One that the provider refuses, in a way that nobody tries again."""
        asked = self._plain()
        body, lines = asked.body, asked.lines
        if self._dice.random() < 0.5:
            return self._refused_on_demand(asked)
        if self._dice.random() < 0.1:
            kept = tuple(line for line in lines if not line.lower().startswith(("authorization", "api-key")))
            return Asked(body, (*kept, self._spelled("Authorization", "Bearer bad-key")))
        bypass, broken = self._pick(_BROKEN)
        changed = {name: value for name, value in (body | broken).items() if value is not _GONE}
        changed["model"] = broken.get("model", "sim-instant") + self._pick(("", ";detail"))
        return Asked(changed, lines, bypass=bypass)

    def passed(self) -> Passed:
        """One under /v1/mirror."""
        if self._dice.random() < 0.3:
            return self._ranged()
        method = self._pick(("GET", "GET", "POST", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "PROPFIND"))
        segments = [self._pick(_SEGMENTS) for _ in range(self._dice.randrange(1, 5))]
        target = "/v1/mirror/" + "/".join(segments) + self._pick(_QUERIES)
        fault = (self._spelled("X-Simulator", self._pick(_FAULTS)),) if self._dice.random() < 0.2 else ()
        kind, body = self._upload() if method in ("POST", "PUT", "PATCH", "DELETE") else ("", b"")
        lines = (*((self._spelled("Content-Type", kind),) if kind else ()), self._spelled("X-Request-Mark", self._mark))
        return Passed(method, target, (*self._account(), *fault, *lines), body, chunked=bool(body) and self._maybe())

    def respelled(self, body: Json) -> bytes:
        """The same request in other bytes: another order, other blanks and escapes, other words for the same."""
        said = body | {"user": self._text()}
        if "n" not in body and self._maybe():
            said["n"] = 1
        if body.get("stream") is True and "stream_options" not in body and self._maybe():
            said["stream_options"] = {"include_usage": False}
        separators = self._pick(((",", ":"), (", ", ": "), (" ,\n", " : ")))
        return json.dumps(self._shuffled(said), ensure_ascii=self._maybe(), separators=separators).encode()

    def http(self, asked: Asked, raw: bytes) -> bytes:
        """The request's bytes, its header's names in some spelling, its body whole or in chunks."""
        kind = self._pick(("application/json", "application/json", "Application/JSON; charset=utf-8"))
        lines = (self._spelled("Content-Type", kind), *asked.lines)
        return self._framed("POST", PATH + asked.query, lines, raw, chunked=self._dice.random() < 0.15)

    def http_of(self, passed: Passed) -> bytes:
        return self._framed(passed.method, passed.target, passed.lines, passed.body, chunked=passed.chunked)

    def _plain(self) -> Asked:
        body = self._form() | {"model": self._model(), "messages": self._messages()}
        for extend in (self._limits, self._formats, self._tools, self._choices, self._books, self._unknown):
            body |= extend()
        return Asked(self._shuffled(body), self._lines(), self._pick(("", "", "", "?api-version=2025-01-01&x=%2F")))

    def _framed(self, method: str, target: str, lines: Sequence[str], body: bytes, *, chunked: bool) -> bytes:
        length = ("Transfer-Encoding", "chunked") if chunked else ("Content-Length", str(len(body)))
        framing = () if not body and method in ("GET", "HEAD", "OPTIONS", "PROPFIND") else (self._spelled(*length),)
        expecting = (self._spelled("Expect", "100-continue"),) if body and self._dice.random() < 0.1 else ()
        own = ("Host: localhost", self._spelled("Connection", "close"), *expecting)
        head = "".join(f"{line}\r\n" for line in (f"{method} {target} HTTP/1.1", *own, *framing, *lines))
        return head.encode() + b"\r\n" + (self._in_chunks(body) if chunked else body)

    def _in_chunks(self, body: bytes) -> bytes:
        framed, position = b"", 0
        while position < len(body):
            piece = body[position : position + self._dice.choice((1, 7, 1000, 65536))]
            position += len(piece)
            framed += b"%x\r\n%s\r\n" % (len(piece), piece)
        return framed + b"0\r\n\r\n"

    # Luck.

    def _pick(self, values: Sequence[T]) -> T:
        return self._dice.choice(values)

    def _maybe(self) -> bool:
        return self._dice.random() < 0.5

    def _some(self, most: int, make: Callable[[], T]) -> list[T]:
        return [make() for _ in range(self._dice.randint(1, most))]

    def _shuffled(self, members: Json) -> Json:
        return dict(self._dice.sample(list(members.items()), len(members)))

    def _either(self, *members: Json) -> Json:
        """One of them, or mostly none."""
        return self._pick(members) if self._dice.random() < 0.4 else {}

    # Headers.

    def _spelled(self, name: str, value: str) -> str:
        spelling, before = self._pick(_SPELLINGS), self._pick(("", " ", "  "))
        return f"{spelling(name)}:{before}{value}"

    def _account(self) -> tuple[str, ...]:
        return (self._spelled("Authorization", f"Bearer sk-{self._dice.randrange(5)}"),)

    def _lines(self) -> tuple[str, ...]:
        others = [line for line in _HEADERS if self._dice.random() < 0.2]
        return (*self._account(), *(self._spelled(*line) for line in others))

    # Members.

    def _form(self) -> Json:
        forms: list[Json] = [{}, {"stream": False}, {"stream": None}]
        asked = {"include_usage": True}
        options: tuple[Json | None, ...] = ({}, asked, asked, {"include_usage": False}, None)
        streams: list[Json] = [{"stream": True}, *({"stream": True, "stream_options": each} for each in options)]
        return self._pick(forms if self._maybe() else streams)

    def _model(self) -> str:
        name = self._pick(("sim-instant", "sim-instant", "sim-small;first=0;gap=0", "sim-reasoning;first=0;gap=0"))
        options = [f"chunks={self._dice.randint(1, 90)}"] if self._maybe() else []
        options += [each for each in _OPTIONS if self._dice.random() < 0.06]
        return self._pick((";", "; ", " ; ")).join([name, *options])

    def _text(self) -> str:
        words = self._some(12, lambda: self._pick(_WORDS)) + ([self._pick(_ODD)] if self._maybe() else [])
        self._dice.shuffle(words)
        return " ".join(words) * (300 if self._dice.random() < 0.03 else 1)

    def _content(self) -> str | list[Json]:
        if self._dice.random() < 0.6:
            return self._text()
        return [*self._some(3, lambda: {"type": "text", "text": self._text()}), *self._media()]

    def _media(self) -> list[Json]:
        return [self._pick(_MEDIA)] if self._dice.random() < 0.2 else []

    def _messages(self) -> list[Json]:
        self._count += 1
        found: list[Json] = []
        if self._maybe():
            found.append({"role": self._pick(("system", "developer")), "content": self._text()})
        for _ in range(self._dice.choice((0, 0, 1, 2, 4))):
            found += [{"role": "user", "content": self._content()}, *self._reply()]
        question = f"{self._mark} {self._count} {self._text()}"
        asked: Json = {"role": "user", "content": self._pick((question, [{"type": "text", "text": question}]))}
        return [*found, asked | self._either({"name": "miller"})] + (
            self._called() if self._dice.random() < 0.1 else []
        )

    def _reply(self) -> list[Json]:
        """What an assistant said before."""
        if self._maybe():
            return [{"role": "assistant", "content": self._text()} | self._either({"refusal": None}, {"name": "a"})]
        if self._maybe():
            return self._called()
        legacy = {"name": "open_gate", "arguments": "{}"}
        return self._pick(
            (
                [{"role": "assistant", "content": None, "refusal": self._text()}],
                [{"role": "assistant", "content": "", "reasoning_content": self._text()}],
                [
                    {"role": "assistant", "content": None, "function_call": legacy},
                    {"role": "function", "name": "open_gate", "content": self._text()},
                ],
            )
        )

    def _called(self) -> list[Json]:
        ids = self._some(3, lambda: f"call_{self._dice.randrange(10**9)}")
        calls = [{"id": each, **self._call()} for each in ids]
        said: Json = {"role": "assistant", "content": self._pick((None, "", self._text())), "tool_calls": calls}
        return [said, *({"role": "tool", "tool_call_id": each, "content": self._content_of_tool()} for each in ids)]

    def _content_of_tool(self) -> str | list[Json]:
        said: tuple[str | list[Json], ...] = (self._text(), [{"type": "text", "text": self._text()}], "")
        return self._pick(said)

    def _call(self) -> Json:
        if self._dice.random() < 0.7:
            arguments = json.dumps({"gate": self._text()}, ensure_ascii=self._maybe())
            return {"type": "function", "function": {"name": self._pick(_NAMES), "arguments": arguments}}
        return {"type": "custom", "custom": {"name": self._pick(_NAMES), "input": self._text()}}

    def _limits(self) -> Json:
        many = self._dice.randint(1, 60)
        found = self._either({"max_tokens": many}, {"max_completion_tokens": many}, {"max_tokens": many * 50})
        found |= self._either({"stop": self._pick(_WORDS)}, {"stop": ["the ", ".", "!"]}, {"stop": []}, {"stop": None})
        found |= self._either({"temperature": 0}, {"temperature": 0.7}, {"temperature": 1.0}, {"temperature": None})
        return found | self._either(
            {"seed": 7}, {"top_p": 0.9}, {"presence_penalty": -0.5}, {"logit_bias": {"50256": -100}}
        )

    def _formats(self) -> Json:
        schema = {"name": "report", "strict": self._maybe(), "schema": self._schema(0) | {"type": "object"}}
        kinds: tuple[Json, ...] = (
            {"type": "text"},
            {"type": "json_object"},
            {"type": "json_schema", "json_schema": schema},
        )
        return {"response_format": self._pick(kinds)} if self._dice.random() < 0.25 else {}

    def _schema(self, depth: int) -> Json:
        names = self._some(4, lambda: self._pick(_WORDS))
        properties = {name: self._property(depth + 1) for name in names}
        return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}

    def _property(self, depth: int) -> Json:
        plain: tuple[Json, ...] = (
            {"type": "string"},
            {"type": "string", "enum": [self._pick(_ODD), self._pick(_ODD)]},
            {"const": self._pick(_ODD)},
            {"type": "integer", "minimum": -5, "maximum": 10**12},
            {"type": ["number", "null"], "minimum": 0, "maximum": 1},
            {"type": "boolean"},
            {"type": "null"},
        )
        if depth > 2 or self._dice.random() < 0.7:
            return self._pick(plain)
        return self._pick(({"type": "array", "items": self._property(depth + 1)}, self._schema(depth)))

    def _tools(self) -> Json:
        luck = self._dice.random()
        if luck < 0.06:
            legacy = [{"name": name, "parameters": self._schema(1)} for name in self._names()]
            wanted = self._either({"function_call": "auto"}, {"function_call": {"name": legacy[0]["name"]}})
            return {"functions": legacy} | wanted
        if luck > 0.35:
            return {"tools": None} if luck > 0.97 else {}
        tools = [self._tool(name) for name in self._names()]
        return {"tools": tools} | self._tool_choice(tools) | self._either({"parallel_tool_calls": self._maybe()})

    def _names(self) -> list[str]:
        return self._dice.sample(_NAMES, self._dice.randint(1, len(_NAMES)))

    def _tool(self, name: str) -> Json:
        if self._dice.random() < 0.3:
            return {"type": "custom", "custom": {"name": name} | self._either({"format": {"type": "text"}})}
        described: Json = {"name": name, "description": self._text()}
        described |= {"parameters": self._schema(1), "strict": self._maybe()} if self._dice.random() < 0.8 else {}
        return {"type": "function", "function": described}

    def _tool_choice(self, tools: list[Json]) -> Json:
        tool = self._pick(tools)
        kind = tool["type"]
        named = {"type": kind, kind: {"name": tool[kind]["name"]}}
        allowed = {
            "type": "allowed_tools",
            "allowed_tools": {"mode": self._pick(("auto", "required")), "tools": [tool]},
        }
        return (
            {"tool_choice": self._pick(("auto", "none", "required", "required", named, allowed))}
            if self._maybe()
            else {}
        )

    def _choices(self) -> Json:
        found = self._either({"n": 1}, {"n": 2}, {"n": 4}, {"n": None})
        return found | self._either(
            {"logprobs": True}, {"logprobs": False}, *({"logprobs": True, "top_logprobs": top} for top in (0, 1, 5))
        )

    def _books(self) -> Json:
        """The caller's own book-keeping, which no cache heeds."""
        found = self._either({"user": self._text()}, {"metadata": {"run": self._text()}})
        return found | self._either({"safety_identifier": "s"}, {"prompt_cache_key": "k"})

    def _unknown(self) -> Json:
        odd: list[Any] = [1.0, 1e3, -0.0, 2**53, None, True, {"deep": [[[{}]]]}, self._pick(_ODD)]
        return self._either({"x_vendor": odd}, {"reasoning_effort": "low"}, {"service_tier": "auto"}, {"store": False})

    def _bypassing(self, asked: Asked) -> Asked:
        name = self._pick(tuple(_BYPASSES))
        if name == "cache-control":
            return replace(asked, lines=(*asked.lines, self._spelled("Cache-Control", "no-store")), bypass="no-store")
        reason, value = _BYPASSES[name]
        if name == "messages":
            image = {"type": "image_url", "image_url": {"url": value}}
            value = [*asked.body["messages"], {"role": "user", "content": [image]}]
        return replace(asked, body=asked.body | {name: value}, bypass=reason)

    # What fails.

    def _refused_on_demand(self, asked: Asked) -> Asked:
        status = self._pick((400, 401, 403, 404, 408, 409, 413, 418, 422, 429, 429, 429, 500, 502, 503, 529, 599))
        # Penstock tries again for clients that do not do so themselves, unless the provider wants a long pause.
        patient = self._maybe()
        options = (
            [f"status={status}", f"retry-after={self._dice.randint(11, 10**6)}"] if patient else [f"status={status}"]
        )
        options += [
            each for each in ("detail", "should-retry=false", "retry-after-ms=70000") if self._dice.random() < 0.2
        ]
        lines = asked.lines if patient else (*asked.lines, self._spelled("X-Stainless-Retry-Count", "0"))
        return replace(asked, body=asked.body | {"model": ";".join(["sim-instant", *options])}, lines=lines)

    # What passes.

    def _upload(self) -> tuple[str, bytes]:
        size = self._pick((0, 1, 1000, 70_000, 1_000_000))
        body = self._dice.randbytes(size)
        if self._maybe():
            head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="\xc3\xa9.jsonl"\r\n\r\n'
            return "multipart/form-data; boundary=x", head + body + b"\r\n--x--\r\n"
        return self._pick(("application/octet-stream", "application/json", "")), body

    def _ranged(self) -> Passed:
        size = self._pick((0, 1, 1000, 300_000))
        ranges = ("0-0", "0-99", "5-", "-7", "0-", f"{size}-", f"{size // 2}-{size * 2}", "999999999-")
        line = (self._spelled("Range", f"bytes={self._pick(ranges)}"),) if self._dice.random() < 0.8 else ()
        return Passed(
            self._pick(("GET", "GET", "HEAD")), f"/v1/mirror/bytes/{size}", (*self._account(), *line), b"", False
        )


_SPELLINGS: tuple[Callable[[str], str], ...] = (str.lower, str.upper, str.title, str)

_OPTIONS = (
    *("usage", "usage", "nodone", "nousage", "refusal", "empty", "badjson"),
    *("finish=length", "finish=content_filter", "finish=odd", "first=0.03;comments=0.01", "first=0.01;gap=0.001"),
)

_HEADERS = (
    ("Accept", "application/json"),
    ("Accept", "text/event-stream"),
    ("Accept-Encoding", "gzip, deflate"),
    ("User-Agent", "OpenAI/Python 3.54.0"),
    ("X-Stainless-Retry-Count", "0"),
    ("X-Stainless-Lang", "python"),
    ("OpenAI-Organization", "org-1"),
    ("OpenAI-Project", "proj_1"),
    ("OpenAI-Beta", "assistants=v2"),
    ("api-key", "sk-azure"),
    ("Cookie", "sim=1"),
    ("X-Unknown", "Ünknown"),
)

_MEDIA: tuple[Json, ...] = (
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
    {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
)

# Members by which an answer depends on more than the request: the reason that the proxy must give, and a value.
_BYPASSES: Mapping[str, tuple[str, Any]] = {
    "cache-control": ("no-store", None),
    "store": ("state", True),
    "web_search_options": ("search", {}),
    "messages": ("remote-media", "https://example.com/gate.png"),
}

_GONE = object()
# What the simulator refuses as OpenAI does; with the reason of the bypass that it is besides.
_BROKEN: tuple[tuple[str, Json], ...] = (
    ("", {"messages": _GONE}),
    ("", {"messages": []}),
    ("", {"messages": "hello"}),
    ("", {"temperature": 3}),
    ("", {"max_tokens": 0}),
    ("", {"stop": ["a", "b", "c", "d", "e"]}),
    ("", {"logprobs": False, "top_logprobs": 3}),
    ("", {"tools": None, "tool_choice": "auto"}),
    ("", {"stream": False, "stream_options": {"include_usage": True}}),
    ("", {"tools": _GONE, "tool_choice": _GONE, "functions": _GONE, "response_format": {"type": "yaml"}}),
    ("", {"tools": [{"type": "function", "function": {"name": "a"}}], "tool_choice": {"type": "function"}}),
    ("tools", {"tools": [{"type": "retrieval"}], "tool_choice": "auto"}),
    ("", {"model": "no-such-model"}),
    ("", {"model": "sim-instant;no-such-option"}),
)

_SEGMENTS = (
    *(
        "files",
        "ft:gpt-4o:org::abc",
        "a%2Fb",
        "%2e%2e",
        "..",
        ".",
        "",
        "%25",
        "%zz",
        "~!$&'()*+,;=:@",
        "a%20b",
        "x" * 300,
    ),
    *("caf%C3%A9", "{id}", "|", "%00"),
)
_FAULTS = (
    *("status=404", "status=400;detail", "status=401", "status=418", "status=429;retry-after=30", "status=500"),
    *("status=503;retry-after-ms=70000;should-retry=false", "type=text/html", "cookie=word", "first=0.01"),
    "redirect=https://example.com/elsewhere",
)
_QUERIES = ("", "", "?", "?a=1&a=2", "?q=%20+x&y=", "?x=a/b?c", "?limit=10&after=file-%2F..")
