"""Providers that cannot be reached: tried once more, nothing is sent, and everybody is told so at once."""

import asyncio
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from bench.soak.answers import error_code, is_good, is_stream
from bench.soak.lab import UNBROKEN, Lab, Proxy, chat, local, ms, timed
from bench.soak.provider import Provider, bound, good
from bench.soak.wire import answered

CALLS = 40
PAUSE = 0.02  # seconds after the first try, when a provider comes back; the second comes up to 0.1 s after the first
RESOLVER = 2.0  # seconds
SAVED = CALLS // 4  # of so many calls the second try comes later than PAUSE, or something is wrong
CA = """
[ca]
default_ca = a
[a]
database = {0}/index
serial = {0}/serial
new_certs_dir = {0}
default_md = sha256
policy = p
x509_extensions = x
[p]
commonName = supplied
[x]
subjectAltName = DNS:localhost
basicConstraints = CA:true
"""


async def unreachable(lab: Lab) -> str:
    """U1."""
    lab.steps(5 * CALLS)
    seen = [await _closed(lab), await _nameless(lab), await _back_in_time(lab)]
    if shutil.which("openssl") is None:
        lab.expect(held=False, otherwise="no openssl to make certificates with")
        return "; ".join(seen)
    with tempfile.TemporaryDirectory() as directory:
        seen.append(await _untrusted(lab, certificate(Path(directory, "self"), ("200101000000Z", "491231235959Z"))))
        seen.append(await _expired(lab, certificate(Path(directory, "past"), ("200101000000Z", "200201000000Z"))))
    return "; ".join(seen)


async def _closed(lab: Lab) -> str:
    with bound() as nobody, lab.proxy(settings=UNBROKEN, upstream=nobody.getsockname()[1], warns=True) as proxy:
        worst = await _all_refused(lab, proxy, "upstream_connect_error", "a closed port")
        await lab.all_quiet(proxy)
    return f"a closed port: {CALLS} answers, the slowest after {ms(worst)}"


async def _nameless(lab: Lab) -> str:
    settings = f'{UNBROKEN}\nconnect_timeout = "{RESOLVER:g}s"'
    with lab.proxy(upstream="http://provider.invalid/v1", settings=settings, warns=True) as proxy:
        # How long a name takes is the resolver's affair, up to the time for a connection.
        worst = await _all_refused(lab, proxy, "upstream_connect_error", "an unknown host", 2 * RESOLVER + 1)
    return f"an unknown host: the slowest after {ms(worst)}"


async def _all_refused(lab: Lab, proxy: Proxy, code: str, what: str, within: float = 1.0) -> float:
    """Streamed and JSON in turn; seconds that the slowest took."""
    worst = 0.0
    for number in range(CALLS):
        stream = number % 2 == 0
        call, took = await timed(answered(proxy.port, chat("sim-instant", lab.question(), stream=stream)))
        said = f"{what}: status {call.status}, {call.headers.get('content-type')}, code {error_code(call)}"
        lab.expect(call.status == 502 and not is_stream(call) and error_code(call) == code, said)
        lab.expect(took < within, f"{what}: refused after {ms(took)}")
        worst = max(worst, took)
        lab.step()
    return worst


async def _back_in_time(lab: Lab) -> str:
    """A provider that listens again between the first try and the second."""
    saved = 0
    listener = bound()
    port = listener.getsockname()[1]
    with lab.proxy(settings=UNBROKEN, upstream=port, warns=True) as proxy:
        for _ in range(CALLS):
            asked = asyncio.ensure_future(answered(proxy.port, chat("sim-instant", lab.question())))
            await asyncio.sleep(PAUSE)
            async with Provider(good, listener=listener) as provider:
                call = await asked
                lab.expect(provider.connections == is_good(call), f"{provider.connections} more tries")
            lab.expect(is_good(call) or call.status == 502, f"back after {ms(PAUSE)}: status {call.status}")
            saved += is_good(call)
            lab.step()
            listener = bound(port)
    listener.close()
    lab.expect(saved >= SAVED, f"only {saved} of {CALLS} calls were tried once more")
    return f"back after {ms(PAUSE)}: {saved} of {CALLS} calls were answered at the second try"


async def _untrusted(lab: Lab, made: Path) -> str:
    return f"self-signed: {await _refused_tls(lab, made, {})}"


async def _expired(lab: Lab, made: Path) -> str:
    return f"expired: {await _refused_tls(lab, made, {'SSL_CERT_FILE': str(made)})}"


async def _refused_tls(lab: Lab, made: Path, environ: Mapping[str, str]) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made)
    async with Provider(good, tls=context) as provider:
        url = local(provider.port).replace("http://127.0.0.1", "https://localhost")
        with lab.proxy(settings=UNBROKEN, upstream=url, warns=True, environ=environ) as proxy:
            worst = await _all_refused(lab, proxy, "upstream_tls_error", made.parent.name)
    tried = provider.connections
    lab.expect(tried == 2 * CALLS, f"{made.parent.name}: {tried} connections for {CALLS} calls")
    lab.expect(not provider.requests, f"{made.parent.name}: something was sent")
    return f"{tried} connections for {CALLS} calls, nothing sent, the slowest after {ms(worst)}"


def certificate(directory: Path, dates: tuple[str, str]) -> Path:
    """A self-signed certificate for localhost, valid from and until, with its key, in one file."""
    directory.mkdir()
    config, key, wish, made = (directory / name for name in ("config", "key.pem", "wish.pem", "made.pem"))
    config.write_text(CA.format(directory), encoding="ascii")
    (directory / "index").touch()
    (directory / "serial").write_text("01", encoding="ascii")
    _openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-keyout", key, "-out", wish)
    common = ("ca", "-batch", "-notext", "-config", config, "-selfsign", "-keyfile", key)
    _openssl(*common, "-in", wish, "-out", made, "-startdate", dates[0], "-enddate", dates[1])
    made.write_bytes(made.read_bytes() + key.read_bytes())
    return made


def _openssl(*arguments: str | Path) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, timeout=30, check=False)
    if done.returncode:
        raise RuntimeError(f"openssl: {done.stderr.decode()[-200:]}")
