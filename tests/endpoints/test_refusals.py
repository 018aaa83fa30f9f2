"""What no endpoint answers is refused as any error is: OpenAI's shape, with an id, by the rules of HTTP."""

import asyncio

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from proxy.endpoints.refusals import Refusals
from proxy.entrance import EXPOSED
from proxy.errors import Forbidden
from proxy.ids import Ids
from tests.conftest import MakeProxy
from tests.support import CHAT, Proxy


async def _forbidden(_: Request) -> Response:
    raise Forbidden("no")


async def _broken(_: Request) -> Response:
    raise RuntimeError("a secret")


def refused(method: str, path: str, statuses: list[int] | None = None) -> httpx.Response:
    """What an application of ours answers. `statuses`: of what it refused."""
    routes = [Route("/here", _forbidden, methods=["GET", "PUT"]), Route("/broken", _broken)]
    told = [] if statuses is None else statuses
    app = Starlette(routes=routes, exception_handlers=Refusals(Ids(), told.append).handlers)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    async def ask() -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path)

    return asyncio.run(ask())


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("DELETE", "/here", 405, "method_not_allowed"),
        ("GET", "/here", 403, "forbidden"),
        ("GET", "/broken", 500, "internal_error"),
    ],
)
def test_every_refusal_has_openais_shape_and_an_id(method: str, path: str, status: int, code: str) -> None:
    statuses: list[int] = []
    answer = refused(method, path, statuses)
    assert statuses == [status]
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-penstock-request-id"].startswith("req_")
    assert answer.headers["x-request-id"] == answer.headers["x-penstock-request-id"]
    assert "a secret" not in answer.text


def test_another_method_is_told_which_there_are() -> None:
    assert refused("DELETE", "/here").headers["allow"] == "GET, HEAD, PUT"
    assert "allow" not in refused("GET", "/nowhere").headers


def test_the_proxy_refuses_with_these(proxy: Proxy) -> None:
    answer = proxy.http.get("/chat/completions")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert answer.headers["x-penstock-request-id"].startswith("req_")


def test_what_no_endpoint_saw_is_counted(make_proxy: MakeProxy) -> None:
    proxy = make_proxy()
    proxy.http.get("/nope")
    proxy.http.get("/chat/completions")
    for status in ("404", "405"):
        assert proxy.count("penstock_requests_total", endpoint="wire", outcome="refused", status=status) == 1


@pytest.mark.parametrize("path", ["/chat/completions/", "/metrics/", "/livez/", "/v1/models/"])
def test_a_slash_at_the_end_is_another_path_and_leads_nowhere(proxy: Proxy, path: str) -> None:
    answer = proxy.http.get(path)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
    assert "location" not in answer.headers


def test_a_page_may_reach_a_private_network_and_read_when_to_come_again(make_proxy: MakeProxy) -> None:
    page = "https://app.example"
    proxy = make_proxy(server={"cors_origins": [page]})
    asks = {"origin": page, "access-control-request-method": "POST", "access-control-request-private-network": "true"}
    preflight = proxy.http.options(CHAT, headers=asks)
    assert (preflight.status_code, preflight.headers["access-control-allow-private-network"]) == (200, "true")
    exposed = proxy.http.get("/v1/models", headers={"origin": page}).headers["access-control-expose-headers"]
    assert set(exposed.split(", ")) == set(EXPOSED.split())
    assert {"retry-after", "retry-after-ms", "x-should-retry", "x-ratelimit-reset-tokens"} <= set(exposed.split(", "))
