"""Every setting is optional, documented, checked, and an error names its path."""

import re
import tomllib
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from pricing.models import Capability
from pricing.table import Table as Prices
from proxy.checks import check_host, namesakes
from proxy.core.access import UNLIMITED, Allowance, Grant, Limits
from proxy.errors import StartupError
from proxy.ledger.opening import database
from proxy.reading import load_settings, read_new_key, read_settings, read_since
from proxy.settings import Key, Model, Provider, Route, Seconds, Settings, Size

EXAMPLE = Path(__file__).resolve().parent.parent / "penstock.example.toml"
URL = "https://api.example.org/v1"

Table = dict[str, Any]


def read(table: Table | None = None, *, provider: Table | None = None, overrides: Table | None = None) -> Settings:
    """Settings with one provider, whose table may say more."""
    said = {"providers": {"p": {"base_url": URL} | (provider or {})}} | (table or {})
    return read_settings(said, source="file", overrides=overrides)


def refused(table: Table | None = None, *, provider: Table | None = None) -> str:
    """What is said of settings that are refused."""
    with pytest.raises(StartupError) as caught:
        read(table, provider=provider)
    return str(caught.value)


NO_LIMITS = {"requests_per_minute": None, "tokens_per_minute": None, "max_concurrent": None}


def plain(value: object) -> object:
    """A size or a time as a number, a path as a text."""
    return int(value) if isinstance(value, Size) else float(value) if isinstance(value, Seconds) else str(value)


def test_the_defaults_are_those_of_the_design() -> None:
    settings = read()
    assert msgspec.to_builtins(settings, enc_hook=plain) == {
        "server": {
            "host": "127.0.0.1",
            "port": 8080,
            "max_body": 32 * 1024**2,
            "max_headers": 100,
            "max_header_size": 32 * 1024,
            "head_timeout": 20.0,
            "body_timeout": 60.0,
            "send_timeout": 120.0,
            "max_connections": 8192,
            "max_flights": 2000,
            "max_readers": 10_000,
            "max_buffered": 512 * 1024**2,
            "drain": 30.0,
            "cors_origins": (),
            "forward_headers": ("OpenAI-Beta",),
            "cost_comment": False,
            "admin_key_env": None,
            "metrics_key_env": None,
        },
        "data": {"directory": ".penstock"},
        "cache": {
            "mode": "on",
            "sampled": "cache",
            "ignore": ("user", "metadata", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
            "remote_media": False,
            "size_limit": 2 * 1024**3,
            "memory_limit": 256 * 1024**2,
            "ttl": 7 * 86400.0,
            "max_entry": 32 * 1024**2,
            "shared": False,
            "replay": "instant",
            "on_abandon": "cancel",
            "stale_if_error": 0.0,
        },
        "ledger": {"retention": 400 * 86400.0},
        "providers": {
            "p": {
                "base_url": URL,
                "auth": None,
                "api_key_env": None,
                "connect_timeout": 10.0,
                "first_event_timeout": 600.0,
                "idle_timeout": 300.0,
                "total_timeout": 3600.0,
                "max_event": 1024**2,
                "usage": "ask",
                "endpoints": None,
                "max_retries": 2,
                "breaker_failures": 5,
                "queue_timeout": 60.0,
                **NO_LIMITS,
            }
        },
        "models": {},
        "log": {"format": "auto", "requests": True, "level": "info"},
        "routing": {"default_provider": None, "tiers": (), "default_model": None},
        "routes": {},
        "keys": (),
    }
    assert settings.default_provider == "p"
    assert settings.server.loopback


def test_a_model_and_a_route_say_little_by_default() -> None:
    settings = read({"models": {"m": {}}, "routes": {"r": {"models": ["m", "n"]}}})
    assert msgspec.to_builtins(settings.models["m"]) == {
        "provider": None,
        "upstream": None,
        "tier": None,
        "price": {},
        "window": None,
        "max_output": None,
        "can": (),
        "cannot": (),
        "verbosity": 1.0,
        **NO_LIMITS,
    }
    assert msgspec.to_builtins(settings.routes["r"]) == {
        "models": ("m", "n"),
        "min_tier": None,
        "baseline": None,
        "retry_lost": False,
        "sampled": None,
    }


@pytest.mark.parametrize(
    ("said", "size"),
    [
        (1048576, 1 << 20),
        ("1024B", 1024),
        ("64KiB", 64 << 10),
        ("32 MiB", 32 << 20),
        ("1.5GiB", 3 << 29),
        ("2TiB", 2 << 40),
        ("2KB", 2000),
        ("5MB", 5_000_000),
        ("1GB", 10**9),
        ("999999999999B", 999_999_999_999),
    ],
)
def test_a_size_is_bytes_or_says_its_unit(said: object, size: int) -> None:
    found = read({"cache": {"max_entry": said}}).cache.max_entry
    assert (found, type(found)) == (size, Size)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        (90, 90.0),
        (0.5, 0.5),
        (0, 0.0),
        ("0s", 0.0),
        ("90s", 90.0),
        ("250ms", 0.25),
        ("15m", 900.0),
        ("12h", 43200.0),
        ("7d", 604800.0),
        ("1.5 h", 5400.0),
    ],
)
def test_a_time_is_seconds_or_says_its_unit(said: object, seconds: float) -> None:
    found = read({"cache": {"ttl": said}}).cache.ttl
    assert (found, type(found)) == (seconds, Seconds)


NEITHER = [
    -1,
    "-1",
    "",
    " ",
    "nan",
    "1e3",
    ".5",
    "1.",
    "1_000",
    "٣s",
    "1  s",
    "5 s ",
    "1s1s",
    True,
    None,
    [1],
    {"a": 1},
]
NO_NUMBER = [float("nan"), float("inf"), float("-inf"), 1e15, 10**30, "1234567890123s"]


@pytest.mark.parametrize("said", [*NEITHER, *NO_NUMBER, "32", "32mib", "32M", "1h", "1gib", "MiB"])
def test_what_is_no_size_is_refused_with_its_path(said: object) -> None:
    assert refused({"cache": {"size_limit": said}}).startswith("file: cache.size_limit: ")


@pytest.mark.parametrize("said", [*NEITHER, *NO_NUMBER, "90", "7D", "7 days", "1w", "1MiB", "s"])
def test_what_is_no_time_is_refused_with_its_path(said: object) -> None:
    assert refused({"cache": {"ttl": said}}).startswith("file: cache.ttl: ")


def test_a_size_and_a_time_say_what_was_expected_and_what_was_found() -> None:
    assert refused({"server": {"max_body": "32 mega"}}) == (
        "file: server.max_body: Expected bytes, such as 1048576 or \"32MiB\", got '32 mega'"
    )
    assert refused(provider={"idle_timeout": "soon"}) == (
        'file: providers.p.idle_timeout: Expected a time, such as 90, "90s", "15m", "12h" or "7d", got \'soon\''
    )


