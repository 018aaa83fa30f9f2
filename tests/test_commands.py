"""The commands as people and machines run them: processes, signals, exit codes, one clear line."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import httpx
import pytest
from sqlalchemy import insert

from proxy.core.access import Grant
from proxy.core.entry import Entry, Meta, pack
from proxy.ledger.keys import create_key, revoke_key
from proxy.ledger.opening import open_database
from proxy.ledger.schema import requests
from proxy.store.disk import DiskTier
from tests.scripted import DONE, Scripted, Wire, chunk, whole_stream
from tests.support import CHAT, DEADLINE, Json, Simulator, ask, eventually, free_port

EX_CONFIG = 78


def penstock(*arguments: str, told: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """One command, to its end; `told` on stdin."""
    command = [sys.executable, "-m", "proxy", *arguments]
    env = {**os.environ, **environment}
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, env=env, check=False, input=told)


class Served:
    """`penstock serve`, a process of its own."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        command, env = (
            [sys.executable, "-m", "proxy", "serve", "--port", "0", *arguments],
            {**os.environ, **environment},
        )
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        self.log = ""  # all of it, once it has ended
        self.line = _of(self.process.stdout).readline()
        found = re.search(r"listens on (http://127\.0\.0\.1:\d+)/v1", self.line)
        assert found, (self.line, self.process.communicate(timeout=DEADLINE))
        self.url = found[1]

    def ask(self, body: Json, **headers: str) -> httpx.Response:
        return httpx.post(self.url + CHAT, json=body, headers=headers, timeout=DEADLINE)

    def end(self, number: signal.Signals = signal.SIGTERM) -> tuple[int, str]:
        """Exit code and what was said on stderr, but for the requests' lines."""
        self.process.send_signal(number)
        _, self.log = self.process.communicate(timeout=DEADLINE)
        said = [line for line in self.log.splitlines(keepends=True) if '"message":"request"' not in line]
        return self.process.returncode, "".join(said)


def _of(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None
    return pipe


@contextlib.contextmanager
def served(upstream: str, directory: Path, *arguments: str) -> Iterator[Served]:
    one = Served("--upstream", upstream, "--data-dir", str(directory), *arguments)
    try:
        yield one
    finally:
        if one.process.poll() is None:
            one.process.kill()
        one.process.communicate(timeout=DEADLINE)


def without_id(response: httpx.Response) -> Json:
    body: Json = response.raise_for_status().json()
    del body["id"]
    return body


def test_serve_says_where_it_listens_and_ends_with_0_on_sigterm(simulator: Simulator, tmp_path: Path) -> None:
    with served(simulator.base_url, tmp_path / "data") as proxy:
        assert proxy.line.startswith("Penstock ")
        assert httpx.get(proxy.url + "/readyz").text == "ready\n"
        assert httpx.get(proxy.url + "/livez").status_code == 200
        assert proxy.ask(ask("one question")).headers["cache-status"] == "penstock; fwd=miss; stored"
        assert proxy.end() == (0, "")


def test_the_data_directory_is_for_its_owner_only(simulator: Simulator, tmp_path: Path) -> None:
    with served(simulator.base_url, tmp_path / "data"):
        assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "data" / "secret").stat().st_mode & 0o777 == 0o600


def test_ctrl_c_ends_it_like_sigterm(simulator: Simulator, tmp_path: Path) -> None:
    with served(simulator.base_url, tmp_path) as proxy:
        assert proxy.end(signal.SIGINT) == (0, "")


