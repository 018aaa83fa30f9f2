"""`penstock batch` as people run it: processes, signals, exit codes, files."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Final

import pytest
from click.testing import CliRunner

from proxy.cli import main
from tests.batch.making import line, results, said, written
from tests.conftest import MakeProxy
from tests.support import CHAT, DEADLINE, Json, Simulator, ask, eventually, free_port

LINES: Final = 200
DISTINCT: Final = 150
AT_ONCE: Final = 4
EX_CONFIG: Final = 78
STOPPED: Final = 130
AGAIN: Final = "give the same command again: what was answered is not asked again."


class Batch:
    """`penstock batch` on files in a folder, from `in.jsonl` to `out.jsonl`."""

    def __init__(self, folder: Path, *arguments: str, **environment: str) -> None:
        self.output = folder / "out.jsonl"
        self._log = folder / "log"
        files = [str(folder / "in.jsonl"), "-o", str(self.output)]
        command = [sys.executable, "-m", "proxy", "batch", *files, *arguments]
        env = {**os.environ, "OPENAI_API_KEY": "sk-batch", **environment}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=env)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def came(self) -> int:
        """How many results are on the disk by now."""
        partial = self.output.with_name("out.jsonl.partial")
        return partial.read_bytes().count(b"\n") if partial.exists() else 0

    def tell(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def end(self) -> tuple[int, str]:
        """Its exit code and what it said on stdout, once it has ended."""
        told, _ = self._process.communicate(timeout=DEADLINE)
        return self._process.returncode, told

    def kill(self) -> None:
        if self.runs:
            self._process.kill()
        self._process.communicate(timeout=DEADLINE)


Start = Callable[..., Batch]


@pytest.fixture
def start(tmp_path: Path, simulator: Simulator) -> Iterator[Start]:
    """Before the simulator, on one data directory."""
    with contextlib.ExitStack() as stack:

        def begin(*arguments: str, **environment: str) -> Batch:
            chosen = any(each in ("--config", "--proxy") for each in arguments)
            where = () if chosen else ("--upstream", simulator.base_url, "--data-dir", str(tmp_path / "data"))
            one = Batch(tmp_path, *where, "--concurrency", str(AT_ONCE), *arguments, **environment)
            stack.callback(one.kill)
            return one

        yield begin


def question(number: int) -> Json:
    return ask(f"question {number}", max_tokens=5)


def filled(folder: Path, lines: int = LINES, distinct: int = DISTINCT) -> None:
    written(folder / "in.jsonl", [line(number, question(number % distinct)) for number in range(lines)])


def ids(path: Path) -> list[str]:
    return [each["custom_id"] for each in results(path)]


def reported(data: Path) -> dict[str, Json]:
    """What the ledger says, by outcome."""
    arguments = ["report", "--by", "outcome", "--format", "json", "--data-dir", str(data)]
    groups: list[Json] = json.loads(CliRunner().invoke(main, arguments).stdout)["groups"]
    return {group["outcome"]: group for group in groups}


def test_a_batch_that_is_stopped_and_killed_comes_to_its_end_and_pays_nothing_twice_but_what_was_under_way(
    start: Start, simulator: Simulator, tmp_path: Path
) -> None:
    filled(tmp_path)
    stopped = start()
    eventually(lambda: stopped.came() >= 40)
    with simulator.closed():
        eventually(lambda: simulator.waiting() == AT_ONCE)
        stopped.tell(signal.SIGINT)
        eventually(lambda: "Stopping: nothing new is begun, 4 under way are finished" in stopped.log)
        before = stopped.came()
        assert stopped.runs
    assert stopped.end() == (STOPPED, "")
    assert "To go on, give the same command again" in stopped.log
    assert stopped.came() == before + AT_ONCE == simulator.asked()

    killed = start()
    eventually(lambda: killed.came() >= 100)
    with simulator.closed():
        eventually(lambda: simulator.waiting() == AT_ONCE)
        killed.kill()
    before = killed.came()

    last = start()
    code, told = last.end()
    assert (code, "200 lines" in told, str(last.output) in told) == (0, True, True)
    assert f"({before} answered before)" in told
    assert ids(last.output) == [f"line-{number}" for number in range(LINES)]
    found = results(last.output)
    assert {each["response"]["status_code"] for each in found} == {200}
    assert len({each["id"] for each in found}) == LINES
    for number, each in enumerate(found):
        assert said(each) == said(found[number % DISTINCT])
    assert simulator.asked() == DISTINCT + AT_ONCE
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "in.jsonl", "log", "out.jsonl"]


def test_a_second_ctrl_c_ends_what_is_under_way(start: Start, simulator: Simulator, tmp_path: Path) -> None:
    filled(tmp_path)
    one = start()
    eventually(lambda: one.came() >= 10)
    with simulator.closed():
        eventually(lambda: simulator.waiting() == AT_ONCE)
        before = one.came()
        one.tell(signal.SIGTERM)
        eventually(lambda: "Stopping" in one.log)
        one.tell(signal.SIGTERM)
        assert one.end() == (STOPPED, "")
        assert one.came() == before
    assert "Traceback" not in one.log
    # What it had asked for is told as of a client that left, and may have been paid for.
    told = reported(tmp_path / "data")
    assert (told["left"]["requests"], told["left"]["attempts"]) == (AT_ONCE, AT_ONCE)
    assert told.keys() == {"left", "miss"}


# Gives itself a signal when it comes to import that module.
EARLY = """
import os, sys
from proxy.cli import main

