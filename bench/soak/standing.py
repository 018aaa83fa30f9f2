"""What must stand whatever else falls: the checks of whoever runs Penstock."""

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.soak.lab import Lab, Proxy, chat, ms, timed
from bench.soak.provider import Silent, bound
from bench.soak.wire import answered, kept, sent_at_once

CHECKS = 1000
WAITING = 50
SETTLED = 0.5  # seconds in which what was begun before has opened its files
FAST = 0.1  # seconds
PATHS = ("/livez", "/readyz")


async def checks(lab: Lab) -> str:
    """O3: with a provider that is silent, dead, frozen; with the data directory gone."""
    lab.steps(4)
    words = []
    with tempfile.TemporaryDirectory() as directory:
        data = Path(directory, "data")
        async with Silent() as provider:
            with lab.proxy(upstream=provider.port, data=data, warns=True) as proxy:
                words.append(await _checked(lab, proxy, "nobody asked"))
                lab.expect(not provider.touched, f"the checks called the provider {provider.touched} times")
                lab.step()
                shutil.rmtree(data)
                words.append(await _checked(lab, proxy, "data directory gone"))
                lab.step()
    with bound() as dead, lab.proxy(upstream=dead.getsockname()[1], warns=True) as proxy:
        failed = await answered(proxy.port, chat("m", lab.question()))
        lab.expect(failed.status == 502, f"a dead provider: status {failed.status}")
        words.append(await _checked(lab, proxy, "provider dead"))
        lab.step()
    with lab.proxy() as proxy:
        with _frozen(lab.simulator.pid):
            waiting = await sent_at_once(proxy.port, [chat("sim-instant", lab.question()) for _ in range(WAITING)])
            words.append(await _checked(lab, proxy, f"{WAITING} calls at a frozen provider"))
            for call in waiting:
                call.leave()
        await lab.all_quiet(proxy)
        lab.step()
    return "; ".join(words)


async def _checked(lab: Lab, proxy: Proxy, when: str) -> str:
    """Each path many times: always 200, at once, without a file more than before."""
    worst = 0.0
    await asyncio.sleep(SETTLED)
    files = proxy.running.open_files()
    connection = await kept(proxy.port)
    for path in PATHS:
        for _ in range(CHECKS):
            _, took = await timed(connection.ask(f"GET {path} HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n".encode()))
            worst = max(worst, took)
            lab.expect(connection.status == 200, f"{when}: {path} says {connection.status}")
    opened = proxy.running.open_files() - files - 1  # the connection
    lab.expect(opened <= 0, f"{when}: {opened} files were opened")
    connection.leave()
    lab.expect(worst < FAST, f"{when}: a check took {ms(worst)}")
    return f"{when}: all 200, the slowest after {1000 * worst:.1f} ms"


@contextmanager
def _frozen(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