def test_sigterm_lets_an_open_stream_finish(scripted: Scripted, tmp_path: Path) -> None:
    with served(scripted.base_url, tmp_path) as proxy, Wire(proxy.url, ask("slow", stream=True)) as wire:
        turn = scripted.turn()
        turn.head()
        turn.send(chunk("Hello"))
        assert wire.read_head().status == 200
        assert b"Hello" in wire.read_event()
        proxy.process.send_signal(signal.SIGTERM)
        eventually(lambda: httpx.get(proxy.url + "/readyz").status_code == 503)
        refused = proxy.ask(ask("too late"))
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "shutting_down")
        turn.send(*whole_stream(" world"))
        turn.end()
        rest = wire.read_events()
        assert b" world" in rest[0]
        assert rest[-1] == DONE
        assert wire.clean
        assert proxy.process.wait(DEADLINE) == 0


def test_sigterm_ends_a_stream_that_does_not_finish_with_an_error(scripted: Scripted, tmp_path: Path) -> None:
    settings = tmp_path / "penstock.toml"
    settings.write_text(f'[server]\ndrain = "50ms"\n[data]\ndirectory = "{tmp_path}/data"\n'
                        f'[providers.scripted]\nbase_url = "{scripted.base_url}"\n')  # fmt: skip
    proxy = Served("--config", str(settings))
    with Wire(proxy.url, ask("endless", stream=True)) as wire:
        turn = scripted.turn()
        turn.head()
        turn.send(chunk("Hello"))
        wire.read_head()
        assert b"Hello" in wire.read_event()
        code, said = proxy.end()
        assert code == 0
        assert "still open" in said
        frame, *more = wire.read_events()
        assert b'"code":"shutting_down"' in frame
        assert not more
        assert not wire.clean
    assert turn.gone.wait(DEADLINE)


def test_a_second_process_on_one_data_directory_refuses_with_one_line(simulator: Simulator, tmp_path: Path) -> None:
    with served(simulator.base_url, tmp_path) as proxy:
        second = penstock("serve", "--upstream", simulator.base_url, "--port", "0", "--data-dir", str(tmp_path))
        assert second.returncode == EX_CONFIG
        assert len(second.stderr.splitlines()) == 1
        assert str(tmp_path) in second.stderr
        assert str(proxy.process.pid) in second.stderr


def test_a_port_that_is_taken_is_said_in_one_line(simulator: Simulator, tmp_path: Path) -> None:
    port = simulator.url.rpartition(":")[2]
    said = penstock("serve", "--upstream", "https://p/v1", "--port", port, "--data-dir", str(tmp_path))
    assert said.returncode == EX_CONFIG
    assert len(said.stderr.splitlines()) == 1
    assert f"server.host, server.port: cannot listen on 127.0.0.1:{port}: Address already in use." in said.stderr


@pytest.mark.parametrize("host", ["999.1.1.1", "192.0.2.1", "a" * 64, "::ffff:zz"])
def test_a_host_that_is_none_of_ours_is_said_in_the_systems_words(host: str, tmp_path: Path) -> None:
    said = penstock("serve", "--upstream", "https://p/v1", "--host", host, "--port", "0", "--data-dir", str(tmp_path))
    assert said.returncode == EX_CONFIG
    (line,) = said.stderr.splitlines()
    where = f"[{host}]:0" if ":" in host else f"{host}:0"
    assert line.startswith(f"penstock: server.host, server.port: cannot listen on {where}: ")
    assert "in use" not in line
    assert "while attempting" not in line


@pytest.mark.parametrize("begun", [False, True])
def test_a_second_sigterm_ends_what_is_open_in_our_name(begun: bool, scripted: Scripted, tmp_path: Path) -> None:
    with served(scripted.base_url, tmp_path) as proxy, Wire(proxy.url, ask("endless", stream=True)) as wire:
        turn = scripted.turn()
        if begun:
            turn.head()
            turn.send(chunk("Hello"))
            wire.read_head()
            assert b"Hello" in wire.read_event()
        proxy.process.send_signal(signal.SIGTERM)
        eventually(lambda: httpx.get(proxy.url + "/readyz").status_code == 503)
        assert proxy.end() == (0, "")  # nothing is said of the provider, which did nothing wrong
        if not begun:
            assert wire.read_head().status == 503
        (said,) = wire.read_events()
        assert b'"code":"shutting_down"' in said
    assert turn.gone.wait(DEADLINE)


