"""Keys, and what nobody may see without one; and a clock that cannot be trusted."""

import asyncio
import hashlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.servers import started
from bench.soak.answers import error_code, is_good
from bench.soak.lab import Lab, Proxy, becomes, chat, local, ms
from bench.soak.limits import key_table
from bench.soak.wire import Call, answered, finished, sent_at_once
from proxy.core.access import Grant
from proxy.ledger.keys import create_key, revoke_key

ROUNDS = 20
SOON = 1.0  # seconds in which a key is revoked
INSTANT = "sim-instant;chunks=3"
DAY = 86_400

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
PATHS = (
    "/v1/chat/completions", "/chat/completions", "/openai/deployments/a/chat/completions", "/v1/models", "/v1/models/a",
    "/v1/files", "/v1/embeddings", "/v1/responses", "/v1/mirror/x", "/admin/keys", "/admin/keys/pk_0", "/admin/spend",
    "/admin/flights", "/admin/cache", "/chat/stream", "/console/figures", "//livez/../v1/models", "/v1//models",
    "/v1/livez", "/livez/v1/models",
    "/v1/models;/livez", "/v1/models%2e%2e/livez", "/admin%2fkeys", "/admin/../livez/../admin/keys",
)  # fmt: skip
ANSWERED = ("/livez", "/readyz", "/metrics")  # without a key, on loopback


async def revoked(lab: Lab) -> str:
    """T3."""
    lab.steps(ROUNDS)
    took: list[float] = []
    with TemporaryDirectory() as directory:
        data = Path(directory)
        with lab.proxy(settings=f'auth = "none"\n{key_table("old", "expires = 2020-01-01")}', data=data) as proxy:
            for number in range(ROUNDS):
                took.append(await _revoked(lab, proxy, data, f"team-{number}"))
                lab.step()
            shown = ["sk-old", "sk-nobody", "", "sk-penstock-" + "a" * 43, hashlib.sha256(b"sk-old").hexdigest(), "a b"]
            calls = [await answered(proxy.port, chat(INSTANT, "?", key=key)) for key in shown]
            lab.expect({call.status for call in calls} == {401}, f"statuses {[call.status for call in calls]}")
            lab.expect(len({bytes(call.body) for call in calls}) == 1, "refusals differ")
        kept = b"".join(_kept(data).values())
        lab.expect(b"sk-penstock-" not in kept, "a key's secret is on the disk")
    lab.expect(max(took) <= SOON, f"a revoked key was answered for {max(took):.2f} s")
    return f"refused {ms(sorted(took)[len(took) // 2])} after it was revoked, at most {ms(max(took))}"


async def _revoked(lab: Lab, proxy: Proxy, data: Path, name: str) -> float:
    """Seconds for which a key goes on to be answered."""
    _, secret = await asyncio.to_thread(create_key, data, Grant(name), now=time.time())

    async def is_in_force() -> bool:
        return (await answered(proxy.port, chat(INSTANT, "?", key=secret))).status == 200

    async def is_refused() -> bool:
        return not await is_in_force()

    lab.expect(await becomes(is_in_force, SOON) <= SOON, "a new key was not in force in a second")
    await asyncio.to_thread(revoke_key, data, name, now=time.time())
    return await becomes(is_refused, 5.0)


async def untold(lab: Lab) -> str:
    """T4: what clients, providers and operators keep to themselves is nowhere but in the cache, which holds answers."""
    lab.steps(2)
    secrets = {name: f"planted-{name}-0123456789" for name in ("client", "provider", "admin", "prompt", "header")}
    settings = f'api_key_env = "PROVIDER"\nbreaker_failures = 0\n[server]\nadmin_key_env = "ADMIN"\n{_key_of("CLIENT")}'
    environ = {"PROVIDER": secrets["provider"], "ADMIN": secrets["admin"], "CLIENT": secrets["client"]}
    with TemporaryDirectory() as directory:
        data = Path(directory)
        with lab.proxy(settings=settings, data=data, environ=environ, warns=True) as proxy:
            calls = await _tell(proxy, secrets)
            lab.step()
            places = {"the metrics": str(await proxy.metrics()).encode(), "the log": proxy.log.read_bytes()}
            places |= {"an error": b"".join(bytes(call.body) for call in calls if call.status >= 400)}
        places |= _kept(data)
        for where, text in places.items():
            for name, secret in secrets.items():
                lab.expect(secret.encode() not in text, f"the secret of the {name} is in {where}")
        lab.step()
    size = sum(map(len, places.values()))
    return f"{len(calls)} calls with 5 secrets; {len(places)} places looked through, {size:,} bytes"


def _kept(data: Path) -> dict[str, bytes]:
    """What the files of a data directory hold, but for the answers."""
    files = [path for path in data.rglob("*") if path.is_file() and "cache" not in path.relative_to(data).parts[:1]]
    return {path.name: path.read_bytes() for path in files}


def _key_of(variable: str) -> str:
    return f'[[keys]]\nname = "team"\nkey_env = "{variable}"\npassthrough = ["files", "mirror"]\n'


