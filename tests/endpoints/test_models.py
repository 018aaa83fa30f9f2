"""`/v1/models`: the provider's list and the names of the settings, for who may see it."""

import asyncio
import json
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from proxy.clock import SystemClock
from proxy.complaints import Complaints
from proxy.core.access import Access, Grant, digest
from proxy.core.books import Answered
from proxy.endpoints.desk import Desk
from proxy.endpoints.models import Models
from proxy.errors import PenstockError, UpstreamBadContentType, UpstreamConnectError
from proxy.ids import Ids
from proxy.interfaces import Listing
from tests import fakes
from tests.fakes import Book, a_door, no_limits

GOOD: list[dict[str, Any]] = [
    {"id": "gpt-4.1", "object": "model", "created": 5, "owned_by": "openai"},
    {"id": "ft:x/y", "object": "model"},
]
OPEN = Access({})
Account = tuple[tuple[bytes, bytes], ...]


@dataclass
class Listed:
    status: int = 200
    body: bytes = b""
    models: list[dict[str, Any]] | None = field(default_factory=lambda: [dict(model) for model in GOOD])
    content_type: bytes = b"application/json"
    headers: tuple[tuple[bytes, bytes], ...] = ()


class FakeProvider(fakes.Provider):
    """Lists what it is told to, or fails, or waits for ever."""

    def __init__(self, said: Listing | PenstockError | None) -> None:
        super().__init__()
        self.name = "p"
        self._said = said
        self.accounts: list[Account] = []
        self.given_up = False

    def scrub(self, said: bytes) -> bytes:
        return said.replace(b"sk-operator", b"[key]")

    async def models(self, account: Account) -> Listing:
        self.accounts.append(account)
        if isinstance(self._said, PenstockError):
            raise self._said
        if self._said is None:
            try:
                await asyncio.Event().wait()
            finally:
                self.given_up = True
        assert self._said is not None
        return self._said


class FakeMeter(fakes.Meter):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, str, int]] = []

    def answered(self, row: Answered, key: str) -> None:  # noqa: ARG002 - of the protocol
        self.seen.append((row.endpoint, row.outcome, row.status))


