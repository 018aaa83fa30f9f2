"""The commands. The only reader of argv and of the environment."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from proxy import __version__
from proxy.checks import check_host, namesakes
from proxy.core.access import Guard, digest, meant_keys
from proxy.core.dialect import BY_NAME, CHAT
from proxy.core.purges import EVERYTHING, Selection
from proxy.errors import PenstockError, StartupError
from proxy.reading import load_settings, read_settings, read_since
from proxy.settings import Log, Settings

if TYPE_CHECKING:
    from rich.console import Console

    from proxy.batch.command import Own
    from proxy.ledger.sums import By
    from proxy.report import Format

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
    clients = client_keys(settings)
    api_keys, guard = _api_keys(settings), guard_of(settings, clients)
    from proxy import serving  # noqa: PLC0415 - the other commands start without it

    serving.run(lambda log: serving.serve(settings, api_keys, clients, guard, log), settings.log)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=8090, show_default=True, help="0 takes any free one.")
def simulator(host: str, port: int) -> None:
    """Run the built-in provider: OpenAI-compatible, deterministic, no network, no key.

    GET /simulator/calls says what it was asked. A model's name, or the header x-simulator, may carry behaviour on
    demand, such as "sim-small;first=0.5;gap=0.02", "sim-small;status=503" or "sim-small;stall=2;comments=1".
    Everything under /v1/mirror/ says what came; GET /v1/mirror/bytes/N sends N bytes.
    """
    from proxy import serving  # noqa: PLC0415 - the other commands start without it

    serving.run(lambda _: serving.simulate(host, port), Log(format="text"))


@main.command("check-config")
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
def check_config(file: Path) -> None:
    """Read FILE as `serve --config` would, and say what is wrong with it. Keys in its data directory count."""
    from proxy.ledger.keys import list_keys  # noqa: PLC0415 - the other commands start without it

    settings = load_settings(file)
    with _of_keys():
        kept = list_keys(settings.data.directory)
    try:
        check_host(settings, {row.id: row.revoked is None for row in kept})
    except StartupError as error:
        raise StartupError(f"{file}: {error}") from None
    named = [(_key_path(name), variable) for name, variable in _key_names(settings)]
    named += [(f"keys[{index}].key_env", key.key_env) for index, key in enumerate(settings.keys) if key.key_env]
    named += _guard_names(settings)
    missing = [f"{path}: ${variable}" for path, variable in named if not os.environ.get(variable, "").strip()]
    providers = ", ".join(f"{name} ({provider.base_url})" for name, provider in settings.providers.items())
    click.echo(f"{file}: good. Providers: {providers}.")
    for route in settings.routes:
        click.echo(
            f"route {route}: {', '.join(settings.route_models(route))}; baseline {settings.route_baseline(route)}"
        )
    for line in settings.notices():
        click.echo(f"note: {line}")
    for line in missing:
        click.echo(f"note: {line} is not set in this shell; `serve` needs it.")
    names = {row.id: row.name for row in kept if row.revoked is None}
    for line in (*settings.doubts(), *namesakes(settings, names)):
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
@click.option("--key", metavar="NAME|ID", help="Only the answers that this key's requests led to.")
@click.option("--model", metavar="NAME", help="Only those of this model; with --config, our name for it will do.")
@click.option("--request", metavar="ID", help="Only the one that this request got, by its x-penstock-request-id.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def purge(
    config: Path | None, data_dir: Path | None, key: str | None, model: str | None, request: str | None, yes: bool
) -> None:
    """Forget every answer, or those that are named. A running proxy obeys within a second."""
    from proxy.store.maintenance import purge_cache  # noqa: PLC0415 - the other commands start without it

    directory = _directory(config, data_dir)
    what, selection = "every answer", EVERYTHING
    if sum(each is not None for each in (key, model, request)) > 1:
        raise click.UsageError("name one of --key, --model and --request.")
    if key is not None:
        ids = _ids(directory, config, key)
        what, selection = f"the answers of key {key!r}", Selection("key", ids)
    if model is not None:
        named = load_settings(config).models.get(model) if config is not None else None
        upstream = (named.upstream if named is not None else None) or model
        what, selection = f"the answers of model {model!r}", Selection("model", tuple({model, upstream}))
    if request is not None:
        what, selection = f"the answer to {request!r}", Selection("entry", (_entry_of(directory, request).hex(),))
    if not yes:
        click.confirm(f"Forget {what} in {directory}?", abort=True)
    click.echo(f"{purge_cache(directory, selection)} answers forgotten.")


def _ids(directory: Path, config: Path | None, key: str) -> tuple[str, ...]:
    """Of whoever has had that name, or has that id."""
    from proxy.keys import known_keys  # noqa: PLC0415 - the other commands start without it

    with _of_keys():
        return tuple(each.grant.id for each in meant_keys(known_keys(directory, _optional(config)), key))


def _entry_of(directory: Path, request: str) -> bytes:
    """Under which key a request's answer is kept."""
    from proxy.ledger.entries import entry_of  # noqa: PLC0415 - the other commands start without it

    try:
        found = entry_of(directory, request)
    except OSError as error:
        raise StartupError(f"data.directory: the ledger cannot be read: {error}") from None
    if found is None:
        raise click.ClickException(f"no kept answer to a request {request!r} is known in {directory}.")
    return found


