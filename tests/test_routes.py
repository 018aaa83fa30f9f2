"""Where requests go: as the arithmetic of the settings' prices says, and as `penstock explain` has said it before.

An answer of which nothing is known is taken for 200 tokens, and a model that was never tried for a quarter of that: so
50 × its output price. Prices are USD per million tokens. ` the` is a token for everyone, for the simulator too.
"""

from pathlib import Path

import pytest

from proxy.clock import SystemClock
from tests.conftest import MakeProxy
from tests.routed import UPSTREAMS, asks, explained, goes_to, model, routing
from tests.support import Json, Proxy, Simulator, ask, proxy_table

pytestmark = pytest.mark.usefixtures("at_once")

FRESH: Json = {"cache": {"mode": "off"}}  # every request is asked, so that the same one may be asked twice
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


def words(count: int, before: str = "") -> str:
    """A text of about so many tokens."""
    return before + " the" * count


def about(value: float) -> object:
    return pytest.approx(value, rel=0.02)


# alpha is cheap to read, beta cheap to write.
READER_AND_WRITER = {"alpha": model("alpha", "1", "10"), "beta": model("beta", "2", "2")}


def test_a_long_prompt_goes_where_input_is_cheap(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**routing(**READER_AND_WRITER))
    seen = goes_to(proxy, ask(words(2000), model="any"), "alpha")
    assert seen.usd("alpha") == about((2000 * 1 + 50 * 10) / 1e6)
    assert seen.usd("beta") == about((2000 * 2 + 50 * 2) / 1e6)


def test_a_long_answer_goes_where_output_is_cheap(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**routing(**READER_AND_WRITER))
    seen = goes_to(proxy, ask(words(93), model="any"), "beta")
    assert seen.usd("alpha") == about((100 * 1 + 50 * 10) / 1e6)
    assert seen.usd("beta") == about((100 * 2 + 50 * 2) / 1e6)


def test_an_answer_that_is_bounded_costs_no_more_than_its_bound(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**routing(**READER_AND_WRITER))
    seen = goes_to(proxy, ask(words(93), model="any", max_tokens=1), "alpha")
    assert seen.usd("alpha") == about((100 * 1 + 1 * 10) / 1e6)
    assert seen.usd("beta") == about((100 * 2 + 1 * 2) / 1e6)


def test_a_verbose_model_loses_what_its_price_per_token_won(make_proxy: MakeProxy, simulator: Simulator) -> None:
    wordy, terse = model("alpha", "1", "1", ";chunks=200"), model("beta", "1", "2", ";chunks=20")
    proxy = make_proxy(**routing(alpha=wordy, beta=terse), **FRESH)
    assert asks(proxy, words(93, "0.")) == "alpha"  # both at 50 tokens: 50 × 1 against 50 × 2
    assert [asks(proxy, words(93, f"{number}.")) for number in range(1, 7)] == ["beta"] * 6
    seen = goes_to(proxy, ask(words(93), model="any"), "beta", until=lambda seen: int(seen.figures["beta"][2]) < 30)
    # One answer of 200 tokens is doubted: half as many may do. Beta's 20 are believed by now, less a little.
    assert seen.usd("alpha") > (100 + 100 * 1) / 1e6
    assert seen.usd("beta") < (100 + 20 * 2) / 1e6 * 1.02


# beta's input is a twentieth cheaper, its output is not.
HOLDER_AND_OTHER = {
    "alpha": model("alpha", "1", "1", cached="0.1"),
    "beta": model("beta", "0.95", "20", cached="0.095"),
}


def turns(first: str, *more: str) -> list[Json]:
    """A system's message, and what was said since."""
    said = [{"role": "assistant" if number % 2 else "user", "content": text} for number, text in enumerate(more)]
    return [{"role": "system", "content": first}, *said]


def test_a_prompt_goes_on_where_its_prefix_is_cached_though_another_is_a_little_cheaper(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**routing(**HOLDER_AND_OTHER))
    begun = {"model": "any", "messages": turns(words(1950), words(40))}
    goes_to(proxy, begun, "alpha")  # 2,000 × 1 + 50 × 1 against 2,000 × 0.95 + 50 × 20
    follows = {**begun, "messages": turns(words(1950), words(40), "yes", "and?"), "max_tokens": 1}
    seen = goes_to(proxy, follows, "alpha", until=lambda seen: seen.figures["alpha"][1] != "0")
    # Whether this provider caches nobody knows, so half of the 2,000 is believed.
    assert seen.usd("alpha") == about((1000 * 0.1 + 1010 * 1 + 1) / 1e6)
    assert seen.usd("beta") == about((2010 * 0.95 + 20) / 1e6)


def test_a_prompt_of_which_nobody_has_the_prefix_goes_where_it_is_a_little_cheaper(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**routing(**HOLDER_AND_OTHER))
    body = {"model": "any", "messages": turns(words(1950), words(40), "yes", "and?"), "max_tokens": 1}
    seen = goes_to(proxy, body, "beta")
    assert seen.usd("alpha") == about((2010 * 1 + 1) / 1e6)
    assert seen.usd("beta") == about((2010 * 0.95 + 20) / 1e6)


