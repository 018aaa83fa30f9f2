"""`penstock keys` as people and scripts run it, and what a running proxy makes of it."""

import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import httpx
import openai
import pytest
from click.testing import CliRunner, Result

from proxy.cli import EX_CONFIG, main
from tests.conftest import MakeProxy, Sdk
from tests.support import CHAT, Json, Proxy, Simulator, ask, eventually
from tests.test_commands import penstock, served

SETTINGS = """
[providers.p]
base_url = "http://127.0.0.1:9/v1"
auth = "{auth}"
[models.dear]
[routes.any]
models = ["dear", "cheap"]
"""
OWN = f"""
[[keys]]
name = "own"
key_sha256 = "{sha256(b"sk-own").hexdigest()}"
budget = {{ usd = "2.50", per = "week" }}
"""


class Commands:
    """`penstock keys …` on one data directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.file = directory / "penstock.toml"

    def run(self, *arguments: str) -> Result:
        return CliRunner().invoke(main, ["keys", *arguments, "--data-dir", str(self.directory / "data")])

    def configured(self, *arguments: str, auth: str = "none", own: str = OWN) -> Result:
        """With settings."""
        self.file.write_text(SETTINGS.format(auth=auth) + own)
        return self.run(*arguments, "--config", str(self.file))

    def make(self, *arguments: str) -> str:
        """A new key's secret."""
        made = self.run("create", *arguments)
        assert made.exit_code == 0, made.output
        return made.stdout.strip()

    def shown(self, key: str) -> dict[str, str]:
        """What `show` says, by line."""
        found = self.run("show", key)
        assert found.exit_code == 0, found.output
        return {name: rest[0] for name, *rest in (line.split(None, 1) for line in found.stdout.splitlines())}

    def bytes(self) -> bytes:
        return b"".join(file.read_bytes() for file in (self.directory / "data").iterdir())


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(tmp_path)


def test_a_secret_is_alone_on_stdout_and_nowhere_else_ever_again(commands: Commands) -> None:
    made = commands.run("create", "team")
    secret = made.stdout.strip()
    assert re.fullmatch(r"sk-penstock-[\w-]{40,}", secret)
    assert made.stdout == secret + "\n"
    where = re.escape(str(commands.directory / "data"))
    assert re.search(rf"^Key team \(pk_\w+\) is made in {where}: the proxy of that directory takes it\.", made.stderr)
    assert "OPENAI_API_KEY" in made.stderr
    later = commands.run("list").output + commands.run("show", "team").output
    digest = sha256(secret.encode())
    assert [each for each in (secret, digest.hexdigest(), secret[:20]) if each in made.stderr + later] == []
    assert secret.encode() not in commands.bytes()
    assert digest.digest() in commands.bytes()