def test_a_killed_proxy_starts_again_and_answers_what_it_had(simulator: Simulator, tmp_path: Path) -> None:
    with served(simulator.base_url, tmp_path) as proxy:
        before = [without_id(proxy.ask(ask(f"kept {number}"))) for number in range(5)]
        eventually(lambda: penstock("cache", "stats", "--data-dir", str(tmp_path)).stdout.startswith("entries  5\n"))
        proxy.end(signal.SIGKILL)
    simulator.forget()
    with served(simulator.base_url, tmp_path) as proxy:
        answers = [proxy.ask(ask(f"kept {number}")) for number in range(5)]
        assert all(answer.headers["cache-status"].startswith("penstock; hit") for answer in answers)
        assert [without_id(answer) for answer in answers] == before
    assert simulator.asked() == 0


def test_a_purge_reaches_a_running_proxy(simulator: Simulator, tmp_path: Path) -> None:
    with served(simulator.base_url, tmp_path) as proxy:
        proxy.ask(ask("to be forgotten"))
        assert proxy.ask(ask("to be forgotten")).headers["cache-status"].startswith("penstock; hit")
        purged = penstock("cache", "purge", "--yes", "--data-dir", str(tmp_path))
        assert purged.returncode == 0, purged.stderr
        eventually(lambda: proxy.ask(ask("to be forgotten"), **{"cache-control": "only-if-cached"}).status_code == 504)
        assert proxy.ask(ask("to be forgotten")).headers["cache-status"] == "penstock; fwd=miss; stored"
        assert proxy.ask(ask("to be forgotten")).headers["cache-status"].startswith("penstock; hit")


def kept(directory: Path, *owners: str) -> None:
    """A cache with answers of two keys and two models."""
    disk = DiskTier(directory / "cache", 64 << 20)
    for owner in owners or ("team-a", "team-b"):
        for model in ("m", "n"):
            key = f"{owner}{model}".encode().ljust(32)
            disk.put(key, pack(Entry(Meta(key, "json", "p", model, 1, 60, 0, False, True, owner=owner), b"{}", ())), 60)
    disk.close()


def test_a_purge_of_some_forgets_these_and_no_others(tmp_path: Path) -> None:
    kept(tmp_path)
    config = tmp_path / "penstock.toml"
    config.write_text(
        f'[data]\ndirectory = "{tmp_path}"\n[providers.p]\nbase_url = "https://p/v1"\nauth = "none"\n'
        '[models.ours]\nprovider = "p"\nupstream = "n"\n'
        '[[keys]]\nname = "team-a"\nkey_env = "A"\n[[keys]]\nname = "team-c"\nkey_env = "C"\n'
    )
    at = ("--data-dir", str(tmp_path))
    said = [
        penstock("cache", "purge", "--key", "team-a", "--config", str(config), told="n\n"),
        penstock("cache", "purge", "--key", "team-c", "--yes", "--config", str(config)),
        penstock("cache", "purge", "--key", "team-a", "--config", str(config), told="y\n"),
        penstock("cache", "purge", "--model", "ours", "--yes", *at),
        penstock("cache", "purge", "--model", "ours", "--yes", "--config", str(config)),
    ]
    assert [each.returncode for each in said] == [1, 0, 0, 0, 0], said
    assert "Forget the answers of key 'team-a' in " in said[0].stdout
    assert [each.stdout.splitlines()[-1].split()[-3:] for each in said[1:]] == [
        [number, "answers", "forgotten."] for number in ("0", "2", "0", "1")
    ]
    assert penstock("cache", "stats", *at).stdout.startswith("entries  1\n")