@pytest.mark.parametrize(
    ("table", "path"),
    [
        ({"sever": {}}, "sever"),
        ({"server": {"prot": 1}}, "server.prot"),
        ({"data": {"dir": "x"}}, "data.dir"),
        ({"cache": {"TTL": 1}}, "cache.TTL"),
        ({"routing": {"default": "p"}}, "routing.default"),
        ({"models": {"gpt-4.1": {"upsteam": "x"}}}, "models.gpt-4.1.upsteam"),
        ({"models": {"good": {}, "gpt-4.1": {"upsteam": "x"}}}, "models.gpt-4.1.upsteam"),
        ({"routes": {"good": {"models": ["m"]}, "gpt-4.1": {"model": "x"}}}, "routes.gpt-4.1.model"),
        ({"providers": {"a.b": {"base_url": URL, "apikey": "x"}}}, "providers.a.b.apikey"),
        ({"providers": {"p": {"base_url": URL}, "a.b": {"base_url": URL, "apikey": "x"}}}, "providers.a.b.apikey"),
    ],
)
def test_an_unknown_setting_is_refused_with_its_full_path(table: Table, path: str) -> None:
    assert refused(table) == f"file: {path}: there is no such setting."


@pytest.mark.parametrize(
    ("table", "path"),
    [
        ({"server": {"port": "8080"}}, "server.port"),
        ({"server": {"port": True}}, "server.port"),
        ({"server": {"cors_origins": "https://a"}}, "server.cors_origins"),
        ({"server": []}, "server"),
        ({"data": {"directory": ""}}, "data.directory"),
        ({"cache": {"mode": "off "}}, "cache.mode"),
        ({"cache": {"sampled": "join"}}, "cache.sampled"),
        ({"cache": {"shared": 1}}, "cache.shared"),
        ({"cache": {"replay": "fast"}}, "cache.replay"),
        ({"cache": {"on_abandon": ""}}, "cache.on_abandon"),
        ({"providers": {}}, "providers"),
        ({"providers": []}, "providers"),
        ({"providers": {"p": {}}}, "providers.p"),
        ({"providers": {"a.b": {"base_url": 5}}}, "providers.a.b.base_url"),
        ({"providers": {"p": {"base_url": URL, "auth": "basic"}}}, "providers.p.auth"),
        ({"providers": {"p": {"base_url": URL, "usage": "no"}}}, "providers.p.usage"),
        ({"providers": {"p": {"base_url": URL, "max_retries": 1.5}}}, "providers.p.max_retries"),
        ({"models": {"m": "p"}}, "models.m"),
        ({"models": {"gpt-4.1": {"window": "1M"}}}, "models.gpt-4.1.window"),
        ({"models": {"gpt-4.1": {"can": "tools"}}}, "models.gpt-4.1.can"),
        ({"models": {"gpt-4.1": {"verbosity": "2"}}}, "models.gpt-4.1.verbosity"),
        ({"routing": {"tiers": "small"}}, "routing.tiers"),
        ({"routes": []}, "routes"),
        ({"routes": {"good": {}, "gpt-4.1": ["m"]}}, "routes.gpt-4.1"),
        ({"routes": {"gpt-4.1": {"models": "m"}}}, "routes.gpt-4.1.models"),
        ({"routes": {"gpt-4.1": {"models": ["m", 5]}}}, "routes.gpt-4.1.models[1]"),
        ({"routes": {"gpt-4.1": {"models": ["m"], "baseline": 5}}}, "routes.gpt-4.1.baseline"),
    ],
)
def test_a_setting_of_another_kind_is_refused_with_its_path(table: Table, path: str) -> None:
    assert refused(table).startswith(f"file: {path}: ")


@pytest.mark.parametrize(
    "address",
    [
        "https://api.openai.com/v1",
        "http://127.0.0.1:8090/v1",
        "https://[::1]:8443",
        "http://provider_1:8000/v1",
        "https://bücher.example/v1",
        "https://host/",
        "https://host/openai/deployments/x%2Fy",
        "https://host:65535/v1",
        "HTTP://host/v1",
        "Https://host/v1",
    ],
)
def test_an_address_over_http_is_a_base_url(address: str) -> None:
    assert read(provider={"base_url": address}).providers["p"].base_url == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "api.openai.com/v1",
        "//host/v1",
        "ftp://host/v1",
        "https://",
        "https:///v1",
        "https://user:password@host/v1",
        "https://key@host/v1",
        "https://host/v1?api-version=1",
        "https://host/v1#x",
        "https://host/v 1",
        "https://host/v1\n",
        "https://host:port/v1",
        "https://api..example.org/v1",
        f"https://{'a' * 64}.example.org/v1",
        "https://host:99999/v1",
        "https://[::1/v1",
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    assert refused(provider={"base_url": address}).startswith("file: providers.p.base_url: ")


@pytest.mark.parametrize(
    ("provider", "auth"),
    [
        ({}, "client"),
        ({"api_key_env": "KEY"}, "key"),
        ({"auth": "key", "api_key_env": "KEY"}, "key"),
        ({"auth": "client"}, "client"),
        ({"auth": "none"}, "none"),
    ],
)
def test_who_pays_follows_from_the_key_unless_it_is_said(provider: Table, auth: str) -> None:
    assert read(provider=provider).providers["p"].effective_auth == auth


@pytest.mark.parametrize("api_key_env", [None, ""])
def test_a_provider_with_a_key_must_name_where_it_is(api_key_env: str | None) -> None:
    assert refused(provider={"auth": "key", "api_key_env": api_key_env}).startswith("file: providers.p.api_key_env: ")


def test_clients_who_pay_for_themselves_share_no_cache() -> None:
    assert refused({"cache": {"shared": True}}).startswith("file: providers.p.auth: ")
    assert read({"cache": {"shared": True}}, provider={"api_key_env": "KEY"}).cache.shared


def test_one_provider_is_the_default_and_of_several_one_must_be_named() -> None:
    both = {"a": {"base_url": URL}, "b": {"base_url": URL}}
    assert refused({"providers": both}).startswith("file: routing.default_provider: ")
    assert read({"providers": both, "routing": {"default_provider": "b"}}).default_provider == "b"


def test_a_provider_that_is_named_must_be_there() -> None:
    assert refused({"routing": {"default_provider": "q"}}) == (
        "file: routing.default_provider: there is no [providers.q]; there is: p."
    )
    assert refused({"models": {"m": {"provider": "q"}}}).startswith("file: models.m.provider: ")
    assert read({"models": {"m": {"provider": "p"}, "n": {}}}).models["m"].provider == "p"