def test_a_key_is_told_as_it_was_asked_for(commands: Commands) -> None:
    commands.make(
        "team", "--models", "dear,gpt-*", "--requests-per-minute", "60", "--tokens-per-minute", "120000",
        "--max-concurrent", "10", "--budget", "50/month", "--expires", "2099-01-31",
    )  # fmt: skip
    shown = commands.shown("team")
    assert re.fullmatch(r"pk_\w+", shown.pop("id"))
    assert re.fullmatch(r"20\d\d-\d\d-\d\d \d\d:\d\dZ", shown.pop("created"))
    assert shown == {
        "name": "team",
        "from": "ledger",
        "state": "in force",
        "models": "dear gpt-*",
        "passthrough": "-",
        "limits": "60 requests/min, 120,000 tokens/min, 10 at once",
        "budget": "50 USD/month",
        "expires": "2099-02-01 00:00Z",
    }
    commands.make("files", "--passthrough", "files, vector_stores")
    assert commands.shown("files")["passthrough"] == "files vector_stores"
    assert commands.shown("files")["models"] == "*"
    commands.make("blanks", "--models", "economy, sim-small ")
    assert commands.shown("blanks")["models"] == "economy sim-small"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a b"], "name: 'a b': up to 64 letters"),
        (["pk_a"], "name: 'pk_a': what begins with 'pk_' is an id"),
        (["a", "--models", ""], "models: an empty name stands there."),
        (["a", "--models", "a, ,b"], "models: an empty name stands there."),
        (["a", "--passthrough", "files,"], "passthrough: '' is no leading segment of a path"),
        (["a", "--models", "a*b"], "models: 'a*b'"),
        (["a", "--budget", "5/fortnight"], "budget.per: must be one of: day"),
        (["a", "--budget", "50"], "--budget: '50': write USD, a slash and day, week, month or total"),
        (["a", "--budget", "50/year"], "budget.per: must be one of: day, week, month, total"),
        (["a", "--budget", "much/day"], "budget.usd: Expected USD"),
        (["a", "--budget", "5/day", "--passthrough", "files"], "passthrough: what passes through has no known cost"),
        (["a", "--expires", "soon"], "expires: Expected a day, such as 2027-01-31"),
        (["a", "--expires", "1999-01-01"], "expires: it has passed already."),
        (["a", "--max-concurrent", "0"], "max_concurrent: must be from 1 to"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused_in_one_line(
    arguments: Sequence[str], said: str, commands: Commands
) -> None:
    made = commands.run("create", *arguments)
    assert (made.exit_code, made.stdout) == (EX_CONFIG, "")
    assert made.stderr.startswith(f"penstock: {said}")
    assert len(made.stderr.splitlines()) == 1
    assert not (commands.directory / "data").exists()


def test_a_name_is_free_again_once_its_key_is_revoked_and_the_old_one_is_still_known(commands: Commands) -> None:
    commands.make("team")
    first = commands.shown("team")["id"]
    taken = commands.run("create", "team")
    assert (taken.exit_code, taken.stdout) == (1, "")
    assert "A key named 'team' is in force" in taken.stderr
    assert commands.run("revoke", "team").output == f"Key team ({first}) is revoked.\n"
    commands.make("team")
    second = commands.shown("team")["id"]
    assert second != first
    assert commands.shown(first)["state"].startswith("revoked 20")
    assert commands.shown("team")["state"] == "in force"
    listed = commands.run("list").output
    assert [line.split()[1] for line in listed.splitlines() if "pk_" in line] == [first, second]
    commands.run("revoke", second)
    assert commands.shown("team")["id"] == second  # the newest


def test_a_key_that_has_expired_says_so(commands: Commands) -> None:
    commands.make("team", "--expires", "10ms")
    eventually(lambda: commands.shown("team")["state"] == "expired")


@pytest.mark.parametrize("command", ["show", "revoke"])
def test_a_key_that_is_not_there_is_said(command: str, commands: Commands) -> None:
    commands.make("team")
    said = commands.run(command, "other")
    assert (said.exit_code, "There is no key 'other'" in said.stderr) == (1, True)


def test_where_there_is_no_ledger_there_is_no_key_and_none_is_made_by_looking(commands: Commands) -> None:
    assert (commands.run("list").exit_code, commands.run("list").output) == (1, "There is no key.\n")
    assert commands.run("revoke", "team").exit_code == 1
    assert not (commands.directory / "data").exists()


def test_the_settings_keys_are_listed_beside_the_others_and_revoked_in_their_file(commands: Commands) -> None:
    commands.make("team")
    listed = commands.configured("list").output
    rows = [line.replace("│", " ").split() for line in listed.splitlines() if "│" in line]
    assert [row[:3] for row in rows] == [
        ["own", "own", "settings"],
        [commands.shown("team")["id"], "team", "ledger"],
    ]
    assert "2.50 USD/week" in listed
    assert "own" in commands.configured("show", "own").output
    assert commands.configured("revoke", "own").stderr == (
        "Error: The key 'own' stands in the settings: remove it there.\n"
    )
    taken = commands.configured("create", "own")
    assert (taken.exit_code, "stands in the settings" in taken.stderr) == (1, True)


def test_a_key_of_the_ledger_that_is_named_as_one_of_the_settings_is_doubted_and_revoked_by_its_id(
    commands: Commands,
) -> None:
    commands.make("own")
    key = commands.shown("own")["id"]
    at = f'[data]\ndirectory = "{commands.directory}/data"\n'
    commands.file.write_text(at + SETTINGS.format(auth="none") + OWN)
    checked = CliRunner().invoke(main, ["check-config", str(commands.file)])
    assert checked.exit_code == 0
    assert f"note: keys[0].name: the key {key} of the ledger is named 'own' too" in checked.stdout
    said = commands.configured("revoke", "own")
    assert said.stderr == (
        f"Error: The key 'own' stands in the settings: remove it there; the ledger's key of that name is {key}.\n"
    )
    assert commands.configured("revoke", key).exit_code == 0
    assert commands.configured("revoke", "own").stderr.endswith("remove it there.\n")


def test_with_settings_a_key_for_what_they_do_not_name_is_doubted_and_still_made(commands: Commands) -> None:
    made = commands.configured("create", "team", "--models", "any,cheap,other,dea*")
    assert made.exit_code == 0
    assert made.stdout.startswith("sk-penstock-")
    notes = [line for line in made.stderr.splitlines() if line.startswith("note: ")]
    assert notes == ["note: 'other' is no model or route of these settings; it goes to p."]


def test_where_clients_show_their_own_keys_none_of_ours_is_made(commands: Commands) -> None:
    made = commands.configured("create", "team", auth="client", own="")
    assert (made.exit_code, made.stdout) == (EX_CONFIG, "")
    assert made.stderr.startswith("penstock: providers.p.auth: with keys in the ledger")


def test_a_damaged_ledger_is_said_in_one_line(commands: Commands) -> None:
    commands.make("team")
    (commands.directory / "data" / "ledger.db").write_bytes(b"no database" * 1000)
    for arguments in (["list"], ["create", "other"], ["revoke", "team"]):
        said = commands.run(*arguments)
        assert (said.exit_code, len(said.stderr.splitlines())) == (EX_CONFIG, 1)
        assert "ledger.db" in said.stderr


def test_check_config_heeds_the_keys_of_the_ledger(commands: Commands) -> None:
    def checked(host: str, auth: str) -> tuple[int, str]:
        server = f'[server]\nhost = "{host}"\n[data]\ndirectory = "{commands.directory}/data"\n'
        commands.file.write_text(server + SETTINGS.format(auth=auth))
        said = CliRunner().invoke(main, ["check-config", str(commands.file)])
        return said.exit_code, said.stderr

    assert checked("192.0.2.1", "none")[1].startswith(f"penstock: {commands.file}: server.host: 192.0.2.1 is public")
    assert checked("192.0.2.1", "client")[0] == 0
    commands.make("team")
    commands.run("revoke", "team")  # keys are asked for all the same
    assert checked("192.0.2.1", "none") == (0, "")
    assert checked("127.0.0.1", "client")[0] == 0  # none is good any more
    commands.make("team")
    assert "providers.p.auth: with keys in the ledger" in checked("127.0.0.1", "client")[1]


def test_serve_refuses_to_start_for_the_same_reasons(commands: Commands) -> None:
    data = str(commands.directory / "data")
    commands.file.write_text(SETTINGS.format(auth="none"))
    public = penstock("serve", "--config", str(commands.file), "--host", "192.0.2.1", "--data-dir", data)
    assert (public.returncode, "server.host: 192.0.2.1 is public" in public.stderr) == (EX_CONFIG, True)
    commands.make("team")
    clients = penstock("serve", "--upstream", "http://127.0.0.1:9/v1", "--data-dir", data)
    assert (clients.returncode, "with keys in the ledger" in clients.stderr) == (EX_CONFIG, True)
    assert len(clients.stderr.splitlines()) == 1
    assert f"{data}/ledger.db" in clients.stderr
    mending = re.search(r"penstock (keys revoke pk_\w+ --data-dir \S+[^.])\.$", clients.stderr.strip())
    assert mending
    assert CliRunner().invoke(main, mending[1].split()).exit_code == 0
    with served("http://127.0.0.1:9/v1", commands.directory / "data") as proxy:
        assert httpx.get(proxy.url + "/readyz").status_code == 200


def known_to(proxy: Proxy, secret: str) -> httpx.Response:
    return proxy.http.get("/v1/models", headers={"authorization": f"Bearer {secret}"})


def test_a_running_proxy_follows_within_a_second_and_refuses_all_alike(
    make_proxy: MakeProxy, simulator: Simulator, sdk: Sdk, tmp_path: Path, prompt: str
) -> None:
    proxy = make_proxy(key="sk-operator", directory=tmp_path / "data")
    commands = Commands(tmp_path)
    assert proxy.http.post(CHAT, json=ask(prompt)).status_code == 200  # nobody is asked for a key yet
    secret, other, brief = commands.make("team"), commands.make("other"), commands.make("brief", "--expires", "1s")
    eventually(lambda: known_to(proxy, "sk-unknown").status_code == 401)
    assert known_to(proxy, secret).status_code == 200
    client = sdk(proxy.base_url, api_key=secret)
    assert client.chat.completions.create(**ask(prompt)).choices
    assert proxy.http.post(CHAT, json=ask(prompt)).status_code == 401

    commands.run("revoke", "team")
    eventually(lambda: known_to(proxy, secret).status_code == 401)
    with pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(**ask(prompt))
    eventually(lambda: known_to(proxy, brief).status_code == 401)
    refused = [
        {}, {"authorization": f"Bearer {secret}"}, {"authorization": f"Bearer {brief}"},
        {"authorization": "Bearer sk-unknown"}, {"authorization": "Bearer"}, {"authorization": f"Basic {other}"},
        {"authorization": f"Bearer {other} "[:-2]}, {"authorization": "Bearer " + "x" * 5000}, {"api-key": secret},
        {"authorization": f"Bearer {sha256(other.encode()).hexdigest()}"}, {"x-api-key": other},
    ]  # fmt: skip
    answers = [proxy.http.post(CHAT, json=ask(prompt), headers=headers) for headers in refused]
    assert {(answer.status_code, answer.content) for answer in answers} == {(401, answers[0].content)}
    assert answers[0].json()["error"]["code"] == "invalid_api_key"
    assert known_to(proxy, other).status_code == 200
    assert simulator.asked() == 2  # whoever has a key has a cache of its own


def test_a_key_is_held_to_the_models_that_it_names(
    make_proxy: MakeProxy, sdk: Sdk, tmp_path: Path, prompt: str, simulator: Simulator
) -> None:
    Commands(tmp_path).make("other")
    secret = Commands(tmp_path).make("team", "--models", "sim-ins*,economy")
    routes: Json = {"economy": {"models": ["sim-small", "sim-large"]}}
    proxy = make_proxy(key="sk-operator", directory=tmp_path / "data", routes=routes)
    client = sdk(proxy.base_url, api_key=secret)
    listed = {model.id for model in client.models.list()}
    assert {"economy", "sim-instant"} <= listed
    assert "sim-small" not in listed
    assert client.chat.completions.create(**ask(prompt)).choices
    assert client.chat.completions.create(**ask(prompt, "economy")).choices
    asked = simulator.asked()
    with pytest.raises(openai.PermissionDeniedError) as caught:
        client.chat.completions.create(**ask(prompt, "sim-small"))
    assert caught.value.code == "model_not_allowed"
    assert simulator.asked() == asked
