"""The house's own rules: who may import whom, what has its test, what no file may say, what the locks hold."""

import ast
import os
import re
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import proxy

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())

# Who may import what. Names are modules of `proxy` (and `pricing`); a package stands for all that is in it, and each
# may import itself. `basis`, `edges` and the like stand for the names below; edges never import each other. `std` is
# what of the standard library: `pure` reaches no clock, no file, no socket and no chance.
TABLE = """
who        | std  | of ours                                                  | of others
-----------|------|----------------------------------------------------------|-----------------------------------------
pricing    | pure |                                                          | msgspec tiktoken importlib.resources lzma
errors     | pure |                                                          | msgspec
core       | pure | pricing errors                                           | msgspec
settings   | any  | pricing core                                             | msgspec
rights     | any  | errors settings                                          |
checks     | any  | pricing errors settings rights                           |
reading    | any  | errors settings checks rights                            | msgspec
interfaces | any  | core errors                                              |
store      | any  | basis                                                    | msgspec diskcache
flights    | any  | basis                                                    |
transport  | any  | errors                                                   | httpx aiohttp yarl
upstream   | any  | basis settings transport                                 | msgspec httpx aiohttp yarl
limiter    | any  | basis                                                    |
ledger     | any  | pricing basis                                            | msgspec sqlalchemy alembic
meter      | any  | basis                                                    | prometheus_client
complaints | any  | errors                                                   |
ids        | any  |                                                          |
clock      | any  |                                                          |
recorder   | any  | basis settings flights                                   | msgspec
producer   | any  | basis complaints flights recorder claims accounts        |
router     | any  | pricing basis                                            | msgspec
claims     | any  | basis                                                    |
accounts   | any  | pricing basis flights recorder router claims             | msgspec
keeping    | any  | basis store                                              |
purging    | any  | basis store                                              |
offers     | any  | pricing core errors settings                             | msgspec
explain    | any  | pricing core errors settings offers router store clock keys ledger | rich
plans      | any  | basis                                                    | msgspec
storing    | any  | basis flights making plans                               | msgspec
pipeline   | any  | pricing basis settings edges making plans storing        | msgspec
gathered   | any  | pricing basis plans pipeline                             | msgspec
piecemeal  | any  | basis flights router accounts plans pipeline gathered    |
keyring    | any  | basis reading ledger                                     | msgspec
watching   | any  | basis settings flights limiter store meter founding      |
office     | any  | basis settings reading flights ledger meter keyring founding watching endpoints |
entrance   | any  | basis settings way endpoints                             | starlette
endpoints  | any  | basis settings ids complaints way                        | msgspec starlette
founding   | any  | basis settings checks edges keeping keyring purging      |
app        | any  | basis settings edges making founding watching way endpoints entrance | starlette
server     | any  | wire                                                     | starlette uvicorn
wire       | any  | errors connection cycle                                  | uvicorn httptools
cycle      | any  | connection                                               | uvicorn
connection | any  |                                                          |
simulator  | any  |                                                          | msgspec starlette
demo       | any  | pricing errors simulator                                 | msgspec httpx rich
prices     | any  | pricing settings offers                                  | rich
keys       | any  | basis settings checks reading keyring ledger             | rich
report     | any  | errors ledger                                            | rich
simulate   | any  | pricing core errors settings offers                      | rich msgspec
batch      | any  | basis settings edges founding app explain logs plans router | msgspec httpx rich starlette uvloop
logs       | any  | core settings                                            |
serving    | any  | basis settings app listening simulator logs              | click uvloop
cli        | any  | basis settings reading store ledger serving demo commands | click rich
__main__   | any  | cli                                                      |
proxy      | pure |                                                          | importlib.metadata
"""
GROUPS = {
    "basis": {"core", "errors", "interfaces", "proxy"},  # `proxy` itself says no more than its version
    "founding": {"founding", "transport", "clock", "keeping", "purging", "offers", "checks", "keyring", "office"},
    "way": {"plans", "pipeline", "gathered", "piecemeal"},
    "making": {"recorder", "producer", "router", "claims", "accounts"},
    "commands": {"offers", "prices", "explain", "report", "simulate", "batch", "checks", "keys"},
    "listening": {"server", "wire", "cycle", "connection"},
    "edges": {"store", "flights", "upstream", "limiter", "ledger", "meter", "ids", "complaints"},
}
PURE = """
abc array base64 binascii bisect collections contextlib copy dataclasses datetime decimal email.utils enum fractions
functools hashlib heapq hmac html itertools json keyword math operator re statistics string struct textwrap types typing
unicodedata urllib.parse zlib
"""
CLOCKS = {"now", "utcnow", "today"}
DOORS = {"open", "print", "input", "eval", "exec", "__import__"}
PICKLES = {"pickle", "_pickle", "cPickle", "shelve", "marshal", "dill", "cloudpickle", "joblib"}
ENVIRONMENT = {"os.environ", "os.environb", "os.getenv", "os.getenvb", "os.putenv", "sys.argv", "sys.orig_argv"}