class Rig:
    def __init__(
        self, said: Listing | PenstockError | None = None, *, named: Iterable[str] = (), access: Access = OPEN
    ) -> None:
        self.provider = FakeProvider(said)
        self.meter = FakeMeter()
        self._models = Models(
            named,
            self.provider,
            a_door(access=access),
            Desk(
                Ids(), self.meter, SystemClock(), Complaints(time.monotonic), no_limits(SystemClock()), Book(), deque()
            ),
        )
        self.hangs_up = asyncio.Event()
        self.sent: list[dict[str, Any]] = []

    async def _receive(self) -> dict[str, Any]:
        await self.hangs_up.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.sent.append(dict(message))

    async def get(self, model: str | None = None, **headers: str) -> tuple[int, Any]:
        """Status and JSON."""
        pairs = {"host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}
        scope = {
            "type": "http",
            "headers": [(name.encode(), value.encode()) for name, value in pairs.items()],
            "path_params": {} if model is None else {"model": model},
        }
        await self._models(scope, self._receive, self._send)
        if self.sent[0]["status"] >= 400 and self.header(b"content-type") != b"application/json":
            return self.sent[0]["status"], self.sent[1]["body"]
        return self.sent[0]["status"], json.loads(self.sent[1]["body"])

    def header(self, name: bytes) -> bytes | None:
        return dict(self.sent[0]["headers"]).get(name)


async def test_the_list_holds_the_providers_models_and_the_names_of_the_settings() -> None:
    rig = Rig(Listed(), named=["economy", "gpt-4.1"])
    status, said = await rig.get()
    assert (status, said["object"]) == (200, "list")
    ours = {"object": "model", "created": 0, "owned_by": "penstock"}
    assert {model["id"]: model for model in said["data"]} == {
        "gpt-4.1": GOOD[0],  # the provider knows more of it than its name
        "ft:x/y": GOOD[1],
        "economy": {"id": "economy", **ours},
    }
    assert len(said["data"]) == 3
    assert rig.meter.seen == [("models", "bypass", 200)]


async def test_with_keys_the_list_holds_what_this_key_may_call() -> None:
    access = Access({digest(b"sk-a"): Grant("a", "a", ("econ*", "gpt-4.1")), digest(b"sk-b"): Grant("b", "b")})
    named = ["economy", "economy-2", "large"]
    _, said = await Rig(Listed(), named=named, access=access).get(authorization="Bearer sk-a")
    assert {model["id"] for model in said["data"]} == {"economy", "economy-2", "gpt-4.1"}
    _, said = await Rig(Listed(), named=named, access=access).get(authorization="Bearer sk-b")
    assert len(said["data"]) == 5
    for model, status in [("economy", 200), ("gpt-4.1", 200), ("large", 404), ("ft:x/y", 404)]:
        rig = Rig(Listed(), named=named, access=access)
        assert (await rig.get(model, authorization="Bearer sk-a"))[0] == status
    status, said = await Rig(Listed(), access=access).get()
    assert (status, said["error"]["code"]) == (401, "invalid_api_key")


@pytest.mark.parametrize("model", ["ft:x/y", "economy"])
async def test_one_model_is_told_by_its_name(model: str) -> None:
    status, said = await Rig(Listed(), named=["economy"]).get(model)
    assert (status, said["id"]) == (200, model)


async def test_a_model_that_is_not_there_is_404_in_openais_shape() -> None:
    rig = Rig(Listed())
    status, said = await rig.get("nope")
    assert (status, said["error"]["type"], said["error"]["param"]) == (404, "invalid_request_error", "model")
    assert rig.meter.seen == [("models", "refused", 404)]


@pytest.mark.parametrize("odd", [{}, {"object": "model"}, {"id": None}, {"id": ["a"]}, {"id": 5}])
async def test_an_odd_item_of_the_providers_list_spoils_nothing(odd: dict[str, Any]) -> None:
    status, said = await Rig(Listed(models=[odd, *GOOD]), named=["economy"]).get()
    assert status == 200
    assert {"gpt-4.1", "ft:x/y", "economy"} <= {str(model.get("id")) for model in said["data"]}


async def test_a_refusal_of_the_clients_own_key_is_passed_on_without_our_part() -> None:
    refusal = b'{"error":{"message":"Incorrect API key provided"}}'
    for model in (None, "economy"):
        rig = Rig(Listed(401, refusal, None), named=["economy"])
        assert await rig.get(model) == (401, json.loads(refusal))
        assert rig.meter.seen == [("models", "bypass", 401)]


async def test_a_provider_that_cannot_be_reached_is_said_in_our_words() -> None:
    rig = Rig(UpstreamConnectError("refused"))
    status, said = await rig.get()
    assert (status, said["error"]["code"]) == (502, "upstream_connect_error")
    assert rig.meter.seen == [("models", "bypass", 502)]


async def test_only_the_clients_account_is_handed_over() -> None:
    rig = Rig(Listed())
    await rig.get(authorization="Bearer a", openai_project="p", cookie="c", x_other="o", openai_beta="v2")
    assert rig.provider.accounts == [((b"authorization", b"Bearer a"), (b"openai-project", b"p"))]


@pytest.mark.parametrize("headers", [{"origin": "https://evil.example"}, {"host": "rebound.example"}])
async def test_a_page_elsewhere_may_not_look(headers: dict[str, str]) -> None:
    rig = Rig(Listed())
    status, said = await rig.get(**headers)
    assert (status, said["error"]["code"]) == (403, "forbidden")
    assert rig.provider.accounts == []


async def test_every_answer_has_an_id_of_ours() -> None:
    for rig in (Rig(Listed()), Rig(UpstreamConnectError("refused"))):
        await rig.get()
        found = rig.header(b"x-penstock-request-id")
        assert found is not None
        assert found.startswith(b"req_")
        assert rig.header(b"content-type") == b"application/json"


async def test_a_client_that_leaves_ends_the_call_and_gets_nothing() -> None:
    rig = Rig(None)
    asking = asyncio.ensure_future(rig.get())
    for _ in range(5):
        await asyncio.sleep(0)
    rig.hangs_up.set()
    with pytest.raises(IndexError):  # nothing was sent
        await asking
    assert rig.provider.given_up
    assert rig.meter.seen == [("models", "left", 499)]


async def test_a_providers_refusal_keeps_its_kind_and_the_headers_that_sdks_obey() -> None:
    theirs = ((b"x-request-id", b"req_theirs"), (b"retry-after", b"7"), (b"x-should-retry", b"false"))
    rig = Rig(Listed(429, b"slow down", None, b"text/plain", theirs))
    assert await rig.get() == (429, b"slow down")
    sent = rig.sent[0]["headers"]
    assert set(theirs) <= set(sent)
    assert rig.header(b"content-type") == b"text/plain"
    assert rig.header(b"content-security-policy") == b"sandbox"  # whatever it is, it is no page of ours
    assert rig.header(b"x-content-type-options") == b"nosniff"
    assert [name for name, _ in sent].count(b"x-request-id") == 1
    assert (rig.header(b"x-penstock-request-id") or b"").startswith(b"req_")


async def test_a_refusal_without_an_id_gets_ours() -> None:
    rig = Rig(Listed(500, b"{}", None))
    await rig.get()
    assert rig.header(b"x-request-id") == rig.header(b"x-penstock-request-id") is not None


async def test_a_failure_of_ours_is_no_client_that_left() -> None:
    rig = Rig(Listed(models=[{"id": "odd", "object": object()}]))
    with pytest.raises(TypeError):
        await rig.get()
    assert rig.meter.seen == [("models", "refused", 500)]


async def test_a_list_with_a_slash_at_its_end_is_no_model() -> None:
    rig = Rig(Listed())
    status, said = await rig.get("")
    assert (status, said["error"]["code"]) == (404, "not_found")
    assert rig.provider.accounts == []


async def test_a_refusal_that_quotes_the_operators_key_does_not_show_it() -> None:
    rig = Rig(Listed(429, b'{"error":{"message":"too much for sk-operator"}}', None))
    assert await rig.get() == (429, {"error": {"message": "too much for [key]"}})


@pytest.mark.parametrize("status", [404, 405, 501])
async def test_where_the_provider_has_no_list_the_names_of_the_settings_are_all_of_it(status: int) -> None:
    access = Access({digest(b"sk-a"): Grant("a", "a", ("econ*", "gpt-4.1"))})

    async def got(model: str | None = None) -> tuple[int, Any]:
        rig = Rig(Listed(status, b"no such path", None, b"text/plain"), named=["economy", "large"], access=access)
        found = await rig.get(model, authorization="Bearer sk-a")
        assert rig.header(b"content-type") == b"application/json"
        return found

    answered, said = await got()
    assert (answered, [each["id"] for each in said["data"]]) == (200, ["economy"])
    assert [(await got(model))[0] for model in ("economy", "large", "gpt-4.1")] == [200, 404, 404]


async def test_where_neither_the_provider_nor_the_settings_name_a_model_the_provider_says_so() -> None:
    rig = Rig(Listed(404, b"no such path", None, b"text/plain"))
    assert await rig.get() == (404, b"no such path")


@pytest.mark.parametrize("status", [400, 401, 403, 429, 500, 503])
async def test_no_other_refusal_is_papered_over_with_the_names_of_the_settings(status: int) -> None:
    refusal = b'{"error":{"message":"no"}}'
    for model in (None, "economy"):
        assert await Rig(Listed(status, refusal, None), named=["economy"]).get(model) == (status, json.loads(refusal))


async def test_a_provider_that_answers_with_something_else_than_a_list_does_not_hide_our_names() -> None:
    page = UpstreamBadContentType("a page")
    status, said = await Rig(page, named=["economy"]).get()
    assert (status, [model["id"] for model in said["data"]]) == (200, ["economy"])
    assert (await Rig(page).get())[0] == 502  # of none of which there is nothing to say
