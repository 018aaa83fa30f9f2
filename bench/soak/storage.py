"""Disks that fail: every client is answered all the same, and the operator is told."""

import contextlib
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.soak.answers import cache, error_code, is_good, meaning
from bench.soak.books import ENVIRON, Books, compare, lines, names, settings
from bench.soak.lab import STORED_ONLY, Lab, Proxy, becomes, chat
from bench.soak.wire import Call, finished, sent_at_once
from proxy.core.access import Grant
from proxy.ledger.keys import create_key

SMALL_DISK = 64 << 20  # bytes
LIMITED = "a limit of 64 KiB a file (no right to mount)"
CALLS = 200
NAMED = 8  # models
AT_ONCE = 50
# Some answers lie in the database, some are files of their own.
SMALL = "sim-instant;chunks=200"
LARGE = "sim-instant;big=1500000"
FAILED = 'penstock_store_failures_total{event="write_failed",tier="disk"}'
UNWRITTEN = 'penstock_ledger_events_total{event="write_failed"}'
NO_LEDGER = 'penstock_ledger_events_total{event="unavailable"}'
NOT_WRITTEN = "ledger: it cannot be written"  # as the log has it
NO_DISK = 'penstock_store_failures_total{event="unavailable",tier="disk"}'


async def full_disk(lab: Lab) -> str:
    """S1, for the cache."""
    lab.steps(4)
    with contextlib.ExitStack() as stack:
        how, disk, fill = stack.enter_context(_a_small_disk())
        with lab.proxy(data=disk / "data", warns=True, errs=NOT_WRITTEN) as proxy:
            before = await _answers(lab, proxy, "with room", 20)
            lab.step()
            room = fill(proxy.process.pid)
            full = await _answers(lab, proxy, "on a full disk", CALLS)
            failed, said = await proxy.metric(FAILED), proxy.said("disk_write_failed")
            lab.expect(failed > 0, "no metric of a failed write")
            lab.expect(1 <= said <= 3, f"{said} log lines of failed writes")
            await _all_hits(lab, proxy, [*before, *full], "in memory, on a full disk")
            lab.step()
            room()
            after = await _answers(lab, proxy, "with room again", 20)
            await lab.all_quiet(proxy)
            lab.step()
        with lab.proxy(data=disk / "data", warns=True, errs=NOT_WRITTEN) as proxy:
            await _all_hits(lab, proxy, [*before, *after], "after a restart")
            # Where the disk itself can be full: a limit of a process does not outlive it.
            started = "" if how is LIMITED else await _start_on_a_full_disk(lab, disk, fill, proxy)
            lab.step()
    return f"{how}: {CALLS} answers, {failed:.0f} writes failed, {said} log line; all well with room again{started}"


async def _start_on_a_full_disk(lab: Lab, disk: Path, fill: Callable[[int], Callable[[], None]], other: Proxy) -> str:
    room = fill(other.process.pid)
    with lab.proxy(data=disk / "new", warns=True, errs=NOT_WRITTEN) as proxy:
        await _answers(lab, proxy, "started on a full disk", 20)
        events = await proxy.metric(NO_DISK) + await proxy.metric(FAILED)
        lab.expect(events > 0, "started on a full disk: no metric")
        lab.expect(proxy.said("WARNING") > 0, "started on a full disk: no log line")
    room()
    return "; a start on a full disk serves"


@contextlib.contextmanager
def _a_small_disk() -> Iterator[tuple[str, Path, Callable[[int], Callable[[], None]]]]:
    """How it is made, where, and what fills it for the process of this id; that gives what makes room again."""
    with tempfile.TemporaryDirectory() as directory:
        disk = Path(directory, "disk")
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK},mode=0700", "penstock-soak", str(disk)]
        if shutil.which("mount") and subprocess.run(mount, capture_output=True, check=False).returncode == 0:
            try:
                yield f"a file system of {SMALL_DISK >> 20} MiB", disk, lambda _: _fill(disk)
            finally:
                subprocess.run(["umount", str(disk)], check=True)
        else:
            yield LIMITED, disk, _limit


def _fill(disk: Path) -> Callable[[], None]:
    ballast = disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 4096)
    return ballast.unlink


def _limit(pid: int) -> Callable[[], None]:
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    return lambda: resource.prlimit(pid, resource.RLIMIT_FSIZE, before) and None