def test_who_asks_for_tools_gets_a_model_that_has_them(make_proxy: MakeProxy) -> None:
    cheap, dear = model("alpha", "1", "1", cannot=["tools"]), model("beta", "9", "9", can=["tools"])
    proxy = make_proxy(**routing(alpha=cheap, beta=dear))
    goes_to(proxy, ask("with", model="any", tools=TOOLS), "beta", why="only", dropped={"alpha": "tools"})
    goes_to(proxy, ask("without", model="any"), "alpha")


def test_a_model_of_which_it_is_not_known_comes_after_all_that_are_known_to_do_it(make_proxy: MakeProxy) -> None:
    unsure, sure = model("alpha", "1", "1"), model("beta", "9", "9", can=["tools"])
    proxy = make_proxy(**routing(alpha=unsure, beta=sure))
    seen = goes_to(proxy, ask("with", model="any", tools=TOOLS), "beta")
    assert seen.order == ["beta", "alpha"]
    assert "not known to do tools" in seen.text


def test_a_prompt_that_is_too_long_goes_where_it_fits(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**routing(alpha=model("alpha", "1", "1", window=500), beta=model("beta", "9", "9")))
    seen = goes_to(proxy, ask(words(593), model="any"), "beta", why="only", dropped={"alpha": "window"})
    assert seen.words["alpha"] == "600 tokens are over its window of 500"
    goes_to(proxy, ask(words(400), model="any"), "alpha")


def test_an_answer_may_be_as_long_as_was_asked(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**routing(alpha=model("alpha", "1", "1", max_output=100), beta=model("beta", "9", "9")))
    goes_to(proxy, ask("long", model="any", max_tokens=101), "beta", why="only", dropped={"alpha": "max_output"})
    goes_to(proxy, ask("short", model="any", max_tokens=100), "alpha")


def test_a_model_that_failed_five_times_is_left_alone(make_proxy: MakeProxy, simulator: Simulator) -> None:
    proxy = make_proxy(**routing(alpha=model("alpha", "1", "1", ";status=503"), beta=model("beta", "9", "9")))
    for number in range(5):
        assert asks(proxy, f"failed over {number}") == "beta"
    goes_to(proxy, ask("now", model="any"), "beta", why="only", dropped={"alpha": "down"})
    assert simulator.asked() == 5 * 2 + 1


def test_a_model_that_asked_for_a_pause_gets_one(make_proxy: MakeProxy, simulator: Simulator) -> None:
    limited = model("alpha", "1", "1", ";status=429;retry-after=50")
    proxy = make_proxy(**routing(alpha=limited, beta=model("beta", "9", "9")))
    assert asks(proxy, "failed over") == "beta"
    goes_to(proxy, ask("now", model="any"), "beta", why="only", dropped={"alpha": "cooling"})
    assert simulator.asked() == 2 + 1


def test_a_model_without_a_price_is_no_bargain(make_proxy: MakeProxy) -> None:
    proxy = make_proxy(**routing(alpha={"upstream": UPSTREAMS["alpha"]}, beta=model("beta", "9", "9")))
    seen = goes_to(proxy, ask("priced", model="any"), "beta", why="only", dropped={"alpha": "unpriced"})
    assert seen.words["alpha"] == 'no price is known: set models."alpha".price'


def test_where_no_price_is_known_the_first_of_the_route_answers(make_proxy: MakeProxy) -> None:
    unpriced = {name: {"upstream": UPSTREAMS[name]} for name in ("gamma", "alpha")}
    proxy = make_proxy(**routing(**unpriced))
    goes_to(proxy, ask("anybody", model="any"), "gamma", why="unpriced")


def test_what_was_learned_outlives_the_proxy(make_proxy: MakeProxy, simulator: Simulator, tmp_path: Path) -> None:
    wordy, terse = model("alpha", "1", "1", ";chunks=200"), model("beta", "1", "2", ";chunks=20")
    limited = model("gamma", "0.1", "0.1", ";status=429;retry-after=50")
    sections = {**routing(alpha=wordy, beta=terse, gamma=limited), **FRESH}
    proxy = Proxy(proxy_table(simulator.base_url, tmp_path, {}, sections), {}, SystemClock())
    assert [asks(proxy, words(93, f"{number}.")) for number in range(3)] == ["alpha", "beta", "beta"]
    body = ask(words(93), model="any")
    proxy.stop()
    before = explained(proxy, body)  # all that it learned is written now
    assert "gamma" in before.words
    assert before.figures["beta"][2] != "50"
    again = make_proxy(**sections, directory=tmp_path)
    simulator.forget()
    seen = goes_to(again, body, "beta", dropped={"gamma": "cooling"})
    assert seen.figures == before.figures
    assert simulator.asked() == 1
