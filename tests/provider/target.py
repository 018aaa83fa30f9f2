"""The provider that is tried, as it is reached without Penstock, and what is told of what goes wrong with it.

Rule: whatever fails is told in one line of an operator's words, and no line holds the key.
"""

import json
import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import openai

from proxy.errors import StartupError
from proxy.reading import read_settings
from tests.support import Json, proxy_table

TOKENS: Final = 200  # that an answer may have, if its test does not say otherwise
PATIENCE: Final = 120.0  # seconds; a model may think
LONGEST: Final = 300  # characters of a line
NO_KEY: Final = "none"  # is sent where there is none: the SDK insists on one
OF_USAGE: Final = ("stream_options", "include_usage")  # one of them is in a refusal of both


class RefusedError(Exception):
    """Nothing can be tried. Says why in one line."""


def key_from(environment: Mapping[str, str], name: str | None) -> str:
    """The key, out of the variable of that name; by default out of the SDK's own, if there is one."""
    key = environment.get(name or "OPENAI_API_KEY") or ("" if name else NO_KEY)
    if not key:
        # What is no usual name may be the key itself, and is not repeated.
        named = f"KEY_ENV={name}" if name and re.fullmatch(r"[A-Z_][A-Z0-9_]*", name) else "KEY_ENV"
        raise RefusedError(f"{named} must name an environment variable that is set")
    if not re.fullmatch(r"[!-~]+", key):
        raise RefusedError(f"the key in {name or 'OPENAI_API_KEY'} holds blanks or other characters that no key has")
    return key


def table(base_url: str, directory: Path) -> Json:
    """Settings of a proxy before it. Port 0: at any other, this very proxy could be what is meant."""
    return proxy_table(base_url, directory, {}, {"server": {"port": 0}})


def checked(base_url: str) -> str:
    """The address, as Penstock takes it."""
    try:
        settings = read_settings(table(base_url, Path()), source="")
    except StartupError as error:
        raise RefusedError(str(error).partition("base_url: ")[2]) from None
    return settings.providers["sim"].base_url.rstrip("/")


@dataclass
class Target:
    """`notes`: what is unusual about it, in order. `calls`: how often it was asked directly."""

    base_url: str
    model: str
    key: str = field(default=NO_KEY, repr=False)
    notes: dict[str, None] = field(default_factory=dict)
    calls: int = 0
    limit: str = "max_tokens"
    takes_stream_options: bool = True

    def note(self, deviation: str) -> None:
        """Say at the end that it does so."""
        self.notes[self.line(deviation)] = None

    def ask(self, prompt: str, *, tokens: int = TOKENS, **members: Any) -> Json:
        """A request's body."""
        messages = [{"role": "user", "content": prompt}]
        return {"model": self.model, "messages": messages, self.limit: tokens, **members}

    def line(self, text: str) -> str:
        """One line of it, without the key."""
        if self.key != NO_KEY:
            text = text.replace(self.key, "[key]")
        text = " ".join(text.split())
        return text if len(text) <= LONGEST else text[:LONGEST] + "…"

    def observe(self) -> None:
        """Ask it for streams, and note what is unusual. Raises RefusedError if it does not answer."""
        response = self._streamed()
        if response.status_code == 400 and "max_completion_tokens" in response.text:
            self.limit = "max_completion_tokens"
            self.note("wants max_completion_tokens for max_tokens")
            response = self._streamed()
        self._note_ways(self._answered(response))
        response = self._streamed(stream_options={"include_usage": True})
        if response.status_code == 400 and any(each in response.text for each in OF_USAGE):
            self.takes_stream_options = False
            self.note(
                "refuses stream_options: Penstock finds that out by itself, but then knows no usage of streams, "
                "and keeps streams and JSON answers apart"
            )
        else:
            self._answered(response)

    def _streamed(self, **members: Any) -> httpx.Response:
        try:
            response = httpx.post(
                f"{self.base_url}/chat/completions",
                json=self.ask("Say yes.", stream=True, **members),
                headers={"authorization": f"Bearer {self.key}"},
                timeout=PATIENCE,
                # As Penstock reaches it: the system's own certificates, and no proxy of the environment's.
                verify=ssl.create_default_context(),
                trust_env=False,
            )
        except httpx.TimeoutException:
            raise RefusedError(f"{self.base_url} does not answer within {PATIENCE:.0f} seconds") from None
        except httpx.HTTPError as error:
            happened = "cannot be reached" if isinstance(error, httpx.ConnectError) else "breaks off"
            raise RefusedError(self.line(f"{self.base_url} {happened}: {reason(error)}")) from None
        self.calls += 1
        return response

    def _answered(self, response: httpx.Response) -> httpx.Response:
        """The answer, if it is one."""
        if response.status_code != 200:
            said = words_of(response.text) or response.headers.get("location", "nothing more")
            raise RefusedError(self.line(f"the provider answered {response.status_code}: {said}"))
        if response.headers.get("content-type", "").startswith("text/html"):
            raise RefusedError(f"{self.base_url} answers with a web page; is there a part missing, such as /v1?")
        return response

    def _note_ways(self, response: httpx.Response) -> None:
        data = [line[5:].strip() for line in response.text.splitlines() if line.startswith("data:")]
        if data[-1:] != ["[DONE]"]:
            self.note("ends its streams without [DONE]")
        if any('"usage":{' in each.replace(" ", "") for each in data):
            self.note("says the usage of a stream unasked (through Penstock, only who asks sees it)")
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            self.note(f"answers a stream as {response.headers.get('content-type', 'nothing in particular')}")

    def told(self, error: BaseException) -> str:
        """What an operator should know of it."""
        return self.line(_told(error))


def reason(error: BaseException) -> str:
    """`[Errno 111] Connection refused` is `connection refused`."""
    said = re.sub(r"^\[Errno[^]]*\] *| *\(_ssl\.c:\d+\)$", "", str(error)) or type(error).__name__
    said = re.sub(r"^\[SSL[^]]*\] *", "no TLS, ", said)
    return said[:1].lower() + said[1:]


def words_of(body: str) -> str:
    """The provider's words, out of whichever shape its errors have."""
    try:
        said = json.loads(body)
    except ValueError:
        return body
    if isinstance(said, dict):
        error = said.get("error", said.get("detail", said.get("message")))
        said = error.get("message") if isinstance(error, dict) else error
    return said if isinstance(said, str) else body


def _told(error: BaseException) -> str:
    match error:
        case openai.APIStatusError():
            code = f" ({error.code})" if error.code else ""
            said = f"answered with {error.status_code}{code}: {words_of(error.response.text)}"
        case openai.APITimeoutError():
            said = f"no answer came within {PATIENCE:.0f} seconds"
        case openai.APIConnectionError():
            said = f"the connection broke: {reason(error.__cause__ or error)}"
        case openai.APIError():
            said = f"the stream ended with an error: {error.message}"
        case json.JSONDecodeError():
            said = f"something in the answer is no JSON, and the SDK gives up on it: {error.doc}"
        case AssertionError():
            # What pytest adds is for who develops Penstock.
            said = str(error).partition("\n")[0]
        case _:
            said = f"{type(error).__name__}: {error}"
    return said