async def full_ledger(lab: Lab) -> str:
    """S1, for the ledger: who has a budget is refused, everybody else is answered, and later all is written."""
    lab.steps(3)
    known = names(NAMED, NAMED)
    with contextlib.ExitStack() as stack:
        how, disk, fill = stack.enter_context(_a_small_disk())
        data = disk / "data"
        with lab.proxy(
            settings=settings(lab, known), data=data, warns=True, errs=NOT_WRITTEN, environ=ENVIRON
        ) as proxy:
            for key in ("plain", "rich"):
                await _asked(lab, proxy, f"{key} before", 20, 200)
            room = fill(proxy.process.pid)
            for what, status in (("plain on a full disk", 200), ("rich on a full disk", 503), ("plain still so", 200)):
                await _asked(lab, proxy, what, CALLS, status)
            await _asked(lab, proxy, "rich before", 20, 200)
            failed, said = await proxy.metric(UNWRITTEN), proxy.said(NOT_WRITTEN)
            waiting = await proxy.metric("penstock_ledger_pending_rows")
            lab.expect(failed == said == 1, f"{failed:.0f} metrics of failed writes, {said} log lines")
            lab.expect(waiting > 0, "no rows wait")
            lab.step()
            room()

            async def written() -> bool:
                return await proxy.metric("penstock_ledger_pending_rows") == 0

            lab.expect(await becomes(written, 10) < 10, "with room again, rows stay unwritten")
            await _asked(lab, proxy, "rich with room again", 20, 200)
            await lab.all_quiet(proxy)
            lab.step()
        figures = compare(lab, known, Books(data).by_model(), await lines(lab))
        lab.step()
    return (
        f"{how}: {2 * CALLS} answers without a budget, {CALLS} refusals and 20 hits with one; {waiting:.0f} rows "
        f"waited and were written; {figures.words}"
    )


async def _asked(lab: Lab, proxy: Proxy, what: str, count: int, status: int) -> None:
    """Requests of the key that `what` begins with."""
    key, _, _ = what.partition(" ")
    requests = [
        chat(f"m{number % NAMED}", f"{what} {number}", stream=number % 2 == 0, key=f"sk-{key}")
        for number in range(count)
    ]
    for begin in range(0, count, AT_ONCE):
        calls = await sent_at_once(proxy.port, requests[begin : begin + AT_ONCE])
        await finished(calls)
        for call in calls:
            told = (call.status, error_code(call)) if status != 200 else (call.status, None)
            wanted = (status, "ledger_unavailable" if status != 200 else None)
            lab.expect(told == wanted, f"{what}: {told}, not {wanted}")
            lab.expect(status != 200 or is_good(call), f"{what}: not whole")


Answers = list[tuple[str, str, Call]]  # model, question, answer


async def _answers(lab: Lab, proxy: Proxy, when: str, count: int) -> Answers:
    """New questions, all of which are answered: streamed and JSON, one in ten large."""
    asked = [(LARGE if number % 10 == 5 else SMALL, lab.question(), number % 2 == 0) for number in range(count)]
    calls: list[Call] = []
    for begin in range(0, count, AT_ONCE):
        some = [chat(model, question, stream=stream) for model, question, stream in asked[begin : begin + AT_ONCE]]
        calls += await sent_at_once(proxy.port, some)
        await finished(calls)
    for call in calls:
        lab.expect(is_good(call), f"{when}: status {call.status}, {'whole' if call.whole else 'not whole'}")
        lab.expect(cache(call) == "miss", f"{when}: a new question was a {cache(call)}")
    return [(model, question, call) for (model, question, _), call in zip(asked, calls, strict=True)]


async def _all_hits(lab: Lab, proxy: Proxy, answers: Answers, when: str) -> None:
    for model, question, first in answers:
        stream = first.headers["content-type"].startswith("text/event-stream")
        (again,) = await sent_at_once(proxy.port, [chat(model, question, stream=stream, more=STORED_ONLY)])
        await finished([again])
        lab.expect(is_good(again) and cache(again) == "hit", f"{when}: status {again.status}, {cache(again)}")
        lab.expect(not is_good(again) or meaning(again) == meaning(first), f"{when}: a hit is not what was answered")


NOBODY = 65534
# A root that heeds modes as everybody else does.
AS_OTHERS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner")


async def read_only(lab: Lab) -> str:
    """S4: a directory that was never ours, one that held a cache, one that turns while we run."""
    lab.steps(4)
    under = AS_OTHERS if os.geteuid() == 0 else ()
    if under and shutil.which(under[0]) is None:
        return "skipped: root ignores modes, and there is no setpriv to take that right away"
    words = []
    with tempfile.TemporaryDirectory() as directory:
        here = Path(directory)
        for name, mode in (("empty", 0o500), ("for all to read", 0o555 if under else 0o500)):
            data = here / name
            data.mkdir()
            words.append(await _unwritable(lab, data, mode, under))
            lab.step()
        data = here / "used"
        with lab.proxy(data=data, under=under) as proxy:
            await _answers(lab, proxy, "while it may be written", 20)
        words.append(await _unwritable(lab, data, 0o500, under))
        lab.step()
        words.append(await _turned(lab, data, under))
        words.append(_depending(lab, here, under))
        lab.step()
    return "; ".join(words)