# Source files without a test file of their own name, and what tests them instead.
COVERED_BY = {
    "proxy/app.py": "tests/test_wire.py",
    "proxy/cli.py": "tests/test_commands.py",
    "proxy/serving.py": "tests/test_commands.py",
    "proxy/clock.py": "tests/test_explain.py",
    "proxy/errors.py": "tests/endpoints/test_client.py",
    "proxy/endpoints/desk.py": "tests/test_sums.py",
    "proxy/endpoints/forms.py": "tests/test_wire.py",
    "proxy/endpoints/recorded.py": "tests/test_wire.py",
    "proxy/endpoints/embeddings.py": "tests/test_embeddings.py",
    "proxy/storing.py": "tests/test_pipeline.py",
    "proxy/endpoints/operations.py": "tests/endpoints/test_gate.py",
    "proxy/endpoints/stream.py": "tests/test_chat_stream.py",
    "proxy/checks.py": "tests/test_settings.py",
    "proxy/reading.py": "tests/test_settings.py",
    "proxy/rights.py": "tests/test_settings.py",
    "proxy/office.py": "tests/test_admin.py",
    "proxy/entrance.py": "tests/test_guarded.py",
    "proxy/wire.py": "tests/test_server.py",
    "proxy/connection.py": "tests/test_server.py",
    "proxy/core/load.py": "tests/test_overload.py",
    "proxy/plans.py": "tests/test_pipeline.py",
    "proxy/founding.py": "tests/test_faults_storage.py",
    "proxy/endpoints/money.py": "tests/test_money.py",
    "proxy/endpoints/calling.py": "tests/test_books.py",
    "proxy/core/bounds.py": "tests/core/test_ranking.py",
    "proxy/core/asker.py": "tests/test_claims.py",
    "proxy/core/books.py": "tests/test_accounts.py",
    "proxy/endpoints/passthrough.py": "tests/test_passthrough.py",
    "proxy/ledger/migrations/": "tests/ledger/test_opening.py",
    "proxy/interfaces.py": "tests/test_house.py",  # protocols: mypy holds them
    "proxy/simulator/": "tests/simulator/",
}

UNSAID = {
    "the address of a package index": r"pypi\.org|pythonhosted\.org|registry\.npmjs\.org|registry\.yarnpkg\.com",
    "a directory that only its developers have": r"\.\./shared\b",
    "a path of a developer's machine": r"(?<![\w.~-])/(?:work|root|Users)/",
}


class Row(NamedTuple):
    pure: bool
    ours: set[str]
    others: set[str]


def read_row(std: str, ours: str, others: str) -> Row:
    names = [GROUPS.get(name, {name}) for name in ours.split()]
    return Row(std == "pure", set().union(*names), set(others.split()))


def read_table(text: str) -> dict[str, Row]:
    rows = [[cell.strip() for cell in line.split("|")] for line in text.strip().splitlines()[2:]]
    return {who: read_row(*cells) for who, *cells in rows}


ROWS = read_table(TABLE)


def row_of(name: str) -> str | None:
    """`proxy.core.sse.Event` -> `core`, `pricing.cost` -> `pricing`, `proxy` -> `proxy`; None where no row fits."""
    top, *rest = name.split(".")
    if top != "proxy":
        return top if top in ROWS else None
    if rest:
        return rest[0] if rest[0] in ROWS else None
    return "proxy"


