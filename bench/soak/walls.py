"""What no request can make Penstock do: call elsewhere, carry one client's cookies to another's call, serve a page."""

import msgspec

from bench.soak.answers import Json, cache, error_code, error_of, is_good
from bench.soak.hostile import HOST, JSON, KEY, request
from bench.soak.lab import SOON, Lab, Proxy
from bench.soak.provider import Provider, Silent, Step, good, whole
from bench.soak.wire import Call, answered, exchanged, parsed

TIMES = 20
NAMES = (
    *("base_url", "api_base", "baseURL", "baseUrl", "base-url", "api_url", "url", "endpoint", "host", "server"),
    *("azure_endpoint", "openai_api_base", "custom_llm_provider", "proxy", "http_proxy", "upstream", "provider"),
    *("webhook", "callback_url", "redirect", "location", "target", "destination", "x-base-url", "litellm_params"),
)
HEADERS = (
    *("Base-Url", "X-Base-Url", "Api-Base", "X-Api-Base", "OpenAI-Base-Url", "X-OpenAI-Base-Url", "X-Upstream"),
    *("X-Target-Url", "X-Endpoint", "X-Forwarded-Host", "X-Forwarded-Server", "X-Host", "X-Original-Url", "Forwarded"),
    *("X-Rewrite-Url", "X-Proxy", "Proxy", "Referer", "X-Penstock-Base-Url", "X-Penstock-Provider", "Location"),
    *("X-Portkey-Custom-Host", "Helicone-Target-Url", "Helicone-OpenAI-Api-Base", "X-HTTP-Host-Override", "Via"),
)


class Asker:
    """Asks one proxy, in front of the simulator, and sees where the call went."""

    def __init__(self, lab: Lab, proxy: Proxy) -> None:
        self._lab = lab
        self.proxy = proxy
        self.tried = 0

    async def ask(self, *lines: str, said: Json | None = None, path: str = "/v1/chat/completions") -> Call:
        """A good question, with these header lines and members besides."""
        self.tried += 1
        message = {"role": "user", "content": self._lab.question()}
        body = msgspec.json.encode({"model": "sim-instant", "messages": [message], **(said or {})})
        hosts = () if any(line.startswith("Host:") for line in lines) else (HOST,)
        length = f"Content-Length: {len(body)}"
        sent = request(*hosts, JSON, KEY, *lines, length, "Connection: close", body=body, path=path)
        return await answered(self.proxy.port, sent)


async def nowhere_else(lab: Lab) -> str:
    """T6."""
    lab.steps(5)
    async with Silent() as elsewhere:
        address = f"http://127.0.0.1:{elsewhere.port}/v1"
        # What the environment says of proxies is meant for others.
        environ = dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "OPENAI_BASE_URL"), address)
        environ |= {"NO_PROXY": "", "no_proxy": ""}
        with lab.proxy(settings=SOON, environ=environ, warns=True) as proxy:
            before = await lab.asked()
            asker = Asker(lab, proxy)
            served = 0
            for way in (_by_members, _by_headers, _by_model, _by_target):
                served += await way(lab, asker, address)
                lab.expect(not elsewhere.touched, f"{way.__name__}: the listener was visited")
                lab.step()
            made = await lab.asked() - before
            lab.expect(made == served, f"{made} calls at the provider for {served} that were answered")
            await lab.all_quiet(proxy)
            lab.step()
    return (
        f"{asker.tried} tries, {served} answered by the provider of the settings, {elsewhere.touched} visits elsewhere"
    )


async def _by_members(lab: Lab, asker: Asker, address: str) -> int:
    """At the top, in what SDKs merge into a body, in a message, as a list."""
    for name in NAMES:
        for said in (
            {name: address},
            {"extra_body": {name: address}},
            {"metadata": {name: address}},
            {name: [address]},
        ):
            call = await asker.ask(said=said)
            lab.expect(is_good(call), f"{name} in a body: status {call.status}, {error_code(call)}")
    return 4 * len(NAMES)


async def _by_headers(lab: Lab, asker: Asker, address: str) -> int:
    bare = address.removeprefix("http://").removesuffix("/v1")
    for name in HEADERS:
        for value in (address, bare):
            call = await asker.ask(f"{name}: {value}")
            lab.expect(is_good(call), f"{name}: status {call.status}, {error_code(call)}")
    return 2 * len(HEADERS)


async def _by_model(lab: Lab, asker: Asker, address: str) -> int:
    """The provider is asked, and knows no such model."""
    models = (address, f"{address}/gpt", f"openai/{address}", "../../x", "//127.0.0.1/x", f"sim-instant@{address}")
    for model in models:
        call = await asker.ask(said={"model": model})
        lab.expect(call.status in (400, 404), f"model {model[:20]!r}…: status {call.status}")
    return len(models)