async def _unwritable(lab: Lab, data: Path, mode: int, under: tuple[str, ...]) -> str:
    """A proxy that starts on it serves without it, says so once, and has written nothing."""
    what = f"{data.name} ({mode:o})"
    inside = _state(data)
    _forbid(data, mode)
    with lab.proxy(data=data, warns=True, under=under) as proxy:
        answers = await _answers(lab, proxy, what, CALLS)
        await _all_hits(lab, proxy, answers[:20], f"{what}, in memory")
        warned = proxy.said("WARNING")
        lab.expect(warned == 2, f"{what}: {warned} warnings, not one of the cache and one of the ledger")
        lab.expect(await proxy.metric(NO_DISK) == 1, f"{what}: no metric of the cache")
        lab.expect(await proxy.metric(NO_LEDGER) == 1, f"{what}: no metric of the ledger")
        await lab.all_quiet(proxy)
    _allow(data)
    lab.expect(_state(data) == inside, f"{what}: something was written")
    return f"{what}: {CALLS} answers, 2 warnings, 2 metrics"


def _depending(lab: Lab, here: Path, under: tuple[str, ...]) -> str:
    """Where keys or budgets depend on what cannot be written, there is one clear line, and no proxy."""
    budget = here / "with a budget"
    budget.mkdir()
    own = f'[[keys]]\nname = "rich"\nkey_sha256 = "{"0" * 64}"\nbudget = {{ usd = "1", per = "day" }}\n'
    kept = here / "with keys"
    create_key(kept, Grant("team"), now=0.0)
    for data, more in ((budget, own), (kept, "")):
        _forbid(data, 0o500)
        code, said = refused(lab, data, more, under)
        clear = len(said) == 1 and str(data) in said[0] and "make it writable" in said[0]
        lab.expect(code == REFUSES, f"{data.name}: exit {code}, not {REFUSES}")
        lab.expect(clear, f"{data.name}: {said[-1:]}, {len(said)} lines")
        _allow(data)
    return f"with a budget, with keys: exit {REFUSES}, one line"


REFUSES, SERVES = 78, -1


def refused(lab: Lab, data: Path, more: str = "", under: tuple[str, ...] = ()) -> tuple[int, list[str]]:
    """Exit code and last words of a proxy that is not to start; SERVES if it did."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        provider = f'[providers.sim]\nbase_url = "http://127.0.0.1:{lab.simulator.port}/v1"\nauth = "none"\n'
        config.write(provider + more)
        config.flush()
        serve = ("-m", "proxy", "serve", "--config", config.name, "--port", "0", "--data-dir", str(data))
        with subprocess.Popen(
            [*under, sys.executable, *serve], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            if process.stdout is not None and process.stdout.readline():
                process.kill()
                return SERVES, []
            _, said = process.communicate()
    return process.returncode, said.splitlines()


def _forbid(data: Path, mode: int) -> None:
    """Nobody may write here, nor anything below."""
    for path in data.rglob("*"):
        path.chmod(0o500 if path.is_dir() else 0o400)
    if mode & 0o077:  # its owner could give himself the right; somebody else's it must be
        os.chown(data, NOBODY, NOBODY)
    data.chmod(mode)


def _allow(data: Path) -> None:
    os.chown(data, os.geteuid(), os.getegid())
    for path in (data, *data.rglob("*")):
        path.chmod(0o700 if path.is_dir() else 0o600)


def _state(directory: Path) -> dict[str, int]:
    """Every file below, and how large it is."""
    return {str(path.relative_to(directory)): path.stat().st_size for path in directory.rglob("*") if path.is_file()}


async def _turned(lab: Lab, data: Path, under: tuple[str, ...]) -> str:
    """A directory that may no longer be written while a proxy runs on it: large answers need new files there."""
    with lab.proxy(data=data, warns=True, errs=NOT_WRITTEN, under=under) as proxy:
        await _answers(lab, proxy, "before it turned", 20)
        _forbid(data, 0o500)
        await _answers(lab, proxy, "after it turned", CALLS)

        async def told() -> bool:
            return await proxy.metric(FAILED) > 0

        await becomes(told, 5)
        failed = await proxy.metric(FAILED)
        lab.expect(failed > 0, "after it turned: no metric")
        lab.expect(proxy.said("disk_write_failed") > 0, "after it turned: no log line")
        _allow(data)
        await lab.all_quiet(proxy)
    return f"turned while used: {CALLS} answers, {failed:.0f} writes failed"