def unserved(settings: Settings, made: dict[str, bool] | None = None) -> str:
    """Why these settings may not be served where they say. `made`: keys of the ledger, and are they in force?"""
    with pytest.raises(StartupError) as caught:
        check_host(settings, made or {})
    return str(caught.value)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org", ""])  # noqa: S104 - refused
def test_a_public_host_is_refused_while_somebody_else_would_pay(host: str) -> None:
    server = {"server": {"host": host}}
    for provider in ({"api_key_env": "KEY"}, {"auth": "none"}):
        public = read(server, provider=provider)
        assert unserved(public).startswith(f"server.host: {host} is public, and providers.p pays")
        check_host(public, {"pk_1": False})  # it asks for keys, even if none is good any more
    assert not read(server).server.loopback
    check_host(read(server), {})  # each client pays for itself


def test_keys_in_the_ledger_are_not_in_force_beside_those_that_clients_show_to_a_provider() -> None:
    directory = {"data": {"directory": "my data"}}
    said = unserved(read(directory), {"pk_1": False, "pk_2": True})
    assert said.startswith("providers.p.auth: with keys in the ledger clients show keys of this proxy")
    assert said.endswith(
        f"Or revoke what is in {database(Path('my data'))}: penstock keys revoke pk_2 --data-dir 'my data'."
    )
    assert unserved(read(), {"pk_1": True, "pk_2": True}).endswith(".penstock, and so each of the 2.")
    check_host(read(provider={"auth": "none"}), {"pk_1": True})


def test_a_key_that_is_revoked_holds_up_nobody_who_pays_for_himself_and_protects_no_other() -> None:
    check_host(read(), {"pk_1": False})
    paid = {"mine": {"base_url": URL, "auth": "none"}, "theirs": {"base_url": URL, "auth": "client"}}
    both = {"providers": paid, "routing": {"default_provider": "mine"}, "server": {"host": "192.0.2.1"}}
    # Keys are asked for only where they can be in force.
    assert unserved(read(both), {"pk_1": False}).startswith("server.host: 192.0.2.1 is public, and providers.mine pays")


def test_one_variable_is_not_both_the_admins_key_and_that_of_the_metrics() -> None:
    said = refused({"server": {"admin_key_env": "A", "metrics_key_env": "A"}})
    assert said.startswith("file: server.metrics_key_env: it names the variable of server.admin_key_env")
    assert read({"server": {"admin_key_env": "A", "metrics_key_env": "B"}}).server.metrics_key_env == "B"