async def _by_target(lab: Lab, asker: Asker, address: str) -> int:
    """By the request's own target and Host: some are answered, by whom the settings say, others are refused."""
    bare = address.removeprefix("http://").removesuffix("/v1")
    chat = "/v1/chat/completions"
    targets = (
        f"http://{bare}{chat}",
        f"https://{bare}{chat}",
        f"//{bare}{chat}",
        f"{chat}?base_url={address}",
        f"{chat}#@{bare}",
        f"{chat}/../../../{bare}",
        f"/v1/{address}",
        f"@{bare}{chat}",
        f"/{bare}{chat}",
        f"{chat};{address}",
        f"/v1/models/{address}",
    )
    served = 0
    for target in targets:
        for line in (HOST, f"Host: {bare}", f"Host: localhost@{bare}"):
            call = await asker.ask(line, path=target)
            lab.expect(call.status in (200, 400, 403, 404, 405), f"{target}: status {call.status}")
            served += is_good(call)
    for method in ("CONNECT", "GET"):
        for target in (bare, address):
            asker.tried += 1
            with_head = f"{method} {target} HTTP/1.1\r\nHost: {bare}\r\nConnection: close\r\n\r\n".encode()
            call = await answered(asker.proxy.port, with_head)
            lab.expect(400 <= call.status < 500, f"{method} of another address: status {call.status}")
    return served


async def no_cookies(lab: Lab) -> str:
    """T10: over a name, since cookies of an address are kept nowhere; each client has a session of its own."""
    lab.steps(3)

    def answer(raw: bytes) -> list[Step]:
        """Like `good`, with a session for whoever asked; sometimes with a redirect, or a refusal, that sets one too."""
        number = len(provider.requests)
        cookies = (
            b"set-cookie: session=of-call-%d; Path=/" % number,
            b"set-cookie: other=of-call-%d; Path=/v1; HttpOnly; SameSite=None" % number,
            b"set-cookie2: old=of-call-%d" % number,
        )
        if raw.startswith(b"GET") or number % 5 == 2:
            return [whole(b"[]", *cookies)]
        if number % 5 == 3:
            return [whole(b"", *cookies, b"location: /v1/chat/completions", status=b"307 Moved")]
        if number % 5 == 4:
            return [whole(b'{"error": {}}', *cookies, status=b"401 Unauthorized")]
        return [step.replace(b"\r\n", b"\r\n" + b"\r\n".join(cookies) + b"\r\n", 1) for step in _one(good(raw))]

    async with Provider(answer) as provider:
        with lab.proxy(upstream=f"http://localhost:{provider.port}/v1", warns=True) as proxy:
            asker = Asker(lab, proxy)
            for number in range(10 * TIMES):
                said = {"stream": number % 2 == 0}
                call = await asker.ask(f"Cookie: session=of-client-{number}", said=said)
                back = [name for name, value in call.headers.items() if "cookie" in name or "of-call-" in value]
                lab.expect(not back, f"a client was told of {back}")
            lab.step()
            for path in ("/v1/models", "/v1/files", "/v1/files/a/content") * TIMES:
                lines = f"GET {path} HTTP/1.1", HOST, "Cookie: session=of-client", "Connection: close"
                call = await answered(proxy.port, "\r\n".join(lines).encode() + b"\r\n\r\n")
                back = [name for name, value in call.headers.items() if "cookie" in name or "of-call-" in value]
                lab.expect(not back, f"{path}: a client was told of {back}")
            lab.step()
            await lab.all_quiet(proxy)
        carried = [raw for raw in provider.requests if b"cookie" in raw.partition(b"\r\n\r\n")[0].lower()]
        lab.expect(not carried, f"{len(carried)} calls carried a cookie: {carried[:1]}")
        lab.expect(len(provider.requests) > 10 * TIMES, f"only {len(provider.requests)} calls")
        lab.step()
    return f"{len(provider.requests)} calls over a name, each answer sets cookies: {len(carried)} came back"


def _one(steps: list[Step]) -> list[bytes]:
    """An answer's bytes as one piece."""
    return [b"".join(step for step in steps if isinstance(step, bytes))]


