"""Budgets: never a cent more, whatever goes wrong, and nothing stays set aside."""

import asyncio
import os
import random
import signal
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec

from bench.load import http_post
from bench.servers import started
from bench.soak.answers import error_code, is_good
from bench.soak.lab import PATH, STORED_ONLY, UNBROKEN, Lab, Proxy, becomes
from bench.soak.limits import key_table
from bench.soak.wire import Call, answered, finished, sent_at_once

AT_ONCE = 200
ENOUGH_FOR = 50
TOKENS = 20
PRICE = Decimal(10)  # USD per million tokens that are written; what is read is free where a budget is to come out even
EACH = PRICE * TOKENS / 1_000_000
BUDGET = EACH * ENOUGH_FOR
PROVIDER = f"""{UNBROKEN}
auth = "none"
first_event_timeout = "0.5s"
idle_timeout = "0.5s"
total_timeout = "1s"
"""
FAULTS = (
    "status=500", "status=429", "status=400", "redirect=/elsewhere", "html", "gzip", "json", "nousage", "nodone",
    "cut=0", "cut=3", "cut-at=300", "reset=0", "reset=3", "reset-at=300", "stall=0", "stall=3", "error=0", "error=3",
    "malformed=3", "big=100000", "big=2000000", "first=9", "dribble=0.01", "empty", "finish=content_filter",
)  # fmt: skip
OFTEN = 3  # faults that are tried at a time


def _model(name: str, does: str, *, read: str) -> str:
    upstream = f"sim-instant;chunks=40{';' * bool(does)}{does}"
    price = f'{{ input = "{read}", output = "{PRICE}" }}'
    return f'[models."{name}"]\nupstream = "{upstream}"\nprice = {price}\n'


def _key(name: str, usd: Decimal = BUDGET) -> str:
    return key_table(name, f'budget = {{ usd = "{usd}", per = "total" }}')


def _request(lab: Lab, model: str, key: str, *, stream: bool, more: tuple[str, ...] = ()) -> bytes:
    """All are of one length, and so are all answers."""
    message = {"role": "user", "content": f"{lab.question():>20}"}
    body = {"model": model, "messages": [message], "stream": stream, "max_tokens": TOKENS}
    lines = ("x-stainless-retry-count: 0", *more)
    return http_post(PATH, msgspec.json.encode(body), close=True, key=f"sk-{key}", more=lines)


async def _figure(proxy: Proxy, what: str, key: str) -> Decimal:
    return Decimal(repr(await proxy.metric(f'penstock_budget_{what}_usd{{id="{key}",key="{key}"}}')))


async def never_over(lab: Lab) -> str:
    """K6."""
    lab.steps(4 + len(FAULTS))
    seen = [await _exactly(lab), await _under_faults(lab), await _left(lab)]
    with TemporaryDirectory() as directory:
        seen.append(await _killed(lab, Path(directory)))
    return "; ".join(seen)


async def _exactly(lab: Lab) -> str:
    """What is set aside is what it costs, so it comes out even; and what is stored is given afterwards."""
    forms = {"stream": (True,), "json": (False,), "both": (True, False)}
    unpriced = '[models."unpriced"]\nupstream = "sim-small"\n'
    settings = PROVIDER + _model("exact", "", read="0") + unpriced + "".join(map(_key, forms))
    counts = []
    with lab.proxy(settings=settings) as proxy:
        for key, kinds in forms.items():
            requests = [_request(lab, "exact", key, stream=kinds[number % len(kinds)]) for number in range(AT_ONCE)]
            calls = await _asked(lab, proxy, requests)
            good = [number for number, call in enumerate(calls) if is_good(call)]
            counts.append(len(good))
            lab.expect(len(good) == ENOUGH_FOR, f"{key}: {len(good)} were answered, not {ENOUGH_FOR}")
            _check_refusals(lab, calls)
            await _check_figures(lab, proxy, key, spent=BUDGET)
            hits = await _asked(lab, proxy, [_stored_only(requests[number]) for number in good])
            lab.expect(all(map(is_good, hits)), "what is stored is not given to who has spent all")
            call = await answered(proxy.port, _request(lab, "unpriced", key, stream=True))
            told = call.status, error_code(call)
            lab.expect(told == (403, "model_not_priced"), f"a model without a price: {told}")
        await lab.all_quiet(proxy)
    lab.step()
    return f"of {AT_ONCE} at once on a budget for {ENOUGH_FOR} {counts} answered, $0 over it"


def _stored_only(request: bytes) -> bytes:
    first, _, rest = request.partition(b"\r\n")
    return b"\r\n".join((first, STORED_ONLY[0].encode(), rest))


async def _asked(lab: Lab, proxy: Proxy, requests: Sequence[bytes]) -> list[Call]:
    calls = await sent_at_once(proxy.port, requests)
    await finished(calls)
    lab.expect(all(call.status for call in calls), "a call was not answered at all")
    return calls


def _check_refusals(lab: Lab, calls: Sequence[Call]) -> None:
    for call in calls:
        if not is_good(call):
            told = call.status, error_code(call), call.headers.get("x-should-retry")
            lab.expect(told == (429, "insufficient_quota", "false"), f"refused with {told}")