module, number = sys.argv[1], int(sys.argv[2])
del sys.argv[1:3]

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            os.kill(os.getpid(), number)

sys.meta_path.insert(0, Finder())
main()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("module", ["proxy.batch.command", "uvloop", "proxy.batch.workers"])
def test_who_is_stopped_before_it_has_begun_says_how_to_go_on(
    module: str, number: signal.Signals, tmp_path: Path
) -> None:
    filled(tmp_path, 1)
    files = [str(tmp_path / "in.jsonl"), "-o", str(tmp_path / "out.jsonl"), "--upstream", "http://127.0.0.1:9/v1"]
    command = [sys.executable, "-c", EARLY, module, str(int(number)), "batch", *files]
    run = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False)
    assert (run.returncode, run.stdout) == (STOPPED, "")
    assert run.stderr == f"To go on, {AGAIN}\n"
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_stopped_while_its_settings_are_read_says_how_to_go_on(
    number: signal.Signals, start: Start, tmp_path: Path
) -> None:
    filled(tmp_path, 1)
    os.mkfifo(tmp_path / "settings.toml")
    one = start("--config", str(tmp_path / "settings.toml"))
    with (tmp_path / "settings.toml").open("w"):  # as soon as it has opened it
        one.tell(number)
        assert one.end() == (STOPPED, "")
    assert one.log == f"To go on, {AGAIN}\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_who_is_stopped_before_anybody_is_there_to_be_asked_does_not_wait_for_it(
    number: signal.Signals, start: Start, tmp_path: Path
) -> None:
    filled(tmp_path, 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(DEADLINE)
        one = start("--proxy", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with silent.accept()[0]:
            one.tell(number)
            assert one.end() == (STOPPED, "")
    assert one.log == f"0 of 2 lines done. To go on, {AGAIN}\n"
    assert not (tmp_path / "out.jsonl.partial").exists()


def test_each_error_is_in_its_line_and_is_asked_again_the_next_time(
    start: Start, simulator: Simulator, tmp_path: Path
) -> None:
    bad = {"model": "sim-instant;status=400", "messages": [{"role": "user", "content": "?"}]}
    once = ask("once", model="sim-instant;fail=1;status=400")
    lines = [line(0), line(1, bad), "nonsense", line(0), line(4, once), line(5, {"model": "sim-instant"}), "", line(6)]
    written(tmp_path / "in.jsonl", lines)
    code, told = start().end()
    assert code == 1
    first, *kinds, advice, where = told.splitlines()
    assert "7 lines, 0 hits, 0 joined, 5 errors" in first
    assert sorted(kind.partition(":")[0] for kind in kinds) == [
        "  1 × 400 missing_required_parameter",
        "  1 × duplicate_custom_id",
        "  1 × invalid_json_line",
        "  2 × 400 invalid_request_error",
    ]
    assert (advice, where) == (
        "What failed is asked anew when the same command is given again.",
        f"The results are in {tmp_path / 'out.jsonl'}.",
    )
    found = results(tmp_path / "out.jsonl")
    assert [each["custom_id"] for each in found] == ["line-0", "line-1", None, "line-0", "line-4", "line-5", "line-6"]
    assert [each["response"] and each["response"]["status_code"] for each in found] == [
        *(200, 400, None),
        *(None, 400, 400, 200),
    ]
    assert [each["error"] and each["error"]["code"] for each in found[2:4]] == [
        "invalid_json_line",
        "duplicate_custom_id",
    ]
    assert found[5]["response"]["body"]["error"]["type"] == "invalid_request_error"
    asked = simulator.asked()
    code, told = start().end()
    assert (code, "(2 answered before)" in told, "4 errors" in told) == (1, True, True)
    again = results(tmp_path / "out.jsonl")
    assert again[0] == found[0]
    assert again[4]["response"]["status_code"] == 200
    assert simulator.asked() - asked == asked - 2


def test_who_is_told_to_come_again_does(start: Start, simulator: Simulator, tmp_path: Path) -> None:
    later = "sim-instant;fail=2;status=429;retry-after=0"
    written(tmp_path / "in.jsonl", [line(0, ask("again", model=later)), line(1)])
    code, told = start().end()
    assert (code, "errors" in told) == (0, False)
    assert [each["response"]["status_code"] for each in results(tmp_path / "out.jsonl")] == [200, 200]


def test_the_key_is_shown_and_only_if_there_is_one(start: Start, simulator: Simulator, tmp_path: Path) -> None:
    filled(tmp_path, 1)
    assert start().end()[0] == 0
    assert simulator.last()["headers"]["authorization"] == "Bearer sk-batch"
    filled(tmp_path, 2)
    assert start("--key-env", "ANOTHER", ANOTHER=" sk-another ").end()[0] == 0
    assert simulator.last()["headers"]["authorization"] == "Bearer sk-another"
    one = start("--key-env", "NO_SUCH")
    assert (one.end(), one.log) == (
        (EX_CONFIG, ""),
        "penstock: --key-env: the environment variable NO_SUCH is not set.\n",
    )
    filled(tmp_path, 3)
    assert start(OPENAI_API_KEY="").end()[0] == 0
    assert "authorization" not in simulator.last()["headers"]


def test_a_running_proxy_is_asked_over_http_and_a_directory_in_use_says_so(
    start: Start, make_proxy: MakeProxy, simulator: Simulator, tmp_path: Path
) -> None:
    proxy = make_proxy()
    proxy.http.post(CHAT, json=question(1), headers={"authorization": "Bearer sk-batch"}).raise_for_status()
    filled(tmp_path, 6, 3)
    inside = start("--data-dir", str(proxy.directory))
    code, told = inside.end()
    assert (code, told) == (EX_CONFIG, "")
    (words,) = inside.log.splitlines()
    assert f"{proxy.directory} is in use by process {os.getpid()}" in words
    assert words.endswith("; or let the proxy that runs there do the work: --proxy http://HOST:PORT")
    code, told = start("--proxy", proxy.base_url).end()
    assert (code, "6 lines" in told) == (0, True)
    assert simulator.asked() == 3
    assert [each["response"]["status_code"] for each in results(tmp_path / "out.jsonl")] == [200] * 6


def test_what_makes_no_sense_together_is_said_in_one_line(start: Start, simulator: Simulator, tmp_path: Path) -> None:
    filled(tmp_path, 1)
    for arguments, words in (
        (["--proxy", f"http://127.0.0.1:{free_port()}"], "cannot be reached"),
        (["--proxy", "http://127.0.0.1:9", "--data-dir", "x"], "has settings and data of its own"),
        (["--proxy", "http://127.0.0.1:9", "--dry-run"], "name the settings of that proxy with --config"),
        (["--config", "x.toml", "--upstream", "http://127.0.0.1:9"], "say who is asked, by one of these: --config"),
    ):
        one = start(*arguments)
        assert one.end() == (EX_CONFIG, "")
        assert words in one.log
        assert len(one.log.splitlines()) == 1
    assert simulator.asked() == 0
    assert not (tmp_path / "out.jsonl.partial").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["in", "-o", "out"],
            "say who is asked, by one of these: --config FILE, or --upstream URL, or --proxy URL, where",
        ),
        (["in", "--dry-run"], "say who is asked, by one of these: --config FILE, or --upstream URL."),
        (["-", "-o", "out", "--upstream", "http://127.0.0.1:9/v1"], "REQUESTS: - stands for no file here"),
        (["in", "-o", "-", "--upstream", "http://127.0.0.1:9/v1"], "--output: - stands for no file here"),
        (["-", "--dry-run", "--upstream", "http://127.0.0.1:9/v1"], "REQUESTS: - stands for no file here"),
    ],
)
def test_what_lacks_or_cannot_be_is_said_in_a_batchs_own_words(arguments: list[str], words: str) -> None:
    run = CliRunner().invoke(main, ["batch", *arguments])
    assert (run.exit_code, run.stdout) == (EX_CONFIG, "")
    assert run.stderr.startswith(f"penstock: {words}")
    assert len(run.stderr.splitlines()) == 1