@main.group()
def keys() -> None:
    """Keys that clients show to this proxy. Safe while one runs: it follows within a second."""


@keys.command()
@click.argument("name")
@click.option("--models", metavar="A,B", help='Models and routes that it may name; "gpt-*" are all that begin so.')
@click.option("--passthrough", metavar="A,B", help="What else of /v1/ it may use, such as files,audio.")
@click.option("--requests-per-minute", type=int)
@click.option("--tokens-per-minute", type=int)
@click.option("--max-concurrent", type=int, help="Requests at once.")
@click.option("--budget", metavar="USD/PER", help="Such as 50/month; or per day, week (from Monday) or in total. UTC.")
@click.option("--expires", metavar="WHEN", help="Such as 30d; 2027-01-31 is the last day (UTC) on which it is good.")
@_config
@_data_dir
def create(name: str, config: Path | None, data_dir: Path | None, **asked: Any) -> None:
    """Make a key and show its secret, alone on stdout, this once. Only its hash is kept.

    It is kept in the ledger of the data directory that --config or --data-dir names, which must be the proxy's.
    """
    from proxy.keys import create_key, read_budget  # noqa: PLC0415 - the other commands start without it

    for each in ("models", "passthrough"):
        asked[each] = [word.strip() for word in asked[each].split(",")] if asked[each] is not None else None
    asked["budget"] = read_budget(asked["budget"]) if asked["budget"] is not None else None
    said = {"name": name} | {each: value for each, value in asked.items() if value is not None}
    directory = _directory(config, data_dir)
    with _of_keys():
        made, secret, doubts = create_key(directory, _optional(config), said, now=time.time())
    for line in doubts:
        click.echo(f"note: {line}", err=True)
    click.echo(
        f"Key {name} ({made.grant.id}) is made in {directory}: the proxy of that directory takes it. "
        f"Nobody can tell its secret again:",
        err=True,
    )
    click.echo(secret)
    click.echo("An OpenAI SDK shows it as its api_key (OPENAI_API_KEY), with this proxy as its base_url.", err=True)


@keys.command("list")
@_config
@_data_dir
def keys_list(config: Path | None, data_dir: Path | None) -> None:
    """List every key that was ever made, and with --config those of the settings. Exit 1 if there is none."""
    from proxy.keys import known_keys, list_keys  # noqa: PLC0415 - the other commands start without it

    with _of_keys():
        known = known_keys(_directory(config, data_dir), _optional(config))
    sys.exit(list_keys(known, _console(), now=time.time()))


@keys.command("show")
@click.argument("key", metavar="NAME|ID")
@_config
@_data_dir
def keys_show(key: str, config: Path | None, data_dir: Path | None) -> None:
    """Tell what one key may do. Its secret nobody can tell."""
    from proxy.keys import known_keys, show_key  # noqa: PLC0415 - the other commands start without it

    with _of_keys():
        known = known_keys(_directory(config, data_dir), _optional(config))
        show_key(known, _console(), key, now=time.time())