def test_keys_that_are_named_alike_are_doubted() -> None:
    keys = {"keys": [{"name": name, "key_env": name.upper()} for name in "ab"]}
    settings = read(keys, provider={"auth": "none"})
    assert list(namesakes(settings, {"pk_1": "b", "pk_2": "c"})) == [
        "keys[1].name: the key pk_1 of the ledger is named 'b' too; rename or revoke one."
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_on_loopback_the_operators_key_may_be_used(host: str) -> None:
    settings = read({"server": {"host": host}}, provider={"api_key_env": "KEY"})
    assert settings.server.loopback
    check_host(settings, {})


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_is_from_0_to_65535(port: int) -> None:
    assert refused({"server": {"port": port}}).startswith("file: server.port: ")
    assert [read({"server": {"port": good}}).server.port for good in (0, 65535)] == [0, 65535]


@pytest.mark.parametrize(("section", "name"), [("server", "max_body"), ("cache", "max_entry")])
def test_a_body_and_an_entry_have_room_for_something(section: str, name: str) -> None:
    assert refused({section: {name: 1023}}).startswith(f"file: {section}.{name}: ")
    assert getattr(getattr(read({section: {name: 1024}}), section), name) == 1024


@pytest.mark.parametrize(
    "origin", ["*", "https://*.example.org", "example.org", "https://a/", "https://a b", "null", ""]
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    assert refused({"server": {"cors_origins": ["https://good.example", origin]}}).startswith(
        "file: server.cors_origins: "
    )


def test_origins_have_a_scheme_a_host_and_perhaps_a_port() -> None:
    origins = ["https://app.example.org", "http://localhost:3000"]
    assert read({"server": {"cors_origins": origins}}).server.cors_origins == tuple(origins)


@pytest.mark.parametrize("name", ["connect_timeout", "first_event_timeout", "idle_timeout", "total_timeout"])
def test_a_timeout_of_nothing_is_refused(name: str) -> None:
    assert refused(provider={name: 0}) == f"file: providers.p.{name}: must be more than 0."
    assert getattr(read(provider={name: "1ms"}).providers["p"], name) == 0.001


@pytest.mark.parametrize(("name", "most"), [("max_retries", 10), ("breaker_failures", 1000)])
def test_retries_are_few_and_patience_ends(name: str, most: int) -> None:
    for count in (-1, most + 1):
        assert refused(provider={name: count}) == f"file: providers.p.{name}: must be from 0 to {most}."
    assert [getattr(read(provider={name: good}).providers["p"], name) for good in (0, most)] == [0, most]


def test_the_command_line_has_the_last_word_and_says_no_more_than_it_says() -> None:
    table = {"server": {"port": 1, "drain": "5s"}, "cache": {"ttl": 9}}
    settings = read(table, overrides={"server": {"port": 2}, "data": {"directory": "/d"}, "cache": {}})
    assert (settings.server.port, settings.server.drain, settings.cache.ttl) == (2, 5.0, 9.0)
    assert settings.data.directory == Path("/d")
    assert table == {"server": {"port": 1, "drain": "5s"}, "cache": {"ttl": 9}}


def test_what_the_command_line_says_is_checked_too() -> None:
    with pytest.raises(StartupError, match=r"^file: server\.port: "):
        read(overrides={"server": {"port": 70_000}})


def test_a_file_is_read_and_named_in_every_error(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(f'[providers.p]\nbase_url = "{URL}"\n[server]\nport = 1\n')
    assert load_settings(file, {"server": {"host": "::1"}}).server.host == "::1"
    for text, said in [
        ("[server]\nprot = 1\n", "server.prot: "),
        ("[server\n", "this is not TOML: "),
        ("", "providers: "),
    ]:
        file.write_text(text)
        with pytest.raises(StartupError, match="^" + re.escape(f"{file}: {said}")):
            load_settings(file)


def test_a_file_that_cannot_be_read_is_said_in_one_line(tmp_path: Path) -> None:
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'x = "\xe9"')
    for path in (tmp_path / "absent.toml", tmp_path, latin):
        with pytest.raises(StartupError, match="cannot be read") as caught:
            load_settings(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def every_setting() -> set[str]:
    """The path of each setting; a provider's, a model's, a route's and a key's own name is `*`."""
    named = {"providers": Provider, "models": Model, "routes": Route, "keys": Key}
    found = set()
    for section in msgspec.structs.fields(Settings):
        kind = named.get(section.name, section.type)
        star = ".*" if section.name in named else ""
        found |= {f"{section.name}{star}.{field.name}" for field in msgspec.structs.fields(kind)}
    return found


def documented(text: str) -> set[str]:
    """The path of each setting that stands in a TOML text, active or commented out."""
    found, table = set(), ""
    for line in text.splitlines():
        if header := re.match(r"(?:# )?\[(\[?)(\w+)(\.[^\]]+)?\]", line):
            table = header[2] + (".*" if header[1] or header[3] else "")
        elif setting := re.match(r"(?:# {1,3})?(\w+) = ", line):
            found.add(f"{table}.{setting[1]}")
    return found


def test_the_example_names_every_setting_and_no_other() -> None:
    assert documented(EXAMPLE.read_text()) == every_setting()


def test_what_is_documented_is_read_out_of_tables_names_and_comments() -> None:
    text = '[a]\nx = 1\n# y = 2   # why\n#z = 3\n# a word = \n[b."c.d"]  # e\n# f = 1\n# [[g]]\n#   h = 1\n'
    assert documented(text) == {"a.x", "a.y", "b.*.f", "g.*.h"}
    assert len(every_setting()) >= 60


DIGEST = "ab" * 32


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ([{"key_env": "A"}], "keys[0]: Object missing required field `name`"),
        ([{"name": "a"}], "keys[0]: give either key_env"),
        ([{"name": "a", "key_env": "A", "key_sha256": DIGEST}], "keys[0]: give either key_env"),
        ([{"name": "a", "key_sha256": "ab"}], "keys[0].key_sha256: must be 64 hexadecimal digits"),
        ([{"name": "a b", "key_env": "A"}], "keys[0].name: 'a b'"),
        ([{"name": "a", "key_env": "A"}] * 2, "keys[1].name: there is another key named 'a'"),
        ([{"name": "a", "key_env": "A", "passthrough": ["files/x"]}], "keys[0].passthrough: 'files/x'"),
        ([{"name": "a", "key_env": "A", "passthrough": [".."]}], "keys[0].passthrough: '..'"),
        ([{"name": "a", "key_env": "A", "buget": {}}], "keys[0].buget: there is no such setting."),
        ([{"name": "pk_a", "key_env": "A"}], "keys[0].name: 'pk_a': what begins with 'pk_' is an id"),
        ([{"name": "a", "key_env": "A", "models": []}], "keys[0].models: none is named"),
        ([{"name": "a", "key_env": "A", "models": ["a*b"]}], "keys[0].models: 'a*b': a \"*\" may only"),
        ([{"name": "a", "key_env": "A", "models": ["**"]}], "keys[0].models: '**': a \"*\" may only"),
        ([{"name": "a", "key_env": "A", "models": ["m", "m"]}], "keys[0].models: 'm' stands there twice."),
        ([{"name": "a", "key_env": "A", "models": [" "]}], "keys[0].models: an empty name stands there."),
        ([{"name": 1}], "keys[0].name: Expected `str`, got `int`"),
    ],
)
def test_a_key_that_makes_no_sense_is_named(keys: list[Table], said: str) -> None:
    assert refused({"keys": keys}, provider={"auth": "none"}).startswith(f"file: {said}")


@pytest.mark.parametrize(
    ("price", "said"),
    [
        ({"input": "eight"}, "models.gpt-4.1.price: input is a decimal number in quotes, not 'eight'."),
        ({"inputs": "8"}, "models.gpt-4.1.price: inputs is none of input,"),
        ({"input": "-1"}, "models.gpt-4.1.price: a price is a number of USD"),
        ({"input": 8}, "models.gpt-4.1.price"),
    ],
)
def test_a_price_that_is_none_is_named(price: Table, said: str) -> None:
    assert refused({"models": {"gpt-4.1": {"price": price}}}).startswith(f"file: {said}")


def test_with_keys_of_ours_no_client_pays_a_provider_with_its_own() -> None:
    keys = [{"name": "a", "key_env": "A"}]
    assert "providers.p.auth: with [[keys]]" in refused({"keys": keys})
    assert read({"keys": keys}, provider={"auth": "none"}).keys[0].name == "a"


def test_a_public_host_may_pay_for_those_who_have_a_key() -> None:
    public: Table = {"server": {"host": "192.0.2.1"}}
    assert "declare [[keys]]" in unserved(read(public, provider={"api_key_env": "P"}))
    keyed = public | {"keys": [{"name": "a", "key_sha256": DIGEST}]}
    check_host(read(keyed, provider={"api_key_env": "P"}), {})


@pytest.mark.parametrize("name", ["max_headers", "max_connections", "max_flights", "max_readers"])
def test_a_bound_of_nothing_is_refused(name: str) -> None:
    assert refused({"server": {name: 0}}) == f"file: server.{name}: must be at least 1."


@pytest.mark.parametrize("name", ["head_timeout", "body_timeout", "send_timeout"])
def test_no_time_at_all_is_refused(name: str) -> None:
    assert refused({"server": {name: 0}}) == f"file: server.{name}: must be more than 0."


@pytest.mark.parametrize("name", ["max_body", "max_header_size", "max_buffered"])
def test_hardly_any_room_is_refused(name: str) -> None:
    assert refused({"server": {name: "1B"}}) == f"file: server.{name}: must be at least 1KiB."


def test_more_must_fit_in_than_one_body() -> None:
    said = refused({"server": {"max_buffered": "1MiB"}})
    assert said == "file: server.max_buffered: must be at least server.max_body, or no such body could come in."


LIMITS = ["requests_per_minute", "tokens_per_minute", "max_concurrent"]


@pytest.mark.parametrize("name", LIMITS)
@pytest.mark.parametrize("where", ["providers.p", "models.m", "keys[0]"])
def test_a_limit_is_1_or_more_wherever_it_stands(where: str, name: str) -> None:
    def table(count: int) -> Table:
        key = {"name": "a", "key_sha256": DIGEST} | ({name: count} if where == "keys[0]" else {})
        provider = {"base_url": URL, "auth": "none"} | ({name: count} if where == "providers.p" else {})
        model = {name: count} if where == "models.m" else {}
        return {"keys": [key], "providers": {"p": provider}, "models": {"m": model}}

    for count in (0, 10**13):
        assert refused(table(count)).startswith(f"file: {where}.{name}: must be from 1 to 1000000000000; leave it out")
    settings = read(table(1))
    found = {"providers.p": settings.providers["p"], "models.m": settings.models["m"], "keys[0]": settings.keys[0]}
    assert found.pop(where).limits == Limits(**{name: 1})
    assert {each.limits for each in found.values()} == {UNLIMITED}


def test_limits_under_two_names_of_one_model_are_doubted() -> None:
    models: Table = {"m": {"max_concurrent": 2}, "also": {"upstream": "m"}, "other": {"max_concurrent": 2}}
    assert read({"models": models}).doubts() == []
    models["also"]["max_concurrent"] = 2
    assert read({"models": models}).doubts() == [
        "models.also: it is the same model as models.m, and each name has limits of its own."
    ]


@pytest.mark.parametrize(("said", "good"), [("0s", False), ("23h", False), ("1d", True), ("36525d", True)])
def test_the_ledger_keeps_a_day_at_least_and_a_century_at_most(said: str, good: bool) -> None:
    if good:
        assert read({"ledger": {"retention": said}}).ledger.retention >= 86400
    else:
        assert refused({"ledger": {"retention": said}}) == "file: ledger.retention: must be from 1d to 36525d."
    assert "ledger.retention" in refused({"ledger": {"retention": "36526d"}})


def test_the_key_in_the_place_of_the_admins_variable_is_not_repeated() -> None:
    for name in ("admin_key_env", "metrics_key_env"):
        said = refused({"server": {name: "sk-admin"}})
        assert said.startswith(f"file: server.{name}: must be the name of an environment variable")
        assert "sk-admin" not in said


def key_of(**members: Any) -> Key:
    return read({"keys": [{"name": "a", "key_env": "A", **members}]}, provider={"auth": "none"}).keys[0]


def test_a_key_says_what_it_is_granted() -> None:
    assert key_of().grant == Grant("a", "a")
    budget = {"usd": "0.10", "per": "week"}
    key = key_of(models=["m", "gpt-*"], tokens_per_minute=5, budget=budget, expires="1970-01-01T01:00:00+01:00")
    assert key.grant == Grant(
        "a", "a", ("m", "gpt-*"), frozenset(), Limits(tokens_per_minute=5), Allowance(Decimal("0.10"), "week"), 0.0
    )
    assert type(key.grant.budget and key.grant.budget.usd) is Decimal
    assert key_of(passthrough=["files"]).grant.passthrough == {b"files"}


@pytest.mark.parametrize(
    ("said", "usd"), [("50", "50"), (50, "50"), (0.1, "0.1"), ("0.000001", "0.000001"), (2.50, "2.5")]
)
def test_a_budget_is_exactly_what_was_written(said: object, usd: str) -> None:
    budget = key_of(budget={"usd": said, "per": "day"}).budget
    assert budget is not None
    assert str(budget.usd) == usd


@pytest.mark.parametrize(
    "usd", ["", "-1", "1e3", " 5", "1_0", "٣", "NaN", "Infinity", "0.0000001", 1e22, 1e-7, -1, True, None, [], "$5"]
)
def test_what_is_no_amount_is_refused(usd: object) -> None:
    said = refused({"keys": [{"name": "a", "key_env": "A", "budget": {"usd": usd, "per": "day"}}]})
    assert said == f'file: keys[0].budget.usd: Expected USD, such as "50" or "0.25", got {usd!r}'


def test_a_budget_that_is_no_table_is_shown_one() -> None:
    key: Table = {"name": "a", "key_env": "A", "budget": "50/month"}
    assert refused({"keys": [key]}) == 'file: keys[0].budget: write { usd = "50", per = "month" }'
    with pytest.raises(StartupError, match=r'^budget: write \{ usd = "50", per = "month" \}$'):
        read_new_key({"name": "a", "budget": 50}, now=0.0)


def test_a_budget_of_nothing_and_one_beside_a_passthrough_are_refused() -> None:
    key: Table = {"name": "a", "key_env": "A", "budget": {"usd": "0", "per": "day"}}
    assert refused({"keys": [key]}).startswith("file: keys[0].budget.usd: must be more than 0")
    key["budget"]["usd"] = "1"
    assert refused({"keys": [key | {"passthrough": ["files"]}]}).startswith("file: keys[0].passthrough: what passes")


@pytest.mark.parametrize(
    ("said", "until"),
    [
        ("1970-01-01", 86400.0),  # all of that day
        ("'1970-01-01'", 86400.0),
        ("1970-01-01T00:00:01Z", 1.0),
        ("1970-01-01 01:00:00+01:00", 0.0),
        ("'1970-01-01T00:00:00.5+00:00'", 0.5),
        ("9999-12-31", 253402300799.0),  # the last moment that there is
    ],
)
def test_a_key_expires_after_a_day_or_at_a_moment(said: str, until: float) -> None:
    assert key_of(**tomllib.loads(f"expires = {said}")).grant.expires == until


@pytest.mark.parametrize("said", ["1970-01-01T00:00:00", "12:00:00", "'30d'", "5", "true", "'1970-W01-1'", "[]"])
def test_what_is_no_moment_is_refused(said: str) -> None:
    key = {"name": "a", "key_env": "A", **tomllib.loads(f"expires = {said}")}
    assert refused({"keys": [key]}).startswith("file: keys[0].expires: Expected a day, such as 2027-01-31, or a time")


def test_a_key_for_what_the_settings_do_not_name_is_doubted() -> None:
    keys = [{"name": "a", "key_env": "A", "models": ["*", "m", "r", "rou*", "gpt-*", "gpt-5", "nope", "no*"]}]
    settings = read(
        {
            "keys": keys,
            "models": {"m": {}},
            "routes": {"r": {"models": ["gpt-4", "m"]}, "route": {"models": ["a", "b"]}},
        },
        provider={"auth": "none"},
    )
    doubts = [each.partition(" is no")[0] for each in settings.doubts()]
    assert doubts == ["keys[0].models: 'gpt-5'", "keys[0].models: 'nope'", "keys[0].models: 'no*'"]


def test_a_new_key_is_read_in_the_same_words() -> None:
    table = {"name": "b", "models": ["m"], "max_concurrent": 2, "budget": {"usd": 5, "per": "total"}, "expires": "30d"}
    key = read_new_key(table, now=1000.0)
    assert key.granted(key.name, "pk_1") == Grant(
        "b", "pk_1", ("m",), limits=Limits(max_concurrent=2), budget=Allowance(Decimal(5), "total"),
        expires=1000.0 + 30 * 86400,
    )  # fmt: skip
    assert read_new_key({"name": "b"}, now=0.0).granted("b", "pk_1") == Grant("b", "pk_1")


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({}, "Object missing required field `name`"),
        ({"name": "b", "key_env": "B"}, "key_env: there is no such setting."),
        ({"name": "pk_b"}, "name: 'pk_b': what begins with"),
        ({"name": "b", "models": "m"}, "models: Expected `array`, got `str`"),
        ({"name": "b", "max_concurrent": 0}, "max_concurrent: must be from 1"),
        ({"name": "b", "budget": {"usd": "5", "per": "year"}}, "budget.per: must be one of: day, week, month, total"),
        ({"name": "b", "budget": {"usd": "x", "per": "day"}}, "budget.usd: Expected USD"),
        ({"name": "b", "expires": "1970-01-01"}, "expires: it has passed already."),
        ({"name": "b", "expires": "0s"}, "expires: it has passed already."),
        ({"name": "b", "expires": "99999999999d"}, "expires: must be from 1970 to 9999"),
        ({"name": "b", "expires": "5y"}, "expires: Expected a day, such as 2027-01-31"),
    ],
)
def test_a_new_key_that_makes_no_sense_is_told_why(table: Table, said: str) -> None:
    with pytest.raises(StartupError) as caught:
        read_new_key(table, now=90_000.0)
    assert str(caught.value).startswith(said)


