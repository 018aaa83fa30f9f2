"""One simulator behind a real port for all of these tests."""

import threading
import time
from collections.abc import Iterator

import httpx
import openai
import pytest
import uvicorn

from proxy.simulator import build_simulator


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    config = uvicorn.Config(
        build_simulator(), port=0, log_level="error", access_log=False, ws="none", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


# A client is slow to build (its TLS context), so there is one of each.
@pytest.fixture(scope="session")
def connected(address: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=address, timeout=10) as client:
        yield client


@pytest.fixture
def wire(connected: httpx.Client) -> httpx.Client:
    """The bare wire; what was counted before is forgotten."""
    connected.delete("/simulator/calls")
    return connected


@pytest.fixture(scope="session")
def client(address: str) -> Iterator[openai.OpenAI]:
    """The real SDK, one attempt per call."""
    with openai.OpenAI(api_key="sk-any", base_url=f"{address}/v1", max_retries=0, timeout=10) as sdk:
        yield sdk