async def _check_figures(lab: Lab, proxy: Proxy, key: str, *, spent: Decimal | None = None) -> Decimal:
    """Nothing stays set aside, and no more was spent than there was; what was."""

    async def settled() -> bool:
        return not await _figure(proxy, "reserved", key)

    lab.expect(await becomes(settled, 10.0) <= 10, f"{key}: something stays set aside")
    found = await _figure(proxy, "spent", key)
    lab.expect(found <= BUDGET, f"{key}: {found} USD were spent of {BUDGET}")
    lab.expect(spent is None or found == spent, f"{key}: {found} USD were spent, not {spent}")
    return found


async def _under_faults(lab: Lab) -> str:
    """The same with each fault, half streamed and half JSON. What is read has a price here."""
    models = "".join(_model(f"m{number}", fault, read="2") for number, fault in enumerate(FAULTS))
    settings = PROVIDER + models + "".join(_key(f"m{number}") for number in range(len(FAULTS)))
    turns, most = asyncio.Semaphore(OFTEN), Decimal(0)
    with lab.proxy(settings=settings, warns=True) as proxy:

        async def one(name: str) -> Decimal:
            async with turns:
                requests = [_request(lab, name, name, stream=number % 2 == 0) for number in range(AT_ONCE)]
                calls = await _asked(lab, proxy, requests)
                _check_no_other_refusal(lab, calls)
                lab.step()
                return await _check_figures(lab, proxy, name)

        spent = await asyncio.gather(*(one(f"m{number}") for number in range(len(FAULTS))))
        most = max(spent)
        free = sum(not usd for usd in spent)
        await lab.all_quiet(proxy)
    return (
        f"under {len(FAULTS)} faults at most {most / BUDGET:.1%} of it was spent ({free} cost nothing), "
        f"nothing stays set aside"
    )


def _check_no_other_refusal(lab: Lab, calls: Sequence[Call]) -> None:
    for call in calls:
        if call.status == 429 and error_code(call) == "insufficient_quota":
            lab.expect(call.headers.get("x-should-retry") == "false", "refused, but not for good")


async def _left(lab: Lab) -> str:
    """All clients leave, at random moments."""
    dice = random.Random(6)
    settings = PROVIDER + _model("slow", "first=0.1;gap=0.02", read="2") + _key("team")
    with lab.proxy(settings=settings) as proxy:
        for _ in range(3):
            requests = [_request(lab, "slow", "team", stream=number % 2 == 0) for number in range(AT_ONCE)]
            calls = await sent_at_once(proxy.port, requests)
            await asyncio.gather(*(_leaves(call, dice.random()) for call in calls))
            spent = await _check_figures(lab, proxy, "team")
        await lab.all_quiet(proxy)
    lab.step()
    return f"{3 * AT_ONCE} that leave spent {spent / BUDGET:.1%}"


async def _leaves(call: Call, after: float) -> None:
    await asyncio.sleep(after)
    call.leave()


async def _killed(lab: Lab, data: Path) -> str:
    """The provider is killed under the load; then the proxy is, and begins anew with what was set aside as spent."""
    settings = PROVIDER.replace('"0.5s"', '"20s"').replace('"1s"', '"20s"')
    settings += _model("slow", "first=10", read="0") + _key("team") + _key("other")
    with (
        started("proxy", "simulator", "--port", "0") as doomed,
        lab.proxy(settings=settings, upstream=doomed.port, data=data, warns=True) as proxy,
    ):
        await _under_way(lab, proxy, "team", stream=True)
        os.kill(doomed.pid, signal.SIGKILL)
        await _check_figures(lab, proxy, "team")
        lab.step()
    with lab.proxy(settings=settings, data=data, warns=True) as proxy:
        await _under_way(lab, proxy, "other", stream=False)
        os.kill(proxy.running.pid, signal.SIGKILL)
        proxy.process.wait()
    with lab.proxy(settings=settings, data=data, warns=True) as proxy:
        lab.expect(proxy.said(f"ledger: {ENOUGH_FOR} attempts were under way") == 1, "those under way are not told of")
        spent = await _check_figures(lab, proxy, "other", spent=BUDGET)
        call = await answered(proxy.port, _request(lab, "slow", "other", stream=False))
        lab.expect(error_code(call) == "insufficient_quota", f"after a kill -9: {error_code(call)}")
    lab.step()
    return f"provider killed: nothing stays set aside; proxy killed: {spent / BUDGET:.0%} counts as spent"


async def _under_way(lab: Lab, proxy: Proxy, key: str, *, stream: bool) -> None:
    """As many as the budget is enough for are under way, and all the others were refused."""
    calls = await sent_at_once(proxy.port, [_request(lab, "slow", key, stream=stream) for _ in range(AT_ONCE)])

    async def refused() -> bool:
        return sum(call.over.done() for call in calls) == AT_ONCE - ENOUGH_FOR

    lab.expect(await becomes(refused, 5.0) <= 5, f"{sum(call.over.done() for call in calls)} were refused at once")
    reserved = await _figure(proxy, "reserved", key)
    lab.expect(reserved == BUDGET, f"{reserved} USD are set aside, not {BUDGET}")
    _check_refusals(lab, [call for call in calls if call.over.done()])