@pytest.mark.parametrize(
    ("said", "since"),
    [
        ("7d", 1_000_000.0 - 7 * 86400),
        ("90s", 999_910.0),
        ("9999d", 0.0),
        ("1970-01-02", 86400.0),  # from its beginning on
        ("1970-01-02T00:00:01Z", 86401.0),
        ("1970-01-02 01:00:00+01:00", 86400.0),
    ],
)
def test_a_moment_in_the_past_is_so_long_ago_or_a_day(said: str, since: float) -> None:
    assert read_since(said, now=1_000_000.0) == since


@pytest.mark.parametrize("said", ["", "7", "yesterday", "7w", "2026-13-01", "1970-01-02T00:00:00", "-7d"])
def test_what_is_no_moment_in_the_past_is_refused(said: str) -> None:
    with pytest.raises(StartupError) as caught:
        read_since(said, now=0.0)
    assert str(caught.value) == f"since: Expected a time, such as 12h or 7d, or a day, such as 2026-11-01, got {said!r}"


@pytest.mark.parametrize("where", ["key", "provider"])
def test_a_key_in_the_place_of_its_variable_is_refused_and_not_repeated(where: str) -> None:
    secret = "sk-proj-very-secret"
    table: Table = {"keys": [{"name": "a", "key_env": secret}]} if where == "key" else {}
    said = refused(table, provider={"auth": "none"} if where == "key" else {"api_key_env": secret})
    assert "must be the name of an environment variable" in said
    assert secret not in said


