"""The commands. The only reader of argv and of the environment."""

import logging
import os
import resource
import socket
import sys
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import IO, TYPE_CHECKING

import click

from proxy import __version__
from proxy.errors import StartupError
from proxy.reading import load_settings, read_settings
from proxy.settings import Server as ServerSettings
from proxy.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

    from proxy.wire import Bounds

SPARE_FILES = 64  # for the data directory, the log and whatever else
EX_CONFIG = 78  # sysexits.h: something is wrong with the configuration


class _Group(click.Group):
    """Turns a StartupError of any command into its one line."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except StartupError as error:
            click.echo(f"penstock: {error}", err=True)
            sys.exit(EX_CONFIG)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="penstock")
def main() -> None:
    """Penstock: a caching and cost-optimizing proxy for OpenAI-compatible streaming APIs.

    An application changes its base_url to http://127.0.0.1:8080/v1; nothing else.
    """


_config = click.option("--config", type=click.Path(path_type=Path, dir_okay=False), help="Settings, a TOML file.")
_data_dir = click.option("--data-dir", type=click.Path(path_type=Path, file_okay=False), help="[default: .penstock]")


@main.command()
@_config
@click.option("--upstream", metavar="URL", help="The provider's base URL; each client's own key is used.")
@click.option("--host", help="[default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="0 takes any free one. [default: 8080]")
@_data_dir
def serve(config: Path | None, upstream: str | None, host: str | None, port: int | None, data_dir: Path | None) -> None:
    """Run the proxy until SIGTERM or Ctrl-C.

    \b
    penstock serve --upstream https://api.openai.com/v1
    penstock serve --config penstock.toml
    """
    settings = _settings(config, upstream, _overrides(host, port, data_dir))
    _run(_serve(settings, _api_keys(settings), client_keys(settings)))


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="0 takes any free one.")
def simulator(host: str, port: int) -> None:
    """Run the built-in provider: OpenAI-compatible, deterministic, no network, no key.

    GET /simulator/calls says what it was asked. A model's name, or the header x-simulator, may carry behaviour on
    demand, such as "sim-small;first=0.5;gap=0.02", "sim-small;status=503" or "sim-small;stall=2;comments=1".
    Everything under /v1/mirror/ says what came; GET /v1/mirror/bytes/N sends N bytes.
    """
    _run(_simulate(host, port))


@main.command("check-config")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def check_config(file: Path) -> None:
    """Read FILE as `serve --config` would, and say what is wrong with it."""
    settings = load_settings(file)
    named = [(_key_path(name), variable) for name, variable in _key_names(settings)]
    named += [(f"keys[{index}].key_env", key.key_env) for index, key in enumerate(settings.keys) if key.key_env]
    missing = [f"{path}: ${variable}" for path, variable in named if variable not in os.environ]
    providers = ", ".join(f"{name} ({provider.base_url})" for name, provider in settings.providers.items())
    click.echo(f"{file}: good. Providers: {providers}.")
    for route in settings.routes:
        click.echo(
            f"route {route}: {', '.join(settings.route_models(route))}; baseline {settings.route_baseline(route)}"
        )
    for line in missing:
        click.echo(f"note: {line} is not set in this shell; `serve` needs it.")
    for line in settings.doubts():
        click.echo(f"note: {line}")


@main.group()
def cache() -> None:
    """Look at or empty the answer cache of a data directory. Safe while a proxy runs on it."""


@cache.command()
@_config
@_data_dir
def stats(config: Path | None, data_dir: Path | None) -> None:
    """Say how many answers are on the disk, and how large they are."""
    from proxy.store.maintenance import cache_stats  # noqa: PLC0415 - the other commands start without it

    found = cache_stats(_directory(config, data_dir))
    click.echo(f"entries  {found.entries}\nbytes    {found.bytes}")


@cache.command()
@_config
@_data_dir
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(config: Path | None, data_dir: Path | None, yes: bool) -> None:
    """Forget every answer. A running proxy obeys within a second."""
    from proxy.store.maintenance import purge_cache  # noqa: PLC0415 - the other commands start without it

    directory = _directory(config, data_dir)
    if not yes:
        click.confirm(f"Forget every answer in {directory}?", abort=True)
    click.echo(f"{purge_cache(directory)} answers forgotten.")


@main.group()
def prices() -> None:
    """What models cost, in USD per million tokens, and where each number is from."""


@prices.command("list")
@_config
@click.argument("words", nargs=-1)
def list_(config: Path | None, words: tuple[str, ...]) -> None:
    """List the models whose provider and name hold all WORDS."""
    from proxy.offers import price_table  # noqa: PLC0415 - the other commands start without it
    from proxy.prices import list_prices  # noqa: PLC0415 - the same

    sys.exit(list_prices(price_table(_optional(config)), _console(), words=words))


@prices.command()
@_config
@click.argument("model")
def show(config: Path | None, model: str) -> None:
    """Tell everything that is known of MODEL, each number with its source and day."""
    from proxy.offers import price_table  # noqa: PLC0415 - the other commands start without it
    from proxy.prices import show_prices  # noqa: PLC0415 - the same

    settings = _optional(config)
    sys.exit(show_prices(price_table(settings), _console(), model, settings))


@prices.command()
@click.option("--config", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Settings, a TOML file.")
def check(config: Path) -> None:
    """Say which models of the settings have no price, an old one, or one that changes. Exit 1 if one has none."""
    from proxy.offers import price_table  # noqa: PLC0415 - the other commands start without it
    from proxy.prices import check_prices  # noqa: PLC0415 - the same

    settings = load_settings(config)
    today = datetime.now(UTC).date()
    sys.exit(check_prices(price_table(settings), _console(), settings, today=today))


def _optional(config: Path | None) -> Settings | None:
    return None if config is None else load_settings(config)


def _console() -> "Console":
    from rich.console import Console  # noqa: PLC0415 - the other commands start without it

    console = Console()
    if not console.is_terminal:
        console.width = 160  # a pipe has no edge at which to fold
    return console


@main.command()
@click.argument("request", type=click.File("rb"))
@click.option("--config", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Settings, a TOML file.")
@click.option("--key", metavar="NAME", help="As the client with this one of [[keys]] would ask it.")
@click.option(
    "-H", "--header", "headers", multiple=True, metavar="NAME:VALUE", help="With a header, such as x-penstock-route."
)
@_data_dir
def explain(request: IO[bytes], config: Path, key: str | None, headers: tuple[str, ...], data_dir: Path | None) -> None:
    """Rank who would answer the chat completion in the file REQUEST (-: from stdin), and say why. Asks no provider.

    What a proxy has learned so far is read from its data directory; one that is running writes it down each second.
    """
    from proxy.explain import explain as run  # noqa: PLC0415 - the other commands start without it
    from proxy.offers import price_table  # noqa: PLC0415 - the same

    settings = load_settings(config, _overrides(None, None, data_dir))
    said = dict(_header(each) for each in headers)
    sys.exit(run(request.read(), settings, price_table(settings), _console(), key=key, headers=said))


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise StartupError(f"--header: {text!r} is no header; write NAME:VALUE.")
    return name.strip(), value.strip()


@main.command()
@click.argument("trace", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--config", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Settings, a TOML file.")
@click.option("--route", metavar="NAME", help="The route whose models may answer. [default: the only one]")
@click.option("--limit", type=click.IntRange(min=1), help="Only so many rows.")
@click.option(
    "--block", type=click.IntRange(min=1), help="Tokens in a block of prefix_ids. [default: told by the file]"
)
def simulate(trace: Path, config: Path, route: str | None, limit: int | None, block: int | None) -> None:
    """Tell what the calls in the log TRACE would have cost, before anything is changed. Asks no provider.

    Side by side: the route's baseline always, the cheapest model per token, Penstock's ranking, and that with the
    answer cache. TRACE is a CSV file with the columns t_seconds, kind, input_tokens, output_tokens, prefix_ids, session
    and turn; equal prefix_ids stand for an equal beginning of a prompt, a block of tokens each (`4-9` for a run).
    """
    from proxy.offers import price_table  # noqa: PLC0415 - the other commands start without it
    from proxy.simulate.report import run_simulate  # noqa: PLC0415 - the same

    settings = load_settings(config)
    table = price_table(settings)
    sys.exit(run_simulate(trace, settings, table, _console(), route=route, limit=limit, block=block))


@main.command()
@click.option("--serve", "keep_running", is_flag=True, help="Keep simulator and proxy running afterwards.")
def demo(keep_running: bool) -> None:
    """Show the main job on the simulator: calls asked and paid, first-token time, cost. Needs no key and no network."""
    from proxy.demo import run_demo  # noqa: PLC0415 - the other commands start without it

    sys.exit(run_demo(keep_running=keep_running))


def _overrides(host: str | None, port: int | None, data_dir: Path | None) -> dict[str, dict[str, object]]:
    """What the command line says over the file, as the file would say it."""
    server: dict[str, object] = {"host": host, "port": port}
    return {
        "server": {name: value for name, value in server.items() if value is not None},
        "data": {} if data_dir is None else {"directory": str(data_dir)},
    }


def _settings(config: Path | None, upstream: str | None, overrides: dict[str, dict[str, object]]) -> Settings:
    if (config is None) == (upstream is None):
        raise StartupError("give either --upstream URL, or --config FILE. `penstock demo` needs neither.")
    if config is not None:
        return load_settings(config, overrides)
    table = {"providers": {"upstream": {"base_url": upstream}}}
    return read_settings(table, source="--upstream", overrides=overrides)


def _directory(config: Path | None, data_dir: Path | None) -> Path:
    if data_dir is not None:
        return data_dir
    return load_settings(config).data.directory if config is not None else Path(".penstock")


def _key_names(settings: Settings) -> list[tuple[str, str]]:
    """(provider, the environment variable that holds its key)."""
    return [
        (name, provider.api_key_env)
        for name, provider in settings.providers.items()
        if provider.api_key_env and provider.effective_auth == "key"
    ]


def _key_path(provider: str) -> str:
    return f"providers.{provider}.api_key_env"


def _api_keys(settings: Settings) -> dict[str, str]:
    """By provider. Raises StartupError."""
    return {name: _secret(_key_path(name), variable, "the provider's key") for name, variable in _key_names(settings)}


def client_keys(settings: Settings) -> dict[str, bytes]:
    """The SHA-256 of each of [[keys]], by its name. Raises StartupError."""
    found: dict[str, bytes] = {}
    for index, key in enumerate(settings.keys):
        if key.key_env is None:
            digest = bytes.fromhex(key.key_sha256 or "")
        else:
            digest = sha256(_secret(f"keys[{index}].key_env", key.key_env, "this key").encode()).digest()
        if digest in found.values():
            raise StartupError(f"keys[{index}]: {key.name!r} is the same key as another one's.")
        found[key.name] = digest
    return found


def _secret(path: str, variable: str, what: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value:
        raise StartupError(f"{path}: the environment variable {variable} is not set; put {what} there.")
    return value


def _run(work: Coroutine[None, None, None]) -> None:
    """Run to the end on uvloop, logging to stderr."""
    import uvloop  # noqa: PLC0415 - the other commands start without it

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", level=logging.INFO)
    for chatty in ("httpx", "uvicorn.error", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    uvloop.run(work)


async def _serve(settings: Settings, api_keys: dict[str, str], client_keys: dict[str, bytes]) -> None:
    from proxy.app import build_app  # noqa: PLC0415 - the other commands start without it
    from proxy.server import Server  # noqa: PLC0415 - the same

    host, port = settings.server.host, settings.server.port
    bounds = bounds_of(settings.server)
    if bounds.connections < settings.server.max_connections:
        told = "server.max_connections: this process may open files for %d only; see ulimit -n"
        logging.getLogger("penstock").warning(told, bounds.connections)
    async with build_app(settings, api_keys=api_keys, client_keys=client_keys) as app:
        with _bound(host, port) as listener:
            ready, refused = _ready("Penstock"), app.refused
            server = Server(
                app.asgi, host=host, port=port, drain=app.drain, ready=ready, bounds=bounds, on_refused=refused
            )
            app.meter.connections.set_function(lambda: server.connections)
            await server.serve(sockets=[listener])


def bounds_of(server: ServerSettings) -> "Bounds":
    """What one client may take up. Allows this process as many open files as it can have."""
    from proxy.wire import Bounds  # noqa: PLC0415 - the other commands start without it

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


async def _simulate(host: str, port: int) -> None:
    from proxy.server import Server  # noqa: PLC0415 - the other commands start without it
    from proxy.simulator import build_simulator  # noqa: PLC0415 - the same

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