@keys.command()
@click.argument("key", metavar="NAME|ID")
@_config
@_data_dir
def revoke(key: str, config: Path | None, data_dir: Path | None) -> None:
    """Refuse a key from now on, for ever. A running proxy obeys within a second."""
    from proxy.keys import revoke_key  # noqa: PLC0415 - the other commands start without it

    with _of_keys():
        revoked = revoke_key(_directory(config, data_dir), _optional(config), key, now=time.time())
    click.echo(f"Key {revoked.grant.name} ({revoked.grant.id}) is revoked.")


@contextmanager
def _of_keys() -> Iterator[None]:
    """What goes wrong with keys, for the person at the terminal."""
    try:
        yield
    except OSError as error:
        raise StartupError(f"data.directory: the ledger's keys cannot be used: {error}") from None
    except PenstockError as error:
        raise click.ClickException(error.message) from None


@main.command()
@click.option(
    "--since", default="7d", show_default=True, help="So long ago, as 12h or 30d; or a UTC day, as 2026-11-01."
)
@click.option(
    "--by", type=click.Choice(["key", "model", "provider", "day", "outcome"]), default="key", show_default=True
)
@click.option("--format", "form", type=click.Choice(["table", "csv", "json"]), default="table", show_default=True)
@click.option("--shadow", is_flag=True, help="What the cache would have answered and saved, of shadow mode's requests.")
@_config
@_data_dir
def report(since: str, by: "By", form: "Format", shadow: bool, config: Path | None, data_dir: Path | None) -> None:
    """Sum up what the ledger says was asked, spent and saved. Safe while a proxy runs. Exit 1 if there is no ledger."""
    from proxy.report import report as run  # noqa: PLC0415 - the other commands start without it

    moment = read_since(since, now=time.time())
    try:
        code = run(_directory(config, data_dir), _console(), since=moment, by=by, format=form, shadow=shadow)
    except OSError as error:
        raise StartupError(f"data.directory: the ledger cannot be read: {error}") from None
    sys.exit(code)


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
@click.option("--key", metavar="NAME|ID", help="As the client with this key would ask it.")
@click.option(
    "-H", "--header", "headers", multiple=True, metavar="NAME:VALUE", help="With a header, such as x-penstock-route."
)
@click.option(
    "--endpoint",
    type=click.Choice(list(BY_NAME)),
    default=CHAT.name,
    show_default=True,
    help="What it is a request to.",
)
@_data_dir
def explain(
    request: IO[bytes], config: Path, key: str | None, headers: tuple[str, ...], endpoint: str, data_dir: Path | None
) -> None:
    """Rank who would answer the request in the file REQUEST (-: from stdin), and say why. Asks no provider.

    What a proxy has learned so far, its keys and what they spent is read from its data directory; one that is running
    writes what it learned down each second.
    """
    from proxy.explain import explain as run  # noqa: PLC0415 - the other commands start without it
    from proxy.offers import price_table  # noqa: PLC0415 - the same

    settings = load_settings(config, _overrides(None, None, data_dir))
    said = dict(_header(each) for each in headers)
    raw = request.read()
    with _of_keys():
        code = run(raw, settings, price_table(settings), _console(), key=key, headers=said, endpoint=endpoint)
    sys.exit(code)


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
@click.argument("requests", type=click.Path(path_type=Path, dir_okay=False))
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="The file of the results.")
@_config
@click.option("--upstream", metavar="URL", help="The provider's base URL, in place of settings.")
@click.option("--proxy", metavar="URL", help="Ask the proxy that runs there, in place of settings.")
@click.option("--key-env", metavar="NAME", help="The variable that holds your key. [default: OPENAI_API_KEY]")
@click.option("--concurrency", type=click.IntRange(1, 500), default=16, show_default=True, help="Requests at once.")
@click.option("--dry-run", is_flag=True, help="Ask nobody and write nothing: say what it would cost.")
@_data_dir
def batch(
    requests: Path, output: Path | None, key_env: str | None, concurrency: int, dry_run: bool, **how: Any
) -> None:
    """Ask every request in the file REQUESTS, which is in OpenAI's format of a batch: a JSON object a line.

    They go through the whole machinery, cache and limits included. May be stopped at any time, and started again: what
    was answered is not asked again. Afterwards the output has a line for each line of REQUESTS, in their order, and no
    other; results in it of requests that are no longer there are moved to a file of the same name with .old. Exit 1 if
    a line has an error, 130 if it was stopped.

    \b
    penstock batch requests.jsonl -o results.jsonl --config penstock.toml
    penstock batch requests.jsonl -o results.jsonl --proxy http://127.0.0.1:8080
    """
    from proxy.batch.stopping import NOBODY_ASKED, TO_GO_ON, stoppable  # noqa: PLC0415 - what follows takes long

    with stoppable(NOBODY_ASKED if dry_run else TO_GO_ON):
        from proxy.batch import command  # noqa: PLC0415 - the other commands start without it

        for name, path in (("REQUESTS", requests), ("--output", output)):
            if path == Path("-"):
                raise StartupError(f"{name}: - stands for no file here: name one, as it is read more than once.")
        key = os.environ.get(key_env or "OPENAI_API_KEY", "").strip() or None
        if key_env is not None and key is None:
            raise StartupError(f"--key-env: the environment variable {key_env} is not set.")
        if dry_run:
            if how["proxy"] is not None:
                raise StartupError("--dry-run: it asks nobody, so name the settings of that proxy with --config.")
            run = partial(command.dry_run, requests, output, _own(how, asking=False))
        elif output is None:
            raise click.UsageError("name the file of the results with --output.")
        else:
            where = _own(how) if how["proxy"] is None else _there(how)
            run = partial(command.run_batch, requests, output, where, concurrency=concurrency)
        code = run(key=key, console=_console())
    sys.exit(code)