async def _tell(proxy: Proxy, secrets: dict[str, str]) -> list[Call]:
    faults = ("", ";status=500", ";status=401", ";cut=1", ";reset=1", ";error=0", ";malformed=1", ";nousage", ";html")
    said = (f"x-secret: {secrets['header']}", f"x-penstock-route: {secrets['header']}")
    requests = [
        chat(f"{INSTANT}{fault}", f"{secrets['prompt']} {number}", stream=number % 2 == 0, key=key, more=more)
        for number, fault in enumerate(faults * 12)
        for key in (secrets["client"], f"{secrets['client']}x")
        for more in ((), said)
    ]
    found: list[Call] = []
    for begin in range(0, len(requests), 50):
        calls = await sent_at_once(proxy.port, requests[begin : begin + 50])
        await finished(calls)
        found += calls
    return found


async def asked_for_a_key(lab: Lab) -> str:
    """T5."""
    settings = f'api_key_env = "PROVIDER"\n[server]\nadmin_key_env = "ADMIN"\n{key_table("team")}'
    requests = list(_without_key())
    lab.steps(1)
    with lab.proxy(settings=settings, environ={"PROVIDER": "sk-provider", "ADMIN": "sk-admin"}) as proxy:
        before = await lab.asked()
        for begin in range(0, len(requests), 50):
            calls = await sent_at_once(proxy.port, [request for _, request in requests[begin : begin + 50]])
            await finished(calls)
            for (what, _), call in zip(requests[begin:], calls, strict=False):
                lab.expect(call.status in (400, 401, 403, 404, 405), f"{what}: {call.status}")
        lab.expect(await lab.asked() == before, "the provider was asked")
        for path in ANSWERED:
            call = await answered(
                proxy.port, f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
            )
            lab.expect(call.status == 200, f"{path}: {call.status}")
    with TemporaryDirectory() as directory:
        config = _written(
            directory, '[providers.sim]\nbase_url = "http://127.0.0.1:1/v1"\n[server]\nadmin_key_env = "EMPTY"'
        )
        told = await asyncio.create_subprocess_exec(
            *("env", "EMPTY=", sys.executable, "-m", "proxy", "serve", "--config", str(config)),
            stderr=asyncio.subprocess.PIPE,
        )
        _, words = await told.communicate()
        lab.expect(told.returncode == 78 and b"server.admin_key_env" in words, "an empty admin key was taken")
    lab.step()
    return f"{len(requests)} requests without a key, none answered"


def _written(directory: str, settings: str) -> Path:
    config = Path(directory, "penstock.toml")
    config.write_text(settings + "\n", encoding="utf-8")
    return config


def _without_key() -> Iterator[tuple[str, bytes]]:
    for path in PATHS:
        for method in METHODS:
            for shown in ("", "Authorization: Bearer sk-nobody\r\n", "api-key: \r\n"):
                head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{shown}Content-Type: application/json\r\n"
                yield f"{method} {path}", f"{head}Content-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode()


async def jumped(lab: Lab) -> str:
    """S6."""
    lab.steps(5)
    price = '[models."m"]\nupstream = "sim-instant;chunks=3"\nprice = { input = "0", output = "1000" }\n'
    keys = key_table("team", 'budget = { usd = "0.1", per = "day" }') + key_table("free")
    provider = f'[providers.sim]\nbase_url = "{local(lab.simulator.port)}"\nauth = "none"\n'
    with TemporaryDirectory() as directory:
        here = Path(directory)
        config, file = (
            _written(directory, f'[log]\nrequests = false\n[data]\ndirectory = "{here}/data"\n{provider}{price}{keys}'),
            here / "clock",
        )
        _jump_by(file, 0)
        with started("bench.soak.jumping", str(file), "serve", "--config", str(config), "--port", "0") as running:
            return await _jump(lab, Proxy(running, here / "log"), file)


def _jump_by(file: Path, seconds: float) -> None:
    file.write_text(str(seconds), encoding="ascii")


async def _jump(lab: Lab, proxy: Proxy, file: Path) -> str:
    """The budget is for a few calls a day, and hits cost nothing."""
    now = time.time()
    into_day = now % DAY

    async def ask(question: str) -> Call:
        return await answered(proxy.port, chat("m", question, key="sk-team", more=("x-stainless-retry-count: 0",)))

    async def spend() -> int:
        """How many calls are answered until the budget is used up."""
        count = 0
        while (call := await ask(lab.question())).status == 200:
            count += 1
        lab.expect(error_code(call) == "insufficient_quota", f"refused with {error_code(call)}")
        return count

    lab.expect(is_good(await ask("kept")), "an answer was not whole")
    spent = [await spend()]
    lab.step()
    for offset in (-DAY, 3 * 3600 - into_day - DAY, 0, DAY, 0, DAY, -7 * DAY):
        _jump_by(file, offset)
        spent.append(await spend())
        call = await ask("kept")
        age = int(call.headers.get("age", "-1"))
        lab.expect(call.status == 200 and age >= 0, f"a hit after a jump by {offset:.0f} s: {call.status}, age {age}")
    lab.step()
    anew = [number for number, count in enumerate(spent) if count]
    lab.expect(anew == [0, 4], f"the window turned at {anew[1:]}, not once, at the first day that is new")
    _jump_by(file, 0)
    slow = asyncio.ensure_future(
        answered(proxy.port, chat("sim-instant;gap=0.1;chunks=20", lab.question(), key="sk-free"))
    )
    lab.step()
    for offset in (3600, -3600, 10 * DAY, 0):
        await asyncio.sleep(0.3)
        _jump_by(file, offset)
    lab.step()
    call = await slow
    lab.expect(is_good(call), f"a stream during jumps: {call.status}")
    lab.step()
    return f"calls a window: {spent}; hits' ages never negative"
