"""The processes that listen until they are told to end: the proxy, and the simulator."""

import logging
import resource
import socket
from collections.abc import Callable, Coroutine

import click
import uvloop

from proxy import __version__
from proxy.core.access import Guard
from proxy.errors import StartupError
from proxy.logs import RequestLog, logged
from proxy.server import Server
from proxy.settings import Log, Settings
from proxy.settings import Server as ServerSettings
from proxy.wire import Bounds

SPARE_FILES = 64  # for the data directory, the log and whatever else


def run(work: Callable[[RequestLog], Coroutine[None, None, None]], log: Log) -> None:
    """Run to the end on uvloop, logging to stderr."""
    with logged(log) as told:
        uvloop.run(work(told))


async def serve(
    settings: Settings, api_keys: dict[str, str], client_keys: dict[str, bytes], guard: Guard, log: RequestLog
) -> None:
    """The proxy. Raises StartupError."""
    from proxy.app import build_app  # noqa: PLC0415 - the simulator starts without it

    host, port = settings.server.host, settings.server.port
    bounds = bounds_of(settings.server)
    if bounds.connections < settings.server.max_connections:
        told = "server.max_connections: this process may open files for %d only; see ulimit -n"
        logging.getLogger("penstock").warning(told, bounds.connections)
    for line in settings.notices():
        logging.getLogger("penstock").info(line)
    requests = log if settings.log.requests else None
    async with build_app(settings, api_keys=api_keys, client_keys=client_keys, guard=guard, log=requests) as app:
        app.meter.watch_one("log_dropped", lambda: log.dropped)
        with _bound(host, port) as listener:
            ready, refused = _ready("Penstock"), app.refused
            server = Server(
                app.asgi, host=host, port=port, drain=app.drain, ready=ready, bounds=bounds, on_refused=refused
            )
            app.meter.watch_one("connections", lambda: server.connections)
            await server.serve(sockets=[listener])


def bounds_of(server: ServerSettings) -> Bounds:
    """What one client may take up. Allows this process as many open files as it can have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    files = most if most != resource.RLIM_INFINITY else 1 << 20
    return Bounds(
        headers=server.max_headers,
        head=server.max_header_size,
        head_timeout=server.head_timeout,
        send_timeout=server.send_timeout,
        connections=min(server.max_connections, max(1, files // 2 - SPARE_FILES)),  # each may need one upstream
    )


async def simulate(host: str, port: int) -> None:
    """The built-in provider. Raises StartupError."""
    from proxy.simulator import build_simulator  # noqa: PLC0415 - the proxy starts without it

    with _bound(host, port) as listener:
        ready = _ready("Penstock's simulator")
        await Server(build_simulator(), host=host, port=port, drain=_nothing, ready=ready).serve(sockets=[listener])


def _ready(name: str) -> Callable[[str], None]:
    return lambda url: click.echo(f"{name} {__version__} listens on {url}/v1")


def _bound(host: str, port: int) -> socket.socket:
    """Bound here, not by the server: that one ends the process whatever is wrong, with its own words in the log."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        why = (error.strerror or str(error)).partition(" (while")[0]  # the address once is enough
    except ValueError as error:  # no name of a host
        why = str(error)
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    raise StartupError(f"server.host, server.port: cannot listen on {where}: {why}.")


async def _nothing() -> None:
    """The simulator has nothing to drain."""