def _own(how: dict[str, Any], *, asking: bool = True) -> "Own":
    """A proxy as `serve` would run it. `asking`: it needs its providers' keys. Raises StartupError."""
    from proxy.batch.command import Own  # noqa: PLC0415 - the other commands start without it

    if (how["config"] is None) == (how["upstream"] is None):
        others = ", or --proxy URL, where a proxy runs" if asking else ""
        raise StartupError(f"say who is asked, by one of these: --config FILE, or --upstream URL{others}.")
    settings = _settings(how["config"], how["upstream"], _overrides(None, None, how["data_dir"]))
    return Own(settings, _api_keys(settings) if asking else {}, client_keys(settings))


def _there(how: dict[str, Any]) -> str:
    """The address of a proxy that runs."""
    if any(how[name] is not None for name in ("config", "upstream", "data_dir")):
        raise StartupError("--proxy: that proxy has settings and data of its own; name no others.")
    return str(how["proxy"])


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
            known = bytes.fromhex(key.key_sha256 or "")
        else:
            known = digest(_secret(f"keys[{index}].key_env", key.key_env, "this key").encode())
        if known in found.values():
            raise StartupError(f"keys[{index}]: {key.name!r} is the same key as another one's.")
        found[key.name] = known
    return found


def _guard_names(settings: Settings) -> list[tuple[str, str]]:
    """(path, the environment variable that holds a key of those who run the proxy)."""
    named = {f"server.{name}_key_env": getattr(settings.server, f"{name}_key_env") for name in ("admin", "metrics")}
    return [(path, variable) for path, variable in named.items() if variable is not None]


def guard_of(settings: Settings, client_keys: dict[str, bytes]) -> Guard:
    """The keys of those who run the proxy. Raises StartupError: one is empty, or a client has it too."""
    found = {
        path: digest(_secret(path, name, "a key of your own choice").encode()) for path, name in _guard_names(settings)
    }
    for path, each in found.items():
        if each in client_keys.values():
            raise StartupError(
                f"{path}: one of [[keys]] is the same key; a client's key never opens what this one does."
            )
    return Guard(admin=found.get("server.admin_key_env"), metrics=found.get("server.metrics_key_env"))


def _secret(path: str, variable: str, what: str) -> str:
    value = os.environ.get(variable, "").strip()
    if not value:
        raise StartupError(f"{path}: the environment variable {variable} is not set; put {what} there.")
    return value
