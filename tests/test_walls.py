"""Nothing that a request says chooses where a call goes, and what watches the proxy costs nobody anything.

Keys, cookies, planted files and pages elsewhere are in test_tenants.py.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from bench.soak.hostile import HOST, JSON, request
from bench.soak.wire import exchanged, parsed
from tests.conftest import MakeProxy
from tests.scripted import Wire, answer
from tests.support import CHAT, Json, Proxy, Silent, Simulator, ask, eventually, free_port

FORMS: dict[str, Json] = {"JSON": {}, "a stream": {"stream": True}}
PROBES = ("/livez", "/readyz")


@pytest.fixture
def silent() -> Iterator[Silent]:
    """An address at which nobody may call."""
    with Silent() as listener:
        yield listener
        assert not listener.heard()


def port(proxy: Proxy) -> int:
    return int(proxy.url.rpartition(":")[2])


# T6: the destination comes from the settings only.

MEMBERS = (
    *("base_url", "api_base", "api_url", "url", "endpoint", "host", "upstream", "azure_endpoint", "openai_base_url"),
    *("proxy", "http_proxy", "webhook", "callback_url"),
)
HEADERS = (
    *("x-base-url", "x-api-base", "x-upstream", "x-target-url", "x-openai-base-url", "x-original-url", "x-rewrite-url"),
    *("x-forwarded-host", "forwarded", "x-http-destinationurl", "x-penstock-upstream", "x-penstock-provider"),
    *("proxy-connection", "x-envoy-original-dst-host", "destination", "referer", "location"),
)


@pytest.mark.parametrize("form", FORMS)
def test_an_address_in_a_body_is_never_called(
    form: str, proxy: Proxy, simulator: Simulator, silent: Silent, prompt: str
) -> None:
    here = f"{silent.url}/v1"
    nested = [{name: here} for name in ("provider", "extra_body", "litellm_params", "options", "model_config")]
    bodies: list[Json] = [{name: here} for name in MEMBERS]
    bodies += [{"extra_headers": {"host": f"127.0.0.1:{silent.port}"}}, {"extra_body": nested}]
    bodies += [{name: dict.fromkeys(MEMBERS, here)} for name in ("provider", "extra_body", "litellm_params")]
    for number, members in enumerate(bodies):
        with Wire(proxy.url, ask(f"{prompt} {number}", **members, **FORMS[form])) as wire:
            assert wire.read_head().status == 200
            wire.read_body()
    assert simulator.asked() == len(bodies)


@pytest.mark.parametrize("name", HEADERS)
def test_an_address_in_a_header_is_never_called(
    name: str, proxy: Proxy, simulator: Simulator, silent: Silent, prompt: str
) -> None:
    host = f"127.0.0.1:{silent.port}"
    for number, value in enumerate((f"{silent.url}/v1", host, f"host={host};proto=http")):
        with Wire(proxy.url, ask(f"{prompt} {number}"), {name: value}) as wire:
            assert wire.read_head().status == 200
            wire.read_body()
    assert simulator.asked() == 3
    assert host not in json.dumps(simulator.last()["headers"])


def test_a_model_or_a_query_that_is_an_address_is_a_name_like_any_other(
    proxy: Proxy, simulator: Simulator, silent: Silent, prompt: str
) -> None:
    with Wire(proxy.url, ask(prompt, model=f"{silent.url}/v1/sim-instant")) as wire:
        assert wire.read_head().status == 404  # the provider's
        wire.read_body()
    path = f"{CHAT}?base_url={silent.url}&api_base={silent.url}&host=127.0.0.1:{silent.port}"
    with Wire(proxy.url, ask(prompt), path=path) as wire:
        assert wire.read_head().status == 200
        wire.read_body()
    assert simulator.asked() == 2


def test_what_a_message_points_to_is_not_fetched(
    proxy: Proxy, simulator: Simulator, silent: Silent, prompt: str
) -> None:
    image = {"type": "image_url", "image_url": {"url": f"{silent.url}/secret.png"}}
    file = {"type": "file", "file": {"file_data": f"{silent.url}/secret.pdf"}}
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": f"{silent.url}/schema.json"}}}
    for content in (image, file, {"type": "text", "text": silent.url}):
        message = {"role": "user", "content": [content, {"type": "text", "text": prompt}]}
        with Wire(proxy.url, {"model": "sim-instant", "messages": [message]}) as wire:
            assert wire.read_head().status == 200
            wire.read_body()
    with Wire(proxy.url, ask(prompt, response_format=schema)) as wire:
        wire.read_head().read_body()
    assert simulator.asked() == 4


TARGETS = (
    "http://127.0.0.1:{port}/v1/chat/completions",
    "HTTP://127.0.0.1:{port}/v1/chat/completions",
    "//127.0.0.1:{port}/v1/chat/completions",
    "127.0.0.1:{port}",
    "/http://127.0.0.1:{port}/",
    "/v1/http://127.0.0.1:{port}/",
    "/v1//127.0.0.1:{port}/x",
    "/v1/@127.0.0.1:{port}/x",
    "/v1/..//127.0.0.1:{port}/x",
    "/v1\\@127.0.0.1:{port}/x",
)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("method", ["POST", "GET", "CONNECT"])
async def test_an_address_in_the_request_line_is_never_called(
    method: str, target: str, proxy: Proxy, silent: Silent, prompt: str
) -> None:
    body = json.dumps(ask(prompt)).encode()
    raw = request(HOST, JSON, "Connection: close", f"Content-Length: {len(body)}", body=body)
    first = f"{method} {target.format(port=silent.port)} HTTP/1.1\r\n".encode()
    heard = await exchanged(port(proxy), first + raw.partition(b"\r\n")[2], within=10)
    assert 200 <= parsed(heard).status < 500


async def test_an_address_in_the_host_is_never_called(
    proxy: Proxy, simulator: Simulator, silent: Silent, prompt: str
) -> None:
    body = json.dumps(ask(prompt)).encode()
    host = f"Host: localhost:{silent.port}"
    raw = request(host, JSON, "Connection: close", f"Content-Length: {len(body)}", body=body)
    assert parsed(await exchanged(port(proxy), raw)).status == 200
    assert simulator.asked() == 1
    assert str(silent.port) not in simulator.last()["headers"]["host"]


# T10: no jar. Under the operator's key too, and whatever the answer is; by name, since no jar keeps an address's.


@pytest.mark.parametrize("options", ["", "status=429", "status=500;retry-after=0", "redirect=/v1/models", "stall=2"])
@pytest.mark.parametrize("key", [None, "sk-operator"])
def test_a_cookie_of_the_provider_reaches_no_client_and_no_later_call(
    key: str | None, options: str, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    named = simulator.base_url.replace("127.0.0.1", "localhost")
    proxy = make_proxy(named, key=key, provider={"idle_timeout": 0.1})
    for number in range(2):
        body = ask(f"{prompt} {number}", model=f"sim-instant;cookie=of-one-client;{options}", stream=True)
        with Wire(proxy.url, body, {"cookie": "sim=mine"}) as wire:
            wire.read_head().read_body()
            assert "set-cookie" not in wire.headers
        assert "cookie" not in simulator.last()["headers"]
    proxy.http.get("/v1/models", headers={"x-simulator": "cookie=of-one-client"})
    answer(proxy.url, ask(prompt))
    assert "cookie" not in simulator.last()["headers"]


# T11: what a page elsewhere may learn beforehand.


@pytest.mark.parametrize("origins", [[], ["https://app.example"]])
@pytest.mark.parametrize("path", [CHAT, "/chat/stream", "/v1/models", "/v1/files", "/metrics"])
def test_a_page_elsewhere_is_not_told_that_it_may_ask(
    path: str, origins: list[str], make_proxy: MakeProxy, simulator: Simulator
) -> None:
    proxy = make_proxy(server={"cors_origins": origins})
    asks = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    answers = [proxy.http.options(path, headers=asks), proxy.http.get(path, headers=asks)]
    for one in answers:
        assert one.status_code >= 400
        assert "access-control-allow-origin" not in one.headers
    assert simulator.asked() == 0


# T9: nothing that a request says becomes a label.


def junk(proxy: Proxy, number: int) -> list[int]:
    """What is answered to names and addresses that nobody knows, in all forms."""
    name = f"junk-{number}"
    said = {"messages": [{"role": "user", "content": name}], "model": name}
    bodies = [said, said | {"stream": True}, said | {"user": name}]
    answers = [proxy.http.post(CHAT, json=body, headers={"x-penstock-sample": str(number)}) for body in bodies]
    answers.append(proxy.http.post("/chat/stream", json=said))
    answers.append(proxy.http.post(CHAT, json=said, headers={"x-penstock-route": name}))
    answers.append(proxy.http.get(f"/v1/models/{name}"))
    answers.append(proxy.http.post(f"/v1/{name}/{name}", json=said))
    answers.append(proxy.http.get(f"/{name}"))
    return [one.status_code for one in answers]


def test_requests_for_what_nobody_knows_add_no_series_after_the_first(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy()
    statuses = junk(proxy, 0)
    first = proxy.metrics()
    assert statuses == [404, 404, 404, 404, 400, 404, 404, 404]
    for number in range(1, 51):
        assert junk(proxy, number) == statuses
    after = proxy.metrics()
    assert after.keys() == first.keys()
    assert not [name for name in after if "junk" in name.lower()]
    for name in ("penstock_requests_total", "penstock_attempts_total"):
        counts = [sum(value for each, value in found.items() if each.startswith(name)) for found in (first, after)]
        assert counts[1] == 51 * counts[0] > 0


# O3: probes.


def asked_of(proxy: Proxy) -> dict[str, float]:
    """All metrics that do not change by themselves."""
    by_themselves = ("process_", "penstock_event_loop_lag", "penstock_data_")
    return {name: value for name, value in proxy.metrics().items() if not name.startswith(by_themselves)}


def test_probes_ask_nobody_anything(make_proxy: MakeProxy, silent: Silent) -> None:
    proxy = make_proxy(f"{silent.url}/v1")
    before = asked_of(proxy)
    for path in PROBES * 20:
        found = proxy.http.get(path)
        assert found.status_code == 200
        assert found.headers.get("set-cookie") is None
    assert asked_of(proxy) == before


def test_a_provider_that_is_down_makes_nothing_unready(make_proxy: MakeProxy, prompt: str) -> None:
    proxy = make_proxy(f"http://127.0.0.1:{free_port()}/v1")
    for number in range(7):  # it fails, and then it is not asked any more
        assert proxy.http.post(CHAT, json=ask(f"{prompt} {number}")).status_code == (502 if number < 5 else 503)
        assert [proxy.http.get(path).status_code for path in PROBES] == [200, 200]


def test_probes_are_answered_while_every_answer_waits_for_its_provider(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(server={"max_flights": 3})
    with ExitStack() as stack, simulator.closed():
        wires = [stack.enter_context(Wire(proxy.url, ask(f"{prompt} {number}"))) for number in range(4)]
        eventually(lambda: proxy.count("penstock_requests_total", outcome="refused", status="503") == 1)
        for path in PROBES * 5:
            assert proxy.http.get(path).status_code == 200
    for wire in wires:
        wire.close()