def test_the_example_loads_as_it_is() -> None:
    settings = load_settings(EXAMPLE)
    assert settings.server.host == "127.0.0.1"


def test_the_example_shows_the_defaults_where_it_comments_a_setting_out() -> None:
    text = "\n".join(re.sub(r"^# (\w+ = )", r"\1", line) for line in EXAMPLE.read_text().splitlines())
    shown = read_settings(tomllib.loads(text), source="example")
    plain = load_settings(EXAMPLE)
    assert (shown.server, shown.data, shown.cache) == (plain.server, plain.data, plain.cache)
    assert (plain.server, plain.data, plain.cache) == (read().server, read().data, read().cache)
    assert shown.log == plain.log == read().log
    for name, provider in shown.providers.items():
        assert provider.effective_auth == plain.providers[name].effective_auth
        assert msgspec.structs.replace(provider, auth=None) == plain.providers[name]
    assert shown.default_provider == plain.default_provider
    catalogue = Prices.packaged()
    for name, model in plain.models.items():
        known = catalogue.find(name)
        follows: Table = {"provider": plain.provider_of(name), "upstream": name}
        follows |= {"window": known.window, "max_output": known.max_output} if known else {}
        assert shown.models[name] in (model, msgspec.structs.replace(model, **follows))
    for name, route in plain.routes.items():
        follows = {"baseline": plain.route_baseline(name), "sampled": plain.cache.sampled}
        assert shown.routes[name] in (route, msgspec.structs.replace(route, **follows))


def test_the_routes_that_the_example_comments_out_are_good_ones() -> None:
    text = EXAMPLE.read_text().partition("# Keys that clients show")[0]
    text = re.sub(r"(?m)^# (\[routes\.|  (?:models|min_tier) = )", r"\1", text)
    settings = read_settings(tomllib.loads(text), source="example")
    assert settings.route_models("economy") == tuple(settings.models)
    assert settings.route_models("good") == ("gpt-4.1", "claude-sonnet-4.5", "gemini-2.5-flash")
    assert settings.route_models("gpt-4o") == ("gpt-4o", "deepseek-v3.2")
    assert settings.doubts() == []


def test_the_key_that_the_example_comments_out_is_a_good_one() -> None:
    text = EXAMPLE.read_text()
    shown = re.sub(r"(?m)^# (\[\[keys\]\]|  (?!key_sha256|passthrough)\w+ = )", r"\1", text[text.index("# [[keys]]") :])
    (key,) = read_settings(tomllib.loads(text + shown), source="example").keys
    assert key.grant == Grant(
        "team-a", "team-a", limits=Limits(60, 120_000, 10), budget=Allowance(Decimal(50), "month"), expires=1801440000.0
    )  # fmt: skip


def test_the_limits_that_the_example_shows_are_good_ones() -> None:
    text = EXAMPLE.read_text().partition("# Keys that clients show")[0]
    shown = re.sub(r"(?m)^# ((?:  (?:requests_per|tokens_per|max_conc)|queue)\w+ = )", r"\1", text)
    settings = read_settings(tomllib.loads(shown), source="example")
    limits = Limits(500, 1_000_000, 100)
    assert [each.limits for each in settings.providers.values()] == [limits]
    assert [name for name, model in settings.models.items() if model.limits == limits] == ["gpt-4.1"]


def test_the_example_is_a_reseller_of_four_models_at_flat_prices() -> None:
    settings = load_settings(EXAMPLE)
    prices = {name: model.price for name, model in settings.models.items()}
    assert prices == {
        "gpt-4.1": {"input": "8", "output": "8"},
        "claude-sonnet-4.5": {"input": "15", "output": "15"},
        "gemini-2.5-flash": {"input": "2.50", "output": "2.50"},
        "deepseek-v3.2": {"input": "0.42", "output": "0.42"},
    }
    assert settings.route_baseline("economy") == "gpt-4.1"


def test_the_example_names_every_capability() -> None:
    told = EXAMPLE.read_text().partition("# can = ")[2].partition("# verbosity = ")[0]
    assert set(get_args(Capability)) <= set(re.findall(r'"(\w+)"', told))


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "cookie",
        "Host",
        "x y",
        "",
        "Content-Length",
        "Cache-Control",
        "X-API-Key",
        "x-penstock-ttl",
        "X-Stainless-Retry-Count",
    ],
)
def test_a_header_that_is_not_the_clients_to_set_is_not_forwarded(name: str) -> None:
    table = {"providers": {"p": {"base_url": "https://p/v1"}}, "server": {"forward_headers": [name]}}
    with pytest.raises(StartupError, match=r"server\.forward_headers"):
        read_settings(table, source="f")


