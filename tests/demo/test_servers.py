"""Real processes, each ended by its own Popen."""

import os
import signal
from contextlib import suppress
from pathlib import Path

import httpx
import pytest

from proxy.demo.client import DemoError
from proxy.demo.servers import Server, server

SIMULATOR = ["simulator", "--port", "0"]


async def test_a_server_listens_while_the_context_lasts_and_is_gone_after_it(tmp_path: Path) -> None:
    with server("the simulator", SIMULATOR, tmp_path) as running:
        url = await running.url()
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(f"{url}/models")).status_code == 200
        running.check()
    assert running.process.poll() == 0
    with pytest.raises(ProcessLookupError):
        os.kill(running.process.pid, 0)


async def test_a_server_ends_with_an_error_in_its_context(tmp_path: Path) -> None:
    started: list[Server] = []
    with suppress(KeyError), server("the simulator", SIMULATOR, tmp_path) as running:
        started.append(running)
        raise KeyError
    assert started[0].process.poll() is not None


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with server("the simulator", ["simulator", "--port", "99999"], tmp_path) as running:
        said = r"(?s)the simulator ended by itself \(exit 2\).*99999"
        with pytest.raises(DemoError, match=said):
            await running.url()


async def test_a_server_that_died_is_found_dead(tmp_path: Path) -> None:
    with server("the simulator", SIMULATOR, tmp_path) as running:
        await running.url()
        running.process.kill()
        running.process.wait()
        with pytest.raises(DemoError, match=r"ended by itself \(exit -9\)$"):
            running.check()


async def test_a_server_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.demo.servers.END_TIMEOUT", 0.1)
    with server("the simulator", SIMULATOR, tmp_path) as running:
        await running.url()
        running.process.send_signal(signal.SIGSTOP)  # what is stopped takes no SIGTERM
    assert running.process.returncode == -signal.SIGKILL


async def test_a_server_that_never_listens_is_not_waited_for_forever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.demo.servers.START_TIMEOUT", 0.0)
    with server("the simulator", SIMULATOR, tmp_path) as running:
        said = "did not start within 0 s"
        with pytest.raises(DemoError, match=said):
            await running.url()