def test_an_output_that_is_not_this_batchs_is_not_touched_and_nobody_is_asked(
    start: Start, simulator: Simulator, tmp_path: Path
) -> None:
    filled(tmp_path, 1)
    (tmp_path / "out.jsonl").write_text("my thesis\n")
    for arguments in ([], ["--dry-run"]):
        one = start(*arguments)
        assert one.end() == (EX_CONFIG, "")
        assert "out.jsonl holds 1 line, and no result of these requests; name another file, or remove it." in one.log
    assert (tmp_path / "out.jsonl").read_text() == "my thesis\n"
    assert simulator.asked() == 0


def test_results_of_an_edited_file_of_requests_are_kept(start: Start, simulator: Simulator, tmp_path: Path) -> None:
    filled(tmp_path, 3)
    assert start().end()[0] == 0
    written(tmp_path / "in.jsonl", [line(number, question(number)) for number in (1, 2, 3)])
    one = start()
    code, told = one.end()
    assert (code, "3 lines (2 answered before)" in told) == (0, True)
    assert "out.jsonl has 1 line of none of these requests; the end will move them to" in one.log
    assert told.endswith(f"What it held of none of these requests is in {tmp_path}/out.jsonl.old.\n")
    assert (ids(tmp_path / "out.jsonl"), ids(tmp_path / "out.jsonl.old")) == (
        ["line-1", "line-2", "line-3"],
        ["line-0"],
    )
    assert simulator.asked() == 4


