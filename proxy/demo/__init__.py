"""`penstock demo`: the main job, shown on the simulator by real processes over real HTTP.

servers.py   the simulator and the proxy, started and ended
load.py      what is asked
client.py    one call, timed
figures.py   what follows from the answers and the provider's own count
screen.py    what is shown
"""

import asyncio
import io
import signal
import sys
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from rich.console import Console
from rich.progress import Progress

from proxy.demo.client import Call, DemoError, ask, tally
from proxy.demo.figures import Answer, Tally, disagreement
from proxy.demo.load import Body, Work, live_question, works
from proxy.demo.screen import Screen
from proxy.demo.servers import Server, server

LIMIT = 60.0  # seconds for all calls together; they take about ten
CALL_TIMEOUT = 30.0
SETTLE_TRIES = 60
POLL = 0.05
LIVE = "Shown live, asked twice"

STOPPERS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Running:
    """Both servers, listening: the proxy's base URL (it ends in /v1), and where the simulator keeps its count."""

    servers: tuple[Server, ...]
    url: str
    count_url: str

    def check(self) -> None:
        for each in self.servers:
            each.check()


def run_demo(*, keep_running: bool, scale: float = 1.0) -> int:
    """Run it, and return the exit status: 0, 1 with one line that says what failed, or 128 + a signal that stopped it.

    `scale` makes the load smaller, for tests.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the simulator's words are not all ASCII; a terminal may be
    screen = Screen(Console(highlight=False))
    errors = Screen(Console(stderr=True, highlight=False))
    return asyncio.run(_stoppable(_demo(screen, keep_running=keep_running, scale=scale), errors))


async def _stoppable(work: Coroutine[None, None, None], errors: Screen) -> int:
    task = asyncio.ensure_future(work)
    caught: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        caught.append(number)
        task.cancel()

    for number in STOPPERS:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup is to be obeyed
            asyncio.get_running_loop().add_signal_handler(number, stop, number)
    try:
        await task
    except asyncio.CancelledError:
        if not caught:
            raise
    except (DemoError, OSError) as error:
        # A terminal's Ctrl-C reaches the servers as well: what fails then is no failure.
        if not caught:
            errors.error(str(error))
            return 1
    else:
        return 0
    errors.error("stopped; nothing was left running.")
    return 128 + caught[0]


async def _demo(screen: Screen, *, keep_running: bool, scale: float) -> None:
    screen.intro()
    with ExitStack() as stack:
        running = await _started(stack)
        try:
            answers, counted = await _measured(screen, running, works(scale))
        except DemoError as error:
            running.check()  # a server that died says more than the call that found it dead
            raise DemoError(str(error) + "".join(each.last_words() for each in running.servers)) from error
        screen.report(answers, counted)
        if keep_running:
            screen.serving(running.url)
            await _until_stopped(running)


async def _started(stack: ExitStack) -> Running:
    """Both servers; the stack ends them, the proxy first, and then removes their directory."""
    directory = Path(stack.enter_context(TemporaryDirectory(prefix="penstock-demo-")))
    simulator = stack.enter_context(server("the simulator", ["simulator", "--port", "0"], directory))
    simulator_url = await simulator.url()
    data = ["--data-dir", str(directory / "data")]
    arguments = ["serve", "--upstream", simulator_url, "--port", "0", *data]
    proxy = stack.enter_context(server("the proxy", arguments, directory))
    return Running((simulator, proxy), await proxy.url(), simulator_url.removesuffix("/v1") + "/simulator")


async def _until_stopped(running: Running) -> None:
    """Until Ctrl-C or SIGTERM, which is how this ends well; DemoError if a server dies before."""
    try:
        while True:
            running.check()
            await asyncio.sleep(0.2)
    except asyncio.CancelledError:
        return


async def _measured(screen: Screen, running: Running, load: Sequence[Work]) -> tuple[list[Answer], Tally]:
    """All answers, and the provider's count, which agrees with them."""
    answers: list[Answer] = []
    try:
        async with asyncio.timeout(LIMIT), _client(running.url) as http:
            answers += await _shown_live(screen, http)
            answers += await _sent(screen, http, load)
    except TimeoutError:
        raise DemoError(f"the answers took longer than {LIMIT:.0f} s") from None
    except ExceptionGroup as group:
        raise _first(group) from None
    async with _client(running.count_url) as http:
        counted = await _settled(http)
    if wrong := disagreement(answers, counted):
        raise DemoError(wrong)
    return answers, counted


@asynccontextmanager
async def _client(url: str) -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    headers = {"Authorization": "Bearer demo"}
    async with httpx.AsyncClient(
        base_url=url, headers=headers, limits=limits, timeout=CALL_TIMEOUT, trust_env=False
    ) as http:
        yield http


async def _shown_live(screen: Screen, http: httpx.AsyncClient) -> list[Answer]:
    body = live_question()
    screen.title(f'One question, asked twice: "{body["messages"][-1]["content"]}"')
    answers = []
    for label in ("cold", "warm"):
        typing = screen.typing()
        answer = await ask(http, Call(LIVE, body), typing)
        typing.end()
        screen.timed(label, answer)
        answers.append(answer)
    return answers


async def _sent(screen: Screen, http: httpx.AsyncClient, load: Sequence[Work]) -> list[Answer]:
    """Every kind of work at once, as in an office."""
    answers: list[Answer] = []
    screen.title(f"{sum(work.size for work in load)} calls of {len(load)} kinds of work at once …")
    with screen.progress() as progress:
        async with asyncio.TaskGroup() as group:
            for work in load:
                group.create_task(_worked(http, work, progress, answers))
    return sorted(answers, key=lambda answer: [work.name for work in load].index(answer.work))


async def _worked(http: httpx.AsyncClient, work: Work, progress: Progress, answers: list[Answer]) -> None:
    line = progress.add_task(work.name, total=work.size)

    async def asked(body: Body) -> Answer:
        answer = await ask(http, Call(work.name, body))
        answers.append(answer)
        progress.advance(line)
        return answer

    await work.run(asked)


async def _settled(http: httpx.AsyncClient) -> Tally:
    """The provider's count once no call of it is open: an answer's last byte arrives before its sender has gone on."""
    for _ in range(SETTLE_TRIES):
        counted = await tally(http)
        if not counted.open:
            break
        await asyncio.sleep(POLL)
    return counted


def _first(group: ExceptionGroup) -> Exception:
    """The first of what failed; the others were cancelled for it."""
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error