FOREIGN = (
    *("https://evil.example", "http://localhost.evil.example", "http://127.0.0.1.evil.example", "null", "file://"),
    *("https://app.example.evil.example", "http://app.example", "https://app.example:8443", "https://APP.example/"),
    *(
        "http://localhost:3000",
        "http://[::1]",
        "chrome-extension://abcdef",
        "https://app.example, https://app.example",
        "",
    ),
)
ORIGIN = "https://app.example"
NOT_JSON = (
    *("text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"),
    *("text/json", "application/jsonx", "json", "", "text/plain; application/json", "application/octet-stream"),
)
OTHER_HOSTS = (
    *("evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "0.0.0.1"),
    *(
        "localhost@evil.example",
        "evil.example#localhost",
        "127.0.0.2",
        "169.254.169.254",
        "[::2]",
        "",
        "localhost, evil",
    ),
)
OUR_HOSTS = ("localhost", "localhost:8080", "127.0.0.1", "127.0.0.1:1", "[::1]", "[::1]:8080", "LOCALHOST")
PATHS = ("/v1/chat/completions", "/v1/embeddings", "/chat/completions", "/openai/deployments/m/chat/completions")


async def web_pages(lab: Lab) -> str:
    """T11."""
    lab.steps(5)
    with lab.proxy(settings=f'[server]\ncors_origins = ["{ORIGIN}"]') as proxy:
        before = await lab.asked()
        asker = Asker(lab, proxy)
        for origin in FOREIGN:
            for path in PATHS:
                await _refused(lab, asker, 403, f"Origin: {origin}", path=path)
            await _no_preflight(lab, asker, proxy, origin)
        lab.step()
        for host in OTHER_HOSTS:
            for path in PATHS:
                await _refused(lab, asker, 403, f"Host: {host}", path=path)
        lab.step()
        for media in NOT_JSON:
            await _not_json(lab, asker, proxy, media)
        lab.step()
        await _nothing_to_read(lab, asker, proxy)
        made = await lab.asked() - before
        lab.expect(made == 0, f"{made} calls upstream for a page elsewhere")
        lab.step()
        await _those_who_may(lab, asker)
        await lab.all_quiet(proxy)
        lab.step()
    return f"{asker.tried} tries of pages elsewhere and of our own, {made} calls upstream for the former"


async def _refused(lab: Lab, asker: Asker, status: int, *lines: str, path: str) -> None:
    for _ in range(TIMES):
        call = await asker.ask(*lines, path=path)
        error = error_of(call)
        what = f"{path} with {lines[0]!r}"
        lab.expect(call.status == status, f"{what}: status {call.status}, not {status}")
        lab.expect(error is not None and error["type"] == "invalid_request_error", f"{what}: not in OpenAI's shape")
        lab.expect("access-control-allow-origin" not in call.headers, f"{what}: the page may read it")


async def _no_preflight(lab: Lab, asker: Asker, proxy: Proxy, origin: str) -> None:
    asker.tried += 1
    asks = f"Origin: {origin}\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: content-type"
    head = f"OPTIONS /v1/chat/completions HTTP/1.1\r\n{HOST}\r\n{asks}\r\nConnection: close\r\n\r\n"
    call = await answered(proxy.port, head.encode())
    allowed = call.headers.get("access-control-allow-origin")
    lab.expect(allowed is None, f"preflight of {origin!r}: {allowed!r} is allowed")
    lab.expect(call.status >= 400, f"preflight of {origin!r}: status {call.status}")


async def _not_json(lab: Lab, asker: Asker, proxy: Proxy, media: str) -> None:
    """What a form of a page can send without asking first."""
    body = b'{"model": "sim-instant", "messages": [{"role": "user", "content": "from a form"}]}'
    lines = [f"Content-Type: {media}"] if media else []
    for _ in range(TIMES):
        asker.tried += 1
        sent = request(HOST, KEY, *lines, f"Content-Length: {len(body)}", "Connection: close", body=body)
        call = await answered(proxy.port, sent)
        lab.expect(call.status == 415, f"Content-Type {media!r}: status {call.status}, not 415")


async def _nothing_to_read(lab: Lab, asker: Asker, proxy: Proxy) -> None:
    """Nor do models, metrics and unknown paths tell a page elsewhere anything."""
    for line in (f"{HOST}\r\nOrigin: https://evil.example", "Host: evil.example"):
        for path in ("/v1/models", "/v1/models/sim-instant", "/metrics"):
            asker.tried += 1
            call = await answered(proxy.port, f"GET {path} HTTP/1.1\r\n{line}\r\nConnection: close\r\n\r\n".encode())
            lab.expect(call.status == 403, f"{path} for a page elsewhere: status {call.status}")
    asker.tried += 1
    call = parsed(await exchanged(proxy.port, b"POST /v1/chat/completions HTTP/1.0\r\nContent-Length: 0\r\n\r\n"))
    lab.expect(call.status in (400, 403), f"without a Host: status {call.status}")


async def _those_who_may(lab: Lab, asker: Asker) -> None:
    for host in OUR_HOSTS:
        call = await asker.ask(f"Host: {host}")
        lab.expect(is_good(call) and cache(call) == "miss", f"Host {host!r}: status {call.status}")
    call = await asker.ask(f"Origin: {ORIGIN}")
    allowed = call.headers.get("access-control-allow-origin")
    lab.expect(
        is_good(call) and allowed == ORIGIN, f"an Origin that is named: status {call.status}, {allowed!r} may read"
    )