def imported(tree: ast.AST, module: str, *, package: bool) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, wherever it stands; of `from a import b` the name is `a.b`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".")
            above = parts[: len(parts) + package - node.level] if node.level else []
            origin = ".".join([*above, *filter(None, [node.module])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)


def among(name: str, allowed: set[str]) -> bool:
    """Is `a.b.c` one of the allowed, or in a package that is?"""
    parts = name.split(".")
    return any(".".join(parts[:n]) in allowed for n in range(1, len(parts) + 1))


def may_import(who: str, name: str) -> bool:
    row = ROWS[who]
    top, *_ = name.split(".")
    if top in {"proxy", "pricing"}:
        whom = "proxy" if name == "proxy.__version__" else row_of(name)
        return whom in {who, *row.ours}
    if among(name, row.others):
        return True
    return among(name, set(PURE.split())) if row.pure else top in sys.stdlib_module_names


def impurities(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            yield node.lineno, "is async"
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id in DOORS:
                yield node.lineno, f"calls {node.func.id}()"
            elif isinstance(node.func, ast.Attribute) and node.func.attr in CLOCKS:
                yield node.lineno, f"reads a clock: {ast.unparse(node.func)}()"


def wrongs(module: str, source: str, *, package: bool = False) -> list[str]:
    """What this source does that the table forbids, a line each."""
    who = row_of(module)
    if who is None:
        return [f"{module}: has no row in the table of imports"]
    tree = ast.parse(source)
    names = list(imported(tree, module, package=package))
    found = [(line, f"{who} may not import {name}") for line, name in names if not may_import(who, name)]
    found += [(line, f"imports {name}: never a pickle") for line, name in names if among(name, PICKLES)]
    if ROWS[who].pure:
        found += impurities(tree)
    if who != "cli":
        spoken = [(node.lineno, ast.unparse(node)) for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
        found += [(line, f"{name} is for cli alone") for line, name in names + spoken if name in ENVIRONMENT]
    return [f"{module}:{line}: {what}" for line, what in sorted(found)]


def sources() -> list[Path]:
    return sorted(path for top in ("pricing", "proxy") for path in (ROOT / top).rglob("*.py"))


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_imports_go_one_way_and_the_core_stays_pure() -> None:
    found = [
        wrong
        for path in sources()
        for wrong in wrongs(module_of(path), path.read_text("utf-8"), package=path.name == "__init__.py")
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("proxy.core.sse", "import asyncio", "core may not import asyncio"),
        ("proxy.core.sse", "import os.path", "core may not import os.path"),
        ("proxy.core.sse", "from urllib import request", "core may not import urllib.request"),
        ("proxy.core.sse", "def f():\n    from time import time", "core may not import time.time"),
        ("proxy.core.sse", "from datetime import datetime\ndatetime.now()", "reads a clock: datetime.now()"),
        ("proxy.core.sse", "async def f(): ...", "is async"),
        ("proxy.core.sse", "open('x')", "calls open()"),
        ("proxy.core.sse", "import httpx", "core may not import httpx"),
        ("proxy.core.sse", "from proxy.settings import Settings", "core may not import proxy.settings.Settings"),
        ("proxy.core.sse", "from proxy import flights", "core may not import proxy.flights"),
        ("proxy.core.sse", "from ..flights import Flights", "core may not import proxy.flights.Flights"),
        ("proxy.core", "from .. import flights", "core may not import proxy.flights"),
        ("proxy.core.sse", "from proxy import anything", "core may not import proxy.anything"),
        ("pricing.cost", "import proxy.core.usage", "pricing may not import proxy.core.usage"),
        ("pricing.cost", "from proxy import __version__", "pricing may not import proxy.__version__"),
        ("pricing.cost", "import pathlib", "pricing may not import pathlib"),
        ("proxy.store.disk", "from proxy.upstream import Upstream", "store may not import proxy.upstream.Upstream"),
        ("proxy.store.disk", "import pickle", "never a pickle"),
        ("proxy.flights", "import httpx", "flights may not import httpx"),
        ("proxy.pipeline", "import proxy.app", "pipeline may not import proxy.app"),
        ("proxy.simulator.app", "from proxy.core.sse import Event", "simulator may not import proxy.core.sse.Event"),
        ("proxy.settings", "import os\nos.environ['X']", "os.environ is for cli alone"),
        ("proxy.settings", "from os import getenv", "os.getenv is for cli alone"),
        ("proxy.app", "import sys\nsys.argv[1:]", "sys.argv is for cli alone"),
        ("proxy.helpers", "", "has no row in the table of imports"),
    ],
)
def test_the_guard_sees_what_is_forbidden(module: str, source: str, wrong: str) -> None:
    assert any(wrong in line for line in wrongs(module, source, package=module == "proxy.core"))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("proxy.core.sse", "from collections.abc import Iterator\nfrom .recording import Event\nimport msgspec"),
        ("proxy.core.sse", "from urllib.parse import urlsplit\nfrom proxy.errors import NotFound\nimport pricing"),
        ("proxy.upstream", "import aiohttp, asyncio\nfrom proxy import __version__, transport"),
        ("proxy.cli", "import os, sys\nos.environ['X'], sys.argv\nfrom proxy.serving import serve"),
    ],
)
def test_the_guard_lets_pass_what_is_allowed(module: str, source: str) -> None:
    assert wrongs(module, source) == []


def test_every_name_in_the_table_has_a_row() -> None:
    assert {name for row in ROWS.values() for name in row.ours} <= ROWS.keys()


