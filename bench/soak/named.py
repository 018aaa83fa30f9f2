"""What clients call things, and what that adds to the metrics."""

import secrets

from bench.soak.lab import Lab, Proxy, chat
from bench.soak.wire import finished, sent_at_once

NAMES = 10_000
AT_ONCE = 100
MOST = 20  # series


async def junk(lab: Lab) -> str:
    """T9: each request names another model, route and sample; now and then one that answers is asked, too."""
    lab.steps(NAMES // AT_ONCE)
    with lab.proxy(settings='auth = "none"\nbreaker_failures = 0') as proxy:
        await _ask(proxy, "sim-instant;chunks=3", "junk-0")
        await lab.all_quiet(proxy)
        before = set(await proxy.metrics())
        for _ in range(NAMES // AT_ONCE):
            await _ask(proxy, *(f"junk-{secrets.token_hex(4)}" for _ in range(AT_ONCE)))
            lab.step()
        await _ask(proxy, "sim-instant;chunks=3")
        await lab.all_quiet(proxy)
        new = set(await proxy.metrics()) - before
    lab.expect(len(new) <= MOST, f"{len(new)} new series: {sorted(new)[::15]}")
    return f"{NAMES:,} models that nobody has, {len(new)} new series"


async def _ask(proxy: Proxy, *models: str) -> None:
    requests = [chat(model, "?", more=(f"x-penstock-sample: {secrets.randbelow(10**8)}",)) for model in models]
    await finished(await sent_at_once(proxy.port, requests))