@pytest.mark.parametrize(
    "name", ["", "messages", "model", "prompt", "input", "tools", "functions", "n", "response_format"]
)
def test_what_makes_another_answer_is_never_ignored(name: str) -> None:
    assert refused({"cache": {"ignore": ["user", name]}}).startswith(f"file: cache.ignore: {name!r} cannot be ignored")
    assert read({"cache": {"ignore": ["seed"]}}).cache.ignore == ("seed",)


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:8080/v1"),
        ("127.0.0.1", "http://LOCALHOST:8080/v1"),
        ("::1", "http://[::1]:8080/v1"),
        ("0.0.0.0", "http://127.0.0.1:8080/v1"),  # noqa: S104 - refused
        ("Proxy.example.org", "https://proxy.example.org:8080/v1"),
    ],
)
def test_a_provider_that_is_this_proxy_is_refused(host: str, address: str) -> None:
    said = refused({"server": {"host": host}}, provider={"base_url": address})
    assert said.startswith("file: providers.p.base_url: ")
    assert "this proxy itself" in said


def test_the_port_of_an_address_may_follow_from_its_scheme() -> None:
    assert "this proxy itself" in refused({"server": {"port": 80}}, provider={"base_url": "HTTP://localhost/v1"})


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("127.0.0.1", "http://127.0.0.1:8090/v1"),
        ("127.0.0.1", "http://example.org:8080/v1"),
        ("192.168.1.5", "http://127.0.0.1:8080/v1"),
    ],
)
def test_another_port_or_another_host_is_a_provider(host: str, address: str) -> None:
    assert read({"server": {"host": host}}, provider={"base_url": address}).providers["p"].base_url == address


def test_a_key_that_would_never_be_sent_is_refused() -> None:
    said = refused(provider={"auth": "client", "api_key_env": "KEY"})
    assert said.startswith("file: providers.p.auth: ")
    assert "KEY" in said


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"cache": {"mode": "dark"}}, "cache.mode: must be one of: on, shadow, off"),
        ({"cache": {"sampled": "join"}}, "cache.sampled: must be one of: cache, collapse, bypass"),
        ({"log": {"format": "xml"}}, "log.format: must be one of: auto, json, text"),
        ({"log": {"level": "debug"}}, "log.level: must be one of: info, warning, error"),
        (
            {"providers": {"p": {"base_url": URL}, "a.b": {"base_url": URL, "auth": "basic"}}},
            "providers.a.b.auth: must be one of: client, key, none",
        ),
        (
            {"routes": {"gpt-4.1": {"models": ["m"], "sampled": "join"}}},
            "routes.gpt-4.1.sampled: must be one of: cache, collapse, bypass",
        ),
        (
            {"models": {"gpt-4.1": {"can": ["tools", "fly"]}}},
            f"models.gpt-4.1.can[1]: must be one of: {', '.join(get_args(Capability))}",
        ),
        (
            {"models": {"gpt-4.1": {"cannot": ["fly"]}}},
            f"models.gpt-4.1.cannot[0]: must be one of: {', '.join(get_args(Capability))}",
        ),
        (
            {"keys": [{"name": "a", "key_env": "A", "budget": {"usd": "1", "per": "year"}}]},
            "keys[0].budget.per: must be one of: day, week, month, total",
        ),
    ],
)
def test_an_unknown_choice_is_told_what_there_is(table: Table, said: str) -> None:
    assert refused(table) == f"file: {said}"


@pytest.mark.parametrize(
    ("address", "doubts"),
    [
        ("https://host/v1", 0),
        ("https://host/openai/", 0),
        ("https://host", 1),
        ("https://host/", 1),
        ("https://host/v1/chat/completions", 1),
        ("https://host/v1/chat/completions/", 1),
    ],
)
def test_a_base_url_that_is_most_likely_a_mistake_is_doubted(address: str, doubts: int) -> None:
    found = read(provider={"base_url": address}).doubts()
    assert len(found) == doubts
    assert all(each.startswith("providers.p.base_url: ") for each in found)


def routed(route: Table, name: str = "r", **models: Table) -> Table:
    """A route over models of three tiers."""
    return {"routing": {"tiers": ["small", "medium", "large"]}, "models": models, "routes": {name: route}}


TIERED: Table = {"s": {"tier": "small"}, "l": {"tier": "large"}, "free": {}, "m": {"tier": "medium"}}


@pytest.mark.parametrize(
    ("min_tier", "models"), [("small", ("s", "l", "m")), ("medium", ("l", "m")), ("large", ("l",))]
)
def test_a_least_tier_takes_every_model_from_there_up_in_the_files_order(
    min_tier: str, models: tuple[str, ...]
) -> None:
    settings = read(routed({"min_tier": min_tier}, **TIERED))
    assert settings.route_models("r") == models
    assert settings.route_baseline("r") == models[0]


def test_a_route_names_models_whether_the_settings_have_them_or_not() -> None:
    settings = read(routed({"models": ["other", "s"]}, **TIERED))
    assert settings.route_models("r") == ("other", "s")
    assert settings.route_baseline("r") == "other"
    assert read(routed({"models": ["other", "s"], "baseline": "s"}, **TIERED)).route_baseline("r") == "s"
    with pytest.raises(KeyError):
        settings.route_models("s")


@pytest.mark.parametrize("name", ["s", "gpt-4o"])
def test_a_route_may_have_the_name_of_a_model_and_still_means_models(name: str) -> None:
    settings = read(routed({"models": [name, "r"]}, name=name, **TIERED))
    assert settings.route_models(name) == (name, "r")
    both = {"routes": {"r": {"models": ["m", "t"]}, "t": {"models": ["t", "n"]}}}
    assert read(both).route_models("r") == ("m", "t")


@pytest.mark.parametrize(
    ("route", "said"),
    [
        ({}, "routes.r: give either models, "),
        ({"models": []}, "routes.r: give either models, "),
        ({"models": ["s"], "min_tier": "small"}, "routes.r: give either models, "),
        ({"models": ["s", ""]}, "routes.r.models: an empty name stands there."),
        ({"models": ["s", "x", "s"]}, "routes.r.models: 's' stands there twice."),
        ({"min_tier": ""}, "routes.r.min_tier: '' is not in routing.tiers; there is: small, medium, large."),
        ({"min_tier": "huge"}, "routes.r.min_tier: 'huge' is not in routing.tiers; there is: small, medium, large."),
        (
            {"models": ["s", "x"], "baseline": "l"},
            "routes.r.baseline: 'l' is not a model of this route; there is: s, x.",
        ),
        ({"models": ["s"], "baseline": ""}, "routes.r.baseline: '' is not a model of this route; there is: s."),
        (
            {"min_tier": "medium", "baseline": "s"},
            "routes.r.baseline: 's' is not a model of this route; there is: l, m.",
        ),
    ],
)
def test_a_route_that_makes_no_sense_is_named(route: Table, said: str) -> None:
    assert refused(routed(route, **TIERED)).startswith(f"file: {said}")