def its_tests(path: str) -> str:
    """proxy/core/sse.py -> tests/core/test_sse.py, proxy/flights.py -> tests/test_flights.py, save COVERED_BY."""
    for covered, by in COVERED_BY.items():
        if path == covered or (covered.endswith("/") and path.startswith(covered)):
            return by
    *folders, name = path.removeprefix("proxy/").split("/")
    return "/".join(["tests", *folders, f"test_{name}"])


def test_every_source_file_has_its_test_file() -> None:
    paths = [path.relative_to(ROOT).as_posix() for path in sources() if not path.name.startswith("__")]
    lacking = [f"{path}: no {its_tests(path)}" for path in paths if not exists(its_tests(path))]
    assert not lacking, "\n".join(lacking)


def test_the_table_of_the_core_names_each_of_its_modules() -> None:
    rows = re.findall(r"^\| (`.+?`) \|", (ROOT / "proxy/core/README.md").read_text("utf-8"), re.MULTILINE)
    named = re.findall(r"`(\w+\.py)`", " ".join(rows))
    assert sorted(named) == sorted(path.name for path in (ROOT / "proxy/core").glob("[!_]*.py"))


def exists(test: str) -> bool:
    return any((ROOT / test).glob("test_*.py")) if test.endswith("/") else (ROOT / test).is_file()


def test_the_name_of_a_test_file_follows_from_its_source() -> None:
    assert its_tests("proxy/core/sse.py") == "tests/core/test_sse.py"
    assert its_tests("proxy/flights.py") == "tests/test_flights.py"
    assert its_tests("pricing/cost.py") == "tests/pricing/test_cost.py"
    assert its_tests("proxy/simulator/tools.py") == "tests/simulator/"


def project_files() -> Iterator[Path]:
    """Every file of the project: what .gitignore names is none."""
    ignored = [".git", *(ROOT / ".gitignore").read_text().replace("/\n", "\n").split()]
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not any(fnmatch(name, pattern) for pattern in ignored)]
        yield from (Path(folder, name) for name in names if not any(fnmatch(name, pattern) for pattern in ignored))


def unsaid(text: str) -> list[str]:
    return [what for what, pattern in UNSAID.items() if re.search(pattern, text)]


def test_no_file_names_an_index_or_a_place_that_others_do_not_have() -> None:
    texts = ((path.relative_to(ROOT), path.read_text("utf-8", errors="ignore")) for path in project_files())
    found = [f"{path} names {what}" for path, text in texts for what in unsaid(text)]
    assert not found, "\n".join(found)


def test_the_guard_reads_addresses_and_paths() -> None:
    assert len(unsaid("https://" + "pypi" + ".org/simple, .." + "/shared/notes.md and " + "/work" + "/main")) == 3
    assert unsaid("https://example.org/work/ and frame/" + "work/x") == []


def test_the_version_is_the_same_everywhere() -> None:
    assert proxy.__version__ == PYPROJECT["project"]["version"]
    with suppress(PackageNotFoundError):  # a checkout need not be installed
        assert version("penstock") == proxy.__version__


def pins(lock: str) -> dict[str, set[str]]:
    """`name==version` of each requirement, with its hashes."""
    text = (ROOT / lock).read_text().replace("\\\n", " ")
    lines = [line.split("#")[0].split() for line in text.splitlines()]
    return {first: set(rest) for first, *rest in filter(None, lines)}


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_every_requirement_is_pinned_and_has_a_hash(lock: str) -> None:
    for requirement, hashes in pins(lock).items():
        assert re.fullmatch(r"[\w.-]+==[\w.]+", requirement)
        assert hashes
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", each) for each in hashes), requirement


def test_the_development_lock_holds_the_runtime_lock() -> None:
    runtime, development = pins("requirements.lock"), pins("requirements-dev.lock")
    assert {name: development.get(name) for name in runtime} == runtime


@pytest.mark.parametrize(
    ("lock", "wanted"),
    [
        ("requirements.lock", PYPROJECT["build-system"]["requires"] + PYPROJECT["project"]["dependencies"]),
        ("requirements-dev.lock", PYPROJECT["project"]["optional-dependencies"]["dev"]),
    ],
)
def test_the_locks_hold_what_the_project_asks_for(lock: str, wanted: list[str]) -> None:
    pinned = {canonicalize_name(name): pin for name, _, pin in (each.partition("==") for each in pins(lock))}
    for requirement in map(Requirement, wanted):
        pin = pinned.get(canonicalize_name(requirement.name))
        assert pin, f"{requirement}: not in {lock}; run `make lock`"
        assert requirement.specifier.contains(pin), f"{requirement}: {lock} has {pin}; run `make lock`"