def test_a_purge_of_a_key_is_of_all_that_had_its_name_and_of_none_that_is_not_known(tmp_path: Path) -> None:
    first, _ = create_key(tmp_path, Grant("team"), now=1.0)
    revoke_key(tmp_path, first.id, now=2.0)
    second, _ = create_key(tmp_path, Grant("team"), now=3.0)
    kept(tmp_path, first.id, second.id, "other")
    at = ("--yes", "--data-dir", str(tmp_path))
    unknown = penstock("cache", "purge", "--key", "teem", *at)
    assert (unknown.returncode, unknown.stdout, unknown.stderr) == (1, "", "Error: There is no key 'teem'.\n")
    assert penstock("cache", "purge", "--key", first.id, *at).stdout == "2 answers forgotten.\n"
    assert penstock("cache", "purge", "--key", "team", *at).stdout == "2 answers forgotten.\n"
    assert penstock("cache", "stats", "--data-dir", str(tmp_path)).stdout.startswith("entries  2\n")


def test_a_purge_of_one_answer_finds_it_by_its_request(tmp_path: Path) -> None:
    kept(tmp_path)
    made = open_database(tmp_path)
    row = {"at": 1.0, "id": "req-1", "entry": b"team-bn".ljust(32), "key": "team-b", "endpoint": "chat", "asked": "n"}
    row |= {"outcome": "miss", "status": 200, "provider": "p", "model": "n", "total": 1.0}
    with made.connect() as connection:
        connection.execute(insert(requests), row)
    made.dispose()
    at = ("--yes", "--data-dir", str(tmp_path))
    unknown = penstock("cache", "purge", "--request", "req-2", *at)
    assert (unknown.returncode, unknown.stdout) == (1, "")
    assert "no kept answer to a request 'req-2' is known" in unknown.stderr
    assert penstock("cache", "purge", "--request", "req-1", *at).stdout == "1 answers forgotten.\n"
    assert penstock("cache", "stats", "--data-dir", str(tmp_path)).stdout.startswith("entries  3\n")


def test_a_purge_names_one_thing_at_a_time(tmp_path: Path) -> None:
    kept(tmp_path)
    said = penstock("cache", "purge", "--yes", "--key", "team-a", "--model", "m", "--data-dir", str(tmp_path))
    assert said.returncode == 2
    assert "name one of --key, --model and --request." in said.stderr
    assert penstock("cache", "stats", "--data-dir", str(tmp_path)).stdout.startswith("entries  4\n")