def test_a_least_tier_that_no_model_has_is_refused() -> None:
    said = refused(routed({"min_tier": "medium"}, s={"tier": "small"}, free={}))
    assert said.startswith("file: routes.r.min_tier: no model in [models] has tier 'medium' or one above")


@pytest.mark.parametrize("name", ["", " "])
def test_nothing_has_an_empty_name(name: str) -> None:
    for table, path in [
        (routed({"models": ["s"]}, name=name), "routes"),
        ({"models": {name: {}}}, "models"),
        ({"routing": {"tiers": ["small", name]}}, "routing.tiers"),
    ]:
        assert refused(table) == f"file: {path}: an empty name stands there."


def test_a_default_model_is_any_name_but_none_at_all() -> None:
    assert read({"routing": {"default_model": "of-the-provider"}}).routing.default_model == "of-the-provider"
    said = refused({"routing": {"default_model": ""}})
    assert said == "file: routing.default_model: it is empty; name a model or a route, or leave it out."
    assert refused({"routing": {"default_model": 5}}).startswith("file: routing.default_model: ")


def test_tiers_stand_once_and_hold_what_models_say() -> None:
    assert refused({"routing": {"tiers": ["a", "b", "a"]}}) == "file: routing.tiers: 'a' stands there twice."
    said = refused({"routing": {"tiers": ["a", "b"]}, "models": {"gpt-4.1": {"tier": "c"}}})
    assert said == "file: models.gpt-4.1.tier: 'c' is not in routing.tiers; there is: a, b."
    said = refused({"models": {"gpt-4.1": {"tier": "c"}}})
    assert said.startswith("file: models.gpt-4.1.tier: 'c' is not in routing.tiers; say there what tiers there are")


@pytest.mark.parametrize("name", ["window", "max_output"])
def test_a_model_takes_and_gives_something(name: str) -> None:
    assert refused({"models": {"m": {name: 0}}}) == f"file: models.m.{name}: must be at least 1 token."
    assert getattr(read({"models": {"m": {name: 1}}}).models["m"], name) == 1


def test_a_model_that_can_and_cannot_is_refused() -> None:
    said = refused({"models": {"m": {"can": ["tools", "vision"], "cannot": ["audio", "vision"]}}})
    assert said == "file: models.m.cannot: vision stands in can too; leave it in one of them."
    assert read({"models": {"m": {"can": ["tools"], "cannot": ["audio"]}}}).models["m"].cannot == ("audio",)


@pytest.mark.parametrize("verbosity", [0, -1.5, float("inf"), float("nan")])
def test_a_model_writes_more_than_nothing(verbosity: float) -> None:
    assert refused({"models": {"m": {"verbosity": verbosity}}}).startswith("file: models.m.verbosity: must be more ")
    assert read({"models": {"m": {"verbosity": 2}}}).models["m"].verbosity == 2.0


def test_a_models_provider_is_the_default_unless_it_is_said() -> None:
    providers = {"a": {"base_url": URL}, "b": {"base_url": URL}}
    models: Table = {"m": {"provider": "b"}, "n": {}}
    settings = read_settings(
        {"providers": providers, "models": models, "routing": {"default_provider": "a"}}, source="file"
    )
    assert [settings.provider_of(name) for name in ("m", "n", "unnamed")] == ["b", "a", "a"]


def over_two(route: Table, *, auth: str) -> Table:
    """A route and two providers; clients pay for themselves at the second under "client"."""
    return {
        "providers": {"a": {"base_url": URL, "auth": "none"}, "b": {"base_url": URL, "auth": auth}},
        "routing": {"default_provider": "a", "tiers": ["any"]},
        "models": {"m": {"provider": "b", "tier": "any"}, "n": {"provider": "b"}, "o": {"tier": "any"}},
        "routes": {"r": route},
    }


@pytest.mark.parametrize(
    ("route", "path"), [({"models": ["m", "unnamed"]}, "routes.r.models"), ({"min_tier": "any"}, "routes.r.min_tier")]
)
def test_a_route_over_several_providers_pays_with_no_clients_key(route: Table, path: str) -> None:
    said = refused(over_two(route, auth="client"))
    assert said.startswith(f"file: {path}: ")
    assert 'at b (auth = "client") each client pays for itself' in said
    assert read(over_two(route, auth="none")).routes["r"]


def test_a_route_within_one_provider_may_pay_with_a_clients_key() -> None:
    assert read(over_two({"models": ["m", "n"]}, auth="client")).route_models("r") == ("m", "n")


@pytest.mark.parametrize(
    ("table", "doubts"),
    [
        (routed({"models": ["s", "l"]}, **TIERED), []),
        (routed({"models": ["s", "l"]}, name="s", **TIERED), []),
        (routed({"models": ["s"]}, **TIERED), ["routes.r: s is its only model; there is nothing to choose."]),
        (routed({"min_tier": "large"}, **TIERED), ["routes.r: l is its only model; there is nothing to choose."]),
        (
            routed({"min_tier": "medium"}, name="s", **TIERED),
            ["routes.s: it has the name of a model and does not list it"],
        ),
        (
            {"routes": {"r": {"models": ["x", "y"]}, "x": {"models": ["y", "z"]}}},
            ["routes.x: it has the name of a model and does not list it"],
        ),
    ],
)
def test_a_route_that_is_most_likely_a_mistake_is_doubted(table: Table, doubts: list[str]) -> None:
    found = read(table).doubts()
    assert len(found) == len(doubts)
    assert all(each.startswith(doubt) for each, doubt in zip(found, doubts, strict=True))


# Endpoints.


def test_what_a_provider_has_is_unknown_unless_it_is_said() -> None:
    assert read().providers["p"].endpoints is None
    said = read(provider={"endpoints": ["responses", "embeddings"]}).providers["p"]
    assert said.endpoints == ("responses", "embeddings")


@pytest.mark.parametrize(
    ("endpoints", "said"),
    [
        (["chat", "images"], "endpoints[1]: must be one of: chat, completions, responses, embeddings"),
        (["/v1/chat/completions"], "endpoints[0]: must be one of: chat, completions, responses, embeddings"),
        ("chat", "endpoints: Expected `array | null`"),
        ([7], "endpoints[0]: Expected `str`"),
    ],
)
def test_an_endpoint_that_is_none_is_refused_with_its_path(endpoints: object, said: str) -> None:
    assert refused(provider={"endpoints": endpoints}).startswith(f"file: providers.p.{said}")
