"""The clients that run on Node: a file of tests each, run by Node's own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("client", ["openai", "ai"])
def test_a_client_that_runs_on_node(client: str, simulator: str, proxy: str) -> None:
    node = shutil.which("node") if (HERE / "node_modules").exists() else None
    if node is None and os.environ.get("CI") != "true":
        pytest.skip("there is no Node here")
    assert node, "there is no Node here"
    environment = os.environ | {"SIMULATOR": simulator, "PROXY": proxy}
    command = [node, "--test", "--test-reporter=spec", f"{client}.test.mjs"]
    run = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