def test_cache_commands_without_a_cache_say_so(tmp_path: Path) -> None:
    for command in (("stats",), ("purge", "--yes")):
        said = penstock("cache", *command, "--data-dir", str(tmp_path / "nothing"))
        assert said.returncode == EX_CONFIG
        assert "there is no cache here; name the proxy's settings with --config, or its data" in said.stderr
        assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[providers.p]\nbase_url = "https://p/v1"\nunknown = 1\n', "providers.p.unknown"),
        ('[providers.p]\nbase_url = "https://p/v1"\n[cache]\nttl = "7x"\n', "cache.ttl"),
        ("[cache]\nttl = 5\n", "providers"),
        ("not toml", "not TOML"),
        ('[server]\nhost = "0.0.0.0"\n[providers.p]\nbase_url = "https://p/v1"\napi_key_env = "K"\n', "server.host"),
    ],
)
def test_check_config_names_what_is_wrong(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(text)
    checked = penstock("check-config", str(file))
    assert checked.returncode == EX_CONFIG
    assert len(checked.stderr.splitlines()) == 1
    assert said in checked.stderr
    assert str(file) in checked.stderr


def test_check_config_says_which_keys_serve_will_need(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text('[providers.p]\nbase_url = "https://p/v1"\napi_key_env = "NO_SUCH_KEY"\n')
    checked = penstock("check-config", str(file))
    assert checked.returncode == 0
    assert "$NO_SUCH_KEY" in checked.stdout
    assert "NO_SUCH_KEY" not in penstock("check-config", str(file), NO_SUCH_KEY="sk").stdout
    served = penstock("serve", "--config", str(file))
    assert served.returncode == EX_CONFIG
    assert "providers.p.api_key_env" in served.stderr


def test_check_config_says_who_answers_for_each_route(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    provider = '[providers.p]\nbase_url = "http://127.0.0.1:9/v1"\nauth = "none"\n'
    file.write_text(provider + '[routes.good]\nmodels = ["a", "b"]\nbaseline = "b"\n')
    checked = penstock("check-config", str(file))
    assert (checked.returncode, "route good: a, b; baseline b" in checked.stdout) == (0, True)


def test_check_config_and_serve_say_that_a_cache_in_shadow_mode_answers_nothing(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    rest = f'[data]\ndirectory = "{tmp_path}/data"\n[providers.p]\nbase_url = "https://p/v1"\n'
    file.write_text(rest)
    assert "shadow" not in penstock("check-config", str(file)).stdout
    file.write_text(f'[cache]\nmode = "shadow"\n{rest}')
    assert 'note: cache.mode is "shadow": every request goes' in penstock("check-config", str(file)).stdout
    code, said = Served("--config", str(file)).end()
    assert (code, "every request goes to the provider and is paid" in said) == (0, True)


def test_check_config_notes_an_address_that_is_most_likely_a_mistake(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text('[providers.p]\nbase_url = "https://p/v1/chat/completions"\n')
    checked = penstock("check-config", str(file))
    assert checked.returncode == 0
    assert "note: providers.p.base_url: https://p/v1/chat/completions names an endpoint" in checked.stdout


def test_serve_needs_a_provider_and_only_one_way_to_name_it(tmp_path: Path) -> None:
    for arguments in ([], ["--upstream", "https://p/v1", "--config", "penstock.toml"]):
        said = penstock("serve", *arguments)
        assert said.returncode == EX_CONFIG
        assert "--upstream" in said.stderr
        assert len(said.stderr.splitlines()) == 1


def test_what_the_command_line_says_goes_over_the_file(simulator: Simulator, tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(f'[server]\nport = {free_port()}\n[providers.p]\nbase_url = "{simulator.base_url}"\n')
    proxy = Served("--config", str(file), "--data-dir", str(tmp_path / "here"))
    assert (tmp_path / "here" / "secret").exists()
    assert proxy.end() == (0, "")


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["serve"],
        ["simulator"],
        ["check-config"],
        ["demo"],
        ["explain"],
        ["simulate"],
        ["batch"],
        ["cache"],
        ["keys"],
        ["keys", "create"],
        ["keys", "list"],
        ["keys", "show"],
        ["keys", "revoke"],
        ["report"],
        ["cache", "stats"],
        ["cache", "purge"],
    ],
)
def test_every_command_explains_itself(command: list[str]) -> None:
    said = penstock(*command, "--help")
    assert said.returncode == 0
    assert "Usage:" in said.stdout
    assert len(said.stdout.splitlines()) > 5


def test_the_benchmark_says_what_it_does_without_doing_it() -> None:
    command = [sys.executable, "-m", "bench", "--help"]
    root = Path(__file__).resolve().parent.parent
    said = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, cwd=root, check=True)
    assert said.stdout.startswith("`make bench`: ")
    assert "Penstock │" not in said.stdout


def test_the_key_of_a_provider_with_a_dotted_name_reaches_it(simulator: Simulator, tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    provider = f'[providers."a.b"]\nbase_url = "{simulator.base_url}"\napi_key_env = "DOTTED_KEY"\n'
    file.write_text(f'[data]\ndirectory = "{tmp_path}/data"\n{provider}')
    os.environ["DOTTED_KEY"] = "sk-dotted"
    try:
        proxy = Served("--config", str(file))
    finally:
        del os.environ["DOTTED_KEY"]
    proxy.ask(ask("who pays"), authorization="Bearer sk-client")
    assert simulator.last()["headers"]["authorization"] == "Bearer sk-dotted"
    assert proxy.end() == (0, "")
