"""`penstock explain` and `penstock simulate` as people run them: output, exit codes, one clear line."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.support import ask
from tests.test_commands import EX_CONFIG, penstock

ROUTED = """
[providers.p]
base_url = "http://127.0.0.1:9/v1"
auth = "none"
[models.dear]
price = { input = "9", output = "9" }
[models.cheap]
price = { input = "1", output = "2" }
[routes.any]
models = ["dear", "cheap"]
[routes.dearest]
models = ["dear"]
[[keys]]
name = "team"
key_sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
"""
TRACE = "t_seconds,kind,input_tokens,output_tokens,prefix_ids,session,turn\n" + "".join(
    f"{number},chat,1000,100,1-2 {number + 9},,\n" for number in range(20)
)


@pytest.fixture
def routed(tmp_path: Path) -> str:
    """A file of settings with a route whose second model is the cheaper one; nobody listens at its provider."""
    file = tmp_path / "penstock.toml"
    file.write_text(f'{ROUTED}\n[data]\ndirectory = "{tmp_path}/data"\n')
    return str(file)


def assert_one_line(said: subprocess.CompletedProcess[str], words: str) -> None:
    assert said.returncode == EX_CONFIG
    (line,) = said.stderr.splitlines()
    assert words in line
    assert not said.stdout


def test_explain_ranks_a_request_of_a_file_or_of_stdin_and_asks_nobody(routed: str, tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text(json.dumps(ask("Hello", model="any")))
    explained = penstock("explain", str(request), "--config", routed, "--key", "team", "-H", "x-penstock-ttl: 5")
    assert (explained.returncode, explained.stderr) == (0, "")
    assert "cheap is asked first: the lowest expected cost." in explained.stdout
    assert max(map(len, explained.stdout.splitlines())) <= 160
    assert not (tmp_path / "data").exists()
    limit = "x-penstock-max-cost-usd: 0"
    capped = penstock("explain", "-", "--config", routed, "-H", limit, told=request.read_text())
    assert (capped.returncode, capped.stderr) == (1, "")
    assert "Nobody may be asked." in capped.stdout


@pytest.mark.parametrize(
    ("told", "options", "words"),
    [
        ("no JSON", [], "the request: "),
        ('{"model": "any"}', ["--key", "nobody"], "--key: there is no key named 'nobody'"),
        ('{"model": "any"}', ["-H", "nonsense"], "--header: 'nonsense' is no header"),
        ('{"model": "any"}', ["--config", "/nowhere/penstock.toml"], "/nowhere/penstock.toml"),
    ],
)
def test_explain_says_in_one_line_what_makes_no_sense(told: str, options: list[str], words: str, routed: str) -> None:
    assert_one_line(penstock("explain", "-", "--config", routed, *options, told=told), words)


def test_explain_needs_a_file_that_is_there(routed: str, tmp_path: Path) -> None:
    said = penstock("explain", str(tmp_path / "nothing.json"), "--config", routed)
    assert said.returncode == 2
    assert "nothing.json" in said.stderr


def test_simulate_tells_what_a_log_would_have_cost(routed: str, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(TRACE)
    said = penstock("simulate", str(trace), "--config", routed, "--route", "any", "--limit", "10")
    assert (said.returncode, said.stderr) == (0, "")
    assert "10 requests" in said.stdout
    rows = {line.split("│")[1].strip(): line for line in said.stdout.splitlines() if line.startswith("│")}
    assert "0.0990" in rows["named"]  # 10 × (1,000 × 9 + 100 × 9)
    assert "0.0120" in rows["per token"]  # 10 × (1,000 × 1 + 100 × 2)
    assert "0.0120" in rows["penstock"]
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        (TRACE, ["--route", "nobody"], "--route: there is no [routes.nobody]; there is: any, dearest"),
        (TRACE, [], "--route: which? There is: any, dearest"),
        (TRACE + "x,chat,1,1,,,\n", ["--route", "any"], ":22: t_seconds: 'x' is no time"),
        (None, ["--route", "any"], "cannot be read: No such file or directory"),
    ],
)
def test_simulate_says_in_one_line_what_makes_no_sense(
    text: str | None, options: list[str], words: str, routed: str, tmp_path: Path
) -> None:
    trace = tmp_path / "trace.csv"
    if text is not None:
        trace.write_text(text)
    assert_one_line(penstock("simulate", str(trace), "--config", routed, *options), words)