def test_two_at_once_on_one_output_is_one_too_many(start: Start, simulator: Simulator, tmp_path: Path) -> None:
    filled(tmp_path, 20)
    with simulator.closed():
        one = start()
        eventually(lambda: simulator.waiting() == AT_ONCE)
        other = start()
        assert other.end() == (EX_CONFIG, "")
    assert one.end()[0] == 0
    assert len(results(tmp_path / "out.jsonl")) == 20


def test_a_dry_run_says_what_a_run_then_pays(start: Start, simulator: Simulator, tmp_path: Path) -> None:
    filled(tmp_path, 40, 30)
    config = tmp_path / "penstock.toml"
    config.write_text(
        f'[data]\ndirectory = "{tmp_path}/data"\n[providers.sim]\nbase_url = "{simulator.base_url}"\n'
        '[models.sim-instant]\nprice = { input = "1", output = "2" }\n'
    )
    before = sorted(path.name for path in tmp_path.iterdir())
    code, told = start("--config", str(config), "--dry-run").end()
    assert (code, simulator.asked()) == (0, 0)
    assert [name for name in sorted(path.name for path in tmp_path.iterdir()) if name != "log"] == before
    assert "40 requests, 30 distinct; the cache holds 0 of these, so 30 would be asked." in told
    row = next(each for each in told.splitlines() if "sim-instant" in each).replace(" ", "").split("│")
    assert row[2:4] == ["30", "300"]
    code, paid = start("--config", str(config)).end()
    assert code == 0
    assert f"cost ${Decimal(row[4]):.6f}" in paid
    assert simulator.calls()["by_model"]["sim-instant"]["prompt_tokens"] == 300
    assert Decimal(row[5]) >= Decimal(row[4]) == Decimal("0.0006")
    with (tmp_path / "in.jsonl").open("a") as file:
        file.write(line(40, question(40)) + "\n")
    _, told = start("--config", str(config), "--dry-run").end()
    assert "40 are answered already." in told
    assert "1 request, 1 distinct; the cache holds 0 of these, so 1 would be asked." in told
    (tmp_path / "out.jsonl").unlink()
    _, told = start("--config", str(config), "--dry-run").end()
    assert "41 requests, 31 distinct; the cache holds 30 of these, so 1 would be asked." in told


def test_a_dry_run_refuses_what_a_run_does(start: Start, simulator: Simulator, tmp_path: Path) -> None:
    large = ask("large", max_tokens=100)
    written(tmp_path / "in.jsonl", [line(0, question(0)), line(1, large)])
    config = tmp_path / "penstock.toml"
    config.write_text(
        f'[data]\ndirectory = "{tmp_path}/data"\n[providers.sim]\nbase_url = "{simulator.base_url}"\n'
        "tokens_per_minute = 50\n"
    )
    code, told = start("--config", str(config), "--dry-run").end()
    assert (code, "2 lines, 1 would be refused.\n  line 2: This request may take" in told) == (1, True)
    code, told = start("--config", str(config)).end()
    assert (code, "  1 × 429 request_over_limit: This request may take" in told) == (1, True)
    assert simulator.asked() == 1


def test_it_needs_the_name_of_an_output_but_for_a_dry_run(simulator: Simulator, tmp_path: Path) -> None:
    filled(tmp_path, 1)
    command = [sys.executable, "-m", "proxy", "batch", str(tmp_path / "in.jsonl"), "--upstream", simulator.base_url]
    run = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, check=False, cwd=tmp_path)
    assert (run.returncode, "--output" in run.stderr) == (2, True)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    dry = subprocess.run(
        [*command, "--dry-run"], capture_output=True, text=True, timeout=DEADLINE, check=False, cwd=tmp_path, env=env
    )
    assert (dry.returncode, "1 request, 1 distinct" in dry.stdout) == (0, True)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_batch_of_nothing_is_done(start: Start, tmp_path: Path) -> None:
    written(tmp_path / "in.jsonl", [])
    assert start().end()[0] == 0
    assert (tmp_path / "out.jsonl").read_bytes() == b""
    assert json.dumps(ids(tmp_path / "out.jsonl")) == "[]"
