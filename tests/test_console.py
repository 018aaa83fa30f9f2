"""The console in a real browser, before the real proxy: one asks, sees the answer come, stops it, sees what it cost."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.browsing import Tab, chromium
from tests.conftest import MakeProxy
from tests.keyed import key
from tests.scripted import Scripted, chunk, event, usage_chunk, whole_stream
from tests.support import DEADLINE, Proxy, Simulator, eventually, free_port

PRICE = {"input": "0.10", "output": "0.40"}
MODELS = {name: {"provider": "sim", "price": PRICE} for name in ("sim-instant", "sim-small")}
NASTY = '<img src=x onerror="window.hurt = 1"><script>window.hurt = 2</script>'
SLOW = "sim-instant;gap=0.02;chunks=2000"

expect.set_options(timeout=DEADLINE * 1000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


OpenTab = Callable[..., Tab]


@pytest.fixture
def tab(browser: Browser, make_proxy: MakeProxy) -> Iterator[OpenTab]:  # which are asked no more when they end
    """Tabs in which nothing may go wrong but what the test expects: `expects` are parts of the browser's complaints."""
    opened: list[tuple[Tab, tuple[str, ...]]] = []

    def visit(proxy: Proxy, *expects: str, listed: bool = False, **context: Any) -> Tab:
        one = Tab(browser, proxy.url, **context)
        opened.append((one, expects))
        return (one.lists_models() if listed else one).visit()

    yield visit
    for each, expected in opened:
        unexpected = [text for text in each.told if not any(part in text for part in expected)]
        each.close()
        assert (unexpected, each.foreign) == ([], [])


@pytest.fixture
def priced(make_proxy: MakeProxy) -> Proxy:
    """Two models with prices, and a route over them that is the default."""
    routes = {"economy": {"models": ["sim-small", "sim-instant"], "baseline": "sim-small"}}
    routing = {"default_model": "economy"}
    return make_proxy(provider={"auth": "none"}, models=MODELS, routes=routes, routing=routing)


def status(code: int) -> str:
    """What Chromium says of an answer with this status."""
    return f"the server responded with a status of {code} "


def test_text_shows_as_it_comes_and_the_figures_at_its_end(
    tab: OpenTab, make_proxy: MakeProxy, scripted: Scripted
) -> None:
    page = tab(make_proxy(scripted.base_url, provider={"auth": "none"}), listed=True)
    page.ask("Tell me.", "m")
    turn = scripted.turn()
    assert turn.body["messages"] == [{"role": "user", "content": "Tell me."}]
    turn.head()
    expect(page.answer).to_have_attribute("aria-busy", "true")
    turn.send(chunk("It begins"))
    expect(page.answer.locator(".answer-text")).to_have_text("It begins")  # and the provider has not said more
    expect(page.the("#stop")).to_be_visible()
    turn.send(chunk(",\n  and 水 ends 🌊."), chunk(finish="stop"), usage_chunk())
    turn.end()
    expect(page.badge).to_have_text("miss")
    expect(page.answer).to_have_attribute("aria-busy", "false")
    assert page.answer.locator(".answer-text").inner_text() == "It begins,\n  and 水 ends 🌊."
    expect(page.answer.locator(".run")).to_contain_text("1 in · 2 out")
    expect(page.answer.locator("header")).to_contain_text("sim")
    expect(page.the("#stop")).to_be_hidden()


@pytest.mark.parametrize("how", ["button", "escape", "leave"])
def test_stop_stops_the_provider(how: str, tab: OpenTab, proxy: Proxy, simulator: Simulator, prompt: str) -> None:
    page = tab(proxy)
    page.ask(prompt, SLOW)
    expect(page.answer.locator(".answer-text")).not_to_be_empty()
    assert simulator.calls()["open"] == 1
    if how == "button":
        page.page.click("#stop")
    elif how == "escape":
        page.page.press("#message", "Escape")
    else:
        page.page.close()
    eventually(lambda: simulator.calls()["hung_up"] == 1)
    if how != "leave":
        expect(page.badge).to_have_text("stopped")
        assert page.answer.locator(".answer-text").inner_text()
        expect(page.the("#send")).to_be_visible()


def test_asked_again_it_is_a_hit_and_says_so_and_afresh_it_is_fetched(
    tab: OpenTab, priced: Proxy, simulator: Simulator, prompt: str
) -> None:
    page = tab(priced)
    page.ask(prompt)
    expect(page.badge).to_have_text("miss")
    said = page.answer.locator(".answer-text").inner_text()
    page.press("Ask again")
    expect(page.badge).to_have_text("hit")
    assert page.answer.locator(".answer-text").inner_text() == said
    expect(page.answer.locator(".run .good dt")).to_have_text("Saved")
    page.press("Ask afresh")
    expect(page.badge).to_have_text("miss")
    expect(page.answer.locator(".runs tbody .badge")).to_have_text(["miss", "hit", "miss"])
    assert simulator.asked() == 2


def test_a_conversation_goes_on_is_edited_and_started_over(
    tab: OpenTab, priced: Proxy, simulator: Simulator, prompt: str
) -> None:
    page = tab(priced)
    page.the(".options > summary").click()
    page.page.fill("#system", "Be brief.")
    page.page.fill("#temperature", "0.5")
    page.page.fill("#maximum", "7")
    page.ask(prompt, "sim-instant")
    expect(page.badge).to_have_text("miss")
    expect(page.answer.locator(".note")).to_contain_text("maximum")
    first = page.answer.locator(".answer-text").inner_text()
    page.ask("And then?")
    expect(page.badge).to_have_text("miss")
    sent = simulator.last()["body"]
    assert (sent["temperature"], sent["max_tokens"], sent["model"]) == (0.5, 7, "sim-instant")
    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": first},
        {"role": "user", "content": "And then?"},
    ]
    page.the(".turn.yours").first.get_by_role("button", name="Edit").click()
    expect(page.the("#message")).to_have_value(prompt)
    expect(page.the("#nothing-asked")).to_be_visible()
    page.ask(prompt)
    expect(page.badge).to_have_text("hit")
    page.page.click("#start-over")
    expect(page.the("#nothing-asked")).to_be_visible()
    assert page.the(".turn").count() == 0


def test_html_in_an_answer_stays_text_and_runs_nothing(tab: OpenTab, make_proxy: MakeProxy, scripted: Scripted) -> None:
    page = tab(make_proxy(scripted.base_url, provider={"auth": "none"}), status(502), listed=True)
    page.ask(NASTY, "m")
    scripted.turn().answer(*whole_stream(NASTY[:9], NASTY[9:]))
    expect(page.answer.locator(".answer-text")).to_have_text(NASTY)
    expect(page.the(".turn.yours .text")).to_have_text(NASTY)
    page.ask("Again.")
    scripted.turn().answer(event({"error": {"message": NASTY, "code": NASTY}}))
    expect(page.problem).to_contain_text(NASTY)
    page.the(".code > summary").click()
    assert page.the("main img, main script").count() == 0
    assert page.page.evaluate("window.hurt") is None


# The same events whatever ends their lines, cut at every byte, and one that is not whole at the end.
READ = """async (text) => {
  const { events } = await import("/console/events.js");
  const bytes = new TextEncoder().encode(text);
  const found = new Set();
  for (let cut = 0; cut <= bytes.length; cut++) {
    const pieces = [bytes.slice(0, cut), bytes.slice(cut)].filter((piece) => piece.length);
    const body = new ReadableStream({ pull: (to) => (pieces.length ? to.enqueue(pieces.shift()) : to.close()) });
    const seen = [];
    for await (const one of events(new Response(body))) seen.push(one);
    found.add(JSON.stringify(seen));
  }
  return [...found].map(JSON.parse);
}"""


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_events_are_read_alike_wherever_they_are_cut(end: str, tab: OpenTab, proxy: Proxy) -> None:
    lines = [
        ": ping",
        "",
        "data: {}",
        "data:  水 🌊",
        "",
        "id: 1",
        "event: done",
        "data:x",
        "",
        "event: none",
        "",
        "data: y",
    ]
    read = tab(proxy).page.evaluate(READ, end.join(lines) + end)
    assert read == [[{"event": "message", "data": "{}\n 水 🌊"}, {"event": "done", "data": "x"}]]


def test_a_refusal_and_thoughts_are_shown_as_such(tab: OpenTab, proxy: Proxy, prompt: str) -> None:
    page = tab(proxy)
    page.ask(prompt, "sim-reasoning;refusal")
    expect(page.badge).to_have_text("miss")
    assert page.answer.locator(".answer-text.refusal").inner_text().startswith("I'm sorry")
    page.answer.locator(".thinking summary").click()
    expect(page.answer.locator(".thinking .text")).not_to_be_empty()


def test_an_answer_that_breaks_off_is_no_answer(tab: OpenTab, make_proxy: MakeProxy, scripted: Scripted) -> None:
    page = tab(make_proxy(scripted.base_url, provider={"auth": "none"}), "ERR_INCOMPLETE_CHUNKED", listed=True)
    page.ask("Tell me.", "m")
    turn = scripted.turn()
    turn.head()
    turn.send(chunk("Half of"))
    expect(page.answer.locator(".answer-text")).to_have_text("Half of")
    turn.abort()
    expect(page.badge).to_have_text("failed")
    expect(page.problem).to_contain_text("Try again")
    assert page.answer.locator(".run").count() == 0


@pytest.mark.parametrize(
    ("model", "code", "said"),
    [
        ("sim-instant;status=429;retry-after=7;should-retry=false", 429, "Too much at once"),
        ("sim-instant;status=500", 500, "Something failed"),
        ("no-such-model", 404, "There is no such model"),
        ("", 400, "Choose a model"),
    ],
)
def test_what_is_wrong_is_said_and_how_to_mend_it(
    model: str, code: int, said: str, tab: OpenTab, proxy: Proxy, prompt: str
) -> None:
    page = tab(proxy, status(code))
    page.ask(prompt, model)
    expect(page.problem.locator("strong")).to_have_text(said)
    expect(page.problem.locator("code")).to_contain_text(str(code))
    if "retry-after" in model:
        expect(page.problem).to_contain_text("Try again in 7 s")


def test_a_provider_that_is_down_is_said_to_be(tab: OpenTab, make_proxy: MakeProxy, prompt: str) -> None:
    page = tab(make_proxy(f"http://127.0.0.1:{free_port()}/v1"), status(502))
    expect(page.the("#model-note")).to_contain_text("The list of models did not come")
    page.ask(prompt, "sim-instant")
    expect(page.problem.locator("strong")).to_have_text("The provider cannot be reached")
    expect(page.problem.locator("code")).to_have_text("502 · upstream_connect_error")
    expect(page.problem).to_contain_text("base_url")


def test_a_proxy_that_does_not_answer_is_said_not_to_and_is_asked_again(
    tab: OpenTab, priced: Proxy, prompt: str
) -> None:
    page = tab(priced, "ERR_INTERNET_DISCONNECTED")
    expect(page.the("#state")).to_contain_text("live")
    page.context.set_offline(True)
    page.ask(prompt)
    expect(page.problem.locator("strong")).to_have_text("The proxy does not answer")
    expect(page.the("#state")).to_contain_text("Trying again in")
    page.context.set_offline(False)
    page.press("Ask again")
    expect(page.badge).to_have_text("miss")
    expect(page.the("#state")).to_contain_text("live")


def kept(page: Page) -> Any:
    """What the browser keeps for this page: of the tab, for longer, and cookies."""
    stored = "[Object.values(sessionStorage).sort(), Object.values(localStorage), document.cookie]"
    return page.evaluate(stored)


def test_a_key_is_asked_for_where_keys_are_set_and_kept_for_the_tab_only(
    tab: OpenTab, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    page = tab(make_proxy(key="sk-operator", keys=[key("team")]), status(401))
    expect(page.the("#asking-key")).to_be_visible()
    page.ask(prompt, "sim-instant")
    expect(page.problem.locator("strong")).to_have_text("A key is needed")
    expect(page.the("#asking-key-field")).to_be_focused()
    page.enter_key("sk-nobody")
    expect(page.the("#asking-key-words strong")).to_have_text("This key does not open the playground. ")
    expect(page.the("#asking-key-field")).to_be_focused()
    page.press("Ask again")
    expect(page.problem.locator("strong")).to_have_text("This key does not open the playground")
    with page.page.expect_response("**/v1/models"):
        page.enter_key("sk-team")
    expect(page.the("#model-note")).to_be_empty()
    expect(page.the("#asking-key")).to_be_hidden()
    page.press("Ask again")
    expect(page.badge).to_have_text("miss")
    assert kept(page.page) == [["sk-team"], [], ""]
    assert "sk-team" not in page.page.content()
    assert "sk-team" not in page.page.url
    expect(page.the("#whose")).to_contain_text("team")

    page.page.reload()
    expect(page.the("#key-chip")).to_be_visible()
    other = page.open()
    other.goto(page.url)
    expect(other.locator("#asking-key")).to_be_visible()
    assert kept(other) == [[], [], ""]
    page.page.click("#forget")
    expect(page.the("#asking-key")).to_be_visible()
    assert kept(page.page) == [[], [], ""]


def test_the_admin_key_shows_everybodys_figures_and_a_clients_its_own(
    tab: OpenTab, make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch, prompt: str
) -> None:
    monkeypatch.setenv("TEST_ADMIN_KEY", "sk-admin")
    keys = [key("team", budget={"usd": "5", "per": "month"}), key("other")]
    server = {"admin_key_env": "TEST_ADMIN_KEY"}
    page = tab(make_proxy(key="sk-operator", keys=keys, server=server, models=MODELS), status(401))
    page.enter_key("sk-team")
    page.ask(prompt, "sim-instant")
    expect(page.badge).to_have_text("miss")
    expect(page.the("#whose")).to_contain_text("The figures of team")
    expect(page.the("#budget")).to_contain_text("of $5.00 spent this month")
    page.page.click("#other-key")
    page.enter_key("sk-admin", "figures")
    expect(page.the("#whose")).to_contain_text("Everybody's figures")
    expect(page.the("#figures-key")).to_be_hidden()
    page.press("Ask again")
    expect(page.badge).to_have_text("hit")  # still by the client's key
    page.page.click("#forget")
    page.enter_key("sk-other")
    expect(page.the("#whose")).to_contain_text("The figures of other")
    expect(page.the("#no-requests")).to_be_visible()

    page.page.click("#forget")
    page.enter_key("sk-nobody", "figures")
    expect(page.the("#figures-key-words")).to_contain_text("This key does not show the figures")
    page.enter_key("sk-admin", "figures")
    expect(page.the("#whose")).to_contain_text("Everybody's figures")
    page.the("#requests summary").first.click()
    expect(page.the("#requests details").first).to_contain_text("team")
    page.enter_key("sk-admin")
    expect(page.the("#asking-key-words")).to_contain_text("it is the admin's")
    page.press("Ask again")
    expect(page.problem).to_contain_text("it is the admin's, which shows everybody's figures and cannot ask")


def test_after_the_keys_are_forgotten_nothing_is_asked_without_one(tab: OpenTab, make_proxy: MakeProxy) -> None:
    page = tab(make_proxy(key="sk-operator", keys=[key("team")]))
    page.enter_key("sk-team")
    page.page.clock.install()
    page.page.reload()  # so that every timer is that clock's
    expect(page.the("#state")).to_contain_text("live")
    bare: list[str] = []
    page.page.on("request", lambda one: None if "authorization" in one.headers else bare.append(one.url))
    page.page.click("#forget")
    expect(page.the("#state")).to_have_text("waiting for a key")
    expect(page.the("#state")).to_have_class("live is-off")
    page.page.click("#pause")
    page.page.click("#pause")
    page.page.clock.run_for(10_000)
    expect(page.the("#state")).to_have_text("waiting for a key")
    assert bare == []


def about(proxy: Proxy, **changes: Any) -> Any:
    return proxy.http.get("/console/about").raise_for_status().json() | changes


def figures(proxy: Proxy, **changes: Any) -> Any:
    return proxy.http.get("/console/figures").raise_for_status().json() | changes


def test_another_mode_after_a_restart_is_seen_without_a_reload(tab: OpenTab, priced: Proxy) -> None:
    page = tab(priced)
    expect(page.the("#mode")).to_contain_text("cache on")
    page.answers("/console/about", json=about(priced, mode="shadow", default_model="sim-small"))
    page.answers("/console/figures", json=figures(priced, mode="shadow"))
    expect(page.the("#mode")).to_contain_text("shadow mode")
    expect(page.the("#model")).to_have_attribute("placeholder", "sim-small (the default)")


def test_keys_that_are_set_by_a_restart_are_asked_for_without_a_reload(tab: OpenTab, priced: Proxy) -> None:
    page = tab(priced, status(401))
    expect(page.the("#state")).to_contain_text("live")
    refused = {"error": {"message": "This proxy answers only to whoever shows a key of it.", "code": "invalid_api_key"}}
    page.answers("/console/about", json=about(priced, keys=True))
    page.answers("/console/figures", status=401, json=refused)
    expect(page.the("#asking-key")).to_be_visible()
    expect(page.the("#state")).to_have_text("waiting for a key")


def test_a_proxy_that_was_away_is_asked_what_it_is(tab: OpenTab, priced: Proxy) -> None:
    page = tab(priced, "ERR_INTERNET_DISCONNECTED")
    expect(page.the("#state")).to_contain_text("live")
    page.context.set_offline(True)
    expect(page.the("#state")).to_contain_text("Trying again in")
    page.answers("/console/about", json=about(priced, version="9.9.9"))
    page.context.set_offline(False)
    expect(page.the("#version")).to_have_text("Penstock 9.9.9")


def test_a_providers_own_key_goes_to_the_provider_and_is_not_shown_for_figures(
    tab: OpenTab, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    shown: list[str | None] = []
    page = tab(make_proxy())
    page.page.on(
        "request", lambda one: shown.append(one.headers.get("authorization")) if "figures" in one.url else None
    )
    expect(page.the("#asking-key-words")).to_contain_text("passed on to the provider")
    page.enter_key("sk-my-own")
    page.ask(prompt, "sim-instant")
    expect(page.badge).to_have_text("miss")
    assert simulator.last()["headers"]["authorization"] == "Bearer sk-my-own"
    expect(page.the("#requests > li")).to_have_count(1)
    assert set(shown) == {None}


def test_limits_and_budgets_that_are_used_up_say_when_it_goes_on(
    tab: OpenTab, make_proxy: MakeProxy, prompt: str
) -> None:
    keys = [key("slow", requests_per_minute=2), key("poor", budget={"usd": "0.00001", "per": "day"})]
    page = tab(make_proxy(key="sk-operator", keys=keys, models=MODELS), status(429))
    page.enter_key("sk-slow")
    page.ask(prompt, "sim-instant")
    expect(page.badge).to_have_text("miss")
    page.press("Ask again")
    expect(page.problem.locator("strong")).to_have_text("Too much at once")
    expect(page.problem.locator(".advice")).to_contain_text(" s.")
    page.page.click("#forget")
    page.enter_key("sk-poor")
    page.press("Ask again")
    expect(page.problem.locator("strong")).to_have_text("This may cost more than the $0.00001 that are left")
    expect(page.problem.locator(".advice")).to_contain_text("Lower the maximum of tokens")


@pytest.mark.parametrize(
    ("message", "title", "advice"),
    [
        (
            "Of this key's budget of 5 USD per day (UTC) 0 are left; it begins anew at …",
            "The budget is spent",
            "by itself",
        ),
        ("Of this key's budget of 5 USD in all 0 are left.", "The budget is spent", "does not open again"),
        ("You exceeded your current quota.", "Nothing is left at the provider", "no credit"),
    ],
)
def test_who_has_nothing_left_is_told_whose_money_it_was(
    message: str, title: str, advice: str, tab: OpenTab, priced: Proxy
) -> None:
    page = tab(priced, status(429))
    page.answers("/chat/stream", status=429, json={"error": {"message": message, "code": "insufficient_quota"}})
    page.ask("x")
    expect(page.problem.locator("strong")).to_have_text(title)
    expect(page.problem.locator(".advice")).to_contain_text(advice)


def test_the_figures_show_what_was_asked_and_why_it_went_where_it_went(
    tab: OpenTab, priced: Proxy, simulator: Simulator, prompt: str
) -> None:
    page = tab(priced)
    expect(page.the("#no-requests")).to_be_visible()
    page.ask(prompt)
    expect(page.badge).to_have_text("miss")
    expect(page.the("#requests > li")).to_have_count(1)
    page.the("#requests summary").click()
    expect(page.the("#requests details dl")).to_contain_text("Route “economy”: ")
    page.press("Ask again")
    expect(page.badge).to_have_text("hit")
    expect(page.the("#requests .badge")).to_have_text(["hit", "miss"])
    assert page.the("#requests details[open] .badge").inner_text() == "miss"  # what is open stays open
    expect(page.the("#charts .big").nth(2)).to_have_text("50 %")
    expect(page.the("#by-model tbody tr")).to_have_count(1)
    expect(page.the("#providers")).to_contain_text("1 call, none failed")
    expect(page.the("#whose")).to_contain_text("counted since")
    labels = page.the("#charts svg").evaluate_all("all => all.map((one) => one.getAttribute('aria-label'))")
    assert len(labels) == 4
    assert "50 % in all: 1 hit, 0 collapsed, 1 miss." in labels[2]
    page.the("#minutes > summary").click()
    expect(page.the("#minutes-shown tbody tr").first).to_contain_text(":")


def test_a_worth_that_nobody_knows_is_unknown_and_not_nothing(
    tab: OpenTab, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    page = tab(make_proxy(provider={"auth": "none"}))
    page.ask(prompt, "sim-instant")
    expect(page.badge).to_have_text("miss")
    page.press("Ask again")
    expect(page.badge).to_have_text("hit")
    expect(page.answer.locator(".run > div").last).to_have_text("Savedunknown")
    expect(page.answer.locator(".runs tbody tr").last.locator("td").last).to_have_text("unknown")
    expect(page.the("#requests .request-money").first).to_have_text("saved unknown")
    card = page.the("#charts .card").first
    expect(card.locator(".big")).to_have_text("unknown")
    expect(card.locator(".key").first).to_have_text("cacheunknown")
    expect(card.locator(".warn")).to_have_text("What 1 answer saved is unknown: set “price” for its model in [models].")
    expect(page.the("#by-model tbody td").last).to_have_text("unknown+ 1 answer of unknown worth")
    page.the("#requests summary").first.click()
    expect(page.the("#requests details[open]")).to_contain_text("saved unknown")


def row(proxy: Proxy, **changes: Any) -> dict[str, Any]:
    """The newest request's, changed."""
    newest: dict[str, Any] = figures(proxy)["requests"][0]
    return {**newest, "id": str(changes), **changes}


def test_what_failed_is_marked_with_its_status_and_lists_of_models_are_left_out(
    tab: OpenTab, priced: Proxy, simulator: Simulator, prompt: str
) -> None:
    page = tab(priced, status(503), status(404))
    page.ask(prompt, "sim-instant;status=503;should-retry=false")
    expect(page.problem).to_be_visible()
    failed = page.the("#requests .badge").first
    expect(failed).to_have_text("failed 503")
    bad = "getComputedStyle(document.querySelector('.problem strong')).color"
    assert failed.evaluate("one => getComputedStyle(one).color") == page.page.evaluate(bad)
    told = [
        row(priced, outcome="refused", status=429),
        row(priced, endpoint="models", status=200),
        row(priced, outcome="bypass", status=404),
        row(priced, outcome="left", status=499),
    ]
    page.answers("/console/figures", json=figures(priced, requests=told))
    expect(page.the("#requests .badge")).to_have_text(["refused 429", "failed 404", "left"])


def test_each_attempt_is_told_with_its_result(tab: OpenTab, priced: Proxy, simulator: Simulator, prompt: str) -> None:
    page = tab(priced)
    page.ask(prompt)
    expect(page.badge).to_have_text("miss")
    results = {"failing": "status_503", "busy": "status_429", "sim-large": "ok"}
    attempts = [{"model": model, "result": result} for model, result in results.items()]
    told = [row(priced, attempts=attempts, why="fallback"), row(priced, attempts=attempts[:1])]
    page.answers("/console/figures", json=figures(priced, requests=told))
    expect(page.the("#requests > li")).to_have_count(2)
    for summary in page.the("#requests summary").all():
        summary.click()
    first, second = page.the("#requests details").all()
    expect(first).to_contain_text("failing: status_503, busy: status_429, then sim-large answered")
    expect(first).to_contain_text("Route “economy”: whoever was chosen before it failed.")
    expect(second).to_contain_text("failing: status_503")
    expect(second).not_to_contain_text("answered")


def test_a_provider_whose_pause_is_over_is_not_said_to_be_well(tab: OpenTab, priced: Proxy) -> None:
    page = tab(priced)
    standing = {"provider": "sim", "model": "sim-small", "seconds": 0, "attempts": 5, "failed": 5}
    page.answers("/console/figures", json=figures(priced, providers=[{**standing, "state": "trying"}]))
    expect(page.the(".state")).to_have_text(["trying"])
    expect(page.the(".health-said")).to_contain_text("no success yet")
    amber = page.page.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--miss')")
    painted = "(colour) => { const e = document.body.appendChild(document.createElement('i')); e.style.color = colour;"
    painted += " const found = getComputedStyle(e).color; e.remove(); return found; }"
    shown = page.the(".state").evaluate("one => getComputedStyle(one).color")
    assert shown == page.page.evaluate(painted, amber)


@pytest.mark.parametrize("name", ["constructor", "__proto__", "toString", "hasOwnProperty"])
def test_names_that_every_object_has_are_names_like_others(
    name: str, tab: OpenTab, priced: Proxy, simulator: Simulator, prompt: str
) -> None:
    page = tab(priced)
    page.ask(prompt)
    expect(page.badge).to_have_text("miss")
    budget = {"usd": "1", "spent_usd": "0", "reserved_usd": "0", "per": name}
    standing = {"provider": "sim", "model": "sim-small", "seconds": 0, "attempts": 0, "failed": 0, "state": name}
    told = row(priced, outcome=name, why=name, shadow=name, route=None)
    page.answers("/console/about", json=about(priced, mode=name))
    changes = {"requests": [told], "providers": [standing], "budget": budget, "mode": name}
    page.answers("/console/figures", json=figures(priced, **changes))
    expect(page.the("#mode")).to_contain_text(name)
    expect(page.the("#requests .badge")).to_have_text([name])
    expect(page.the(".state")).to_have_text([name])
    expect(page.the("#budget")).to_contain_text("$0 of $1.00 spent")
    page.the("#requests summary").click()
    expect(page.the("#requests details")).to_contain_text(f"{name[0].upper()}{name[1:]}.")


STRANGE = [
    '{"error": {"message": "m", "code": "constructor"}}',
    '{"error": {"message": "m", "code": "__proto__"}}',
    '{"error": {"message": {"toString": 1}, "code": {"toString": [{"toString": 1}]}, "param": []}}',
    '{"error": {"message": "m", "code": NaN}}',
    '{"error": "m"}',
    "null",
]


@pytest.mark.parametrize("data", STRANGE)
@pytest.mark.parametrize("code", [200, 500])
def test_no_error_breaks_the_page(code: int, data: str, tab: OpenTab, priced: Proxy, prompt: str) -> None:
    page = tab(priced, status(500))
    events = {
        "content_type": "text/event-stream",
        "body": f'data: {{"content": "x"}}\n\nevent: error\ndata: {data}\n\n',
    }
    whole = {"content_type": "application/json", "body": data}
    page.answers("/chat/stream", status=code, **(events if code == 200 else whole))
    page.ask(prompt)
    expect(page.badge).to_have_text("failed")
    expect(page.problem.locator("strong")).to_have_text(
        "The answer broke off with an error" if code == 200 else "Something failed"
    )
    expect(page.answer).to_have_attribute("aria-busy", "false")
    expect(page.the("#send")).to_be_visible()
    page.page.unroute(f"{page.url}/chat/stream")
    page.press("Ask again")
    expect(page.badge).to_have_text("miss")


@pytest.mark.parametrize("how", ["failed", "stopped"])
def test_a_question_that_got_no_answer_is_not_sent_with_the_next(
    how: str, tab: OpenTab, priced: Proxy, simulator: Simulator, prompt: str
) -> None:
    page = tab(priced, status(500))
    page.ask("Well?", "sim-instant")
    expect(page.badge).to_have_text("miss")
    said = page.answer.locator(".answer-text").inner_text()
    page.ask("Lost.", "sim-instant;status=500" if how == "failed" else "sim-instant;first=60")
    if how == "stopped":
        page.page.press("#message", "Escape")
    expect(page.badge).to_have_text(how)
    page.ask(prompt, "sim-instant")
    expect(page.badge).to_have_text("miss")
    assert [each["content"] for each in simulator.last()["body"]["messages"]] == ["Well?", said, prompt]
    expect(page.the(".turn.answer").nth(1)).to_contain_text("it is not sent along")
    page.the(".turn.yours").nth(1).get_by_role("button", name="Edit").click()
    expect(page.the("#message")).to_have_value("Lost.")


def test_the_figures_stand_still_while_they_are_paused(tab: OpenTab, priced: Proxy, prompt: str) -> None:
    page = tab(priced)
    expect(page.the("#state")).to_contain_text("live")
    page.page.click("#pause")
    expect(page.the("#state")).to_have_text("paused")
    asked: list[str] = []
    page.page.on("request", lambda request: asked.append(request.url))
    page.ask(prompt)
    expect(page.badge).to_have_text("miss")
    assert page.the("#requests > li").count() == 0
    page.page.click("#pause")
    expect(page.the("#requests > li")).to_have_count(1)


def test_shadow_mode_says_what_would_have_been_saved(
    tab: OpenTab, make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    page = tab(make_proxy(provider={"auth": "none"}, models=MODELS, cache={"mode": "shadow"}))
    expect(page.the("#mode")).to_contain_text("shadow mode")
    page.ask(prompt, "sim-instant")
    expect(page.badge).to_have_text("would miss")
    page.press("Ask again")
    expect(page.badge).to_have_text("would hit")
    expect(page.answer.locator(".run")).to_contain_text("would have been a hit")
    cost, would = page.answer.locator(".run > :nth-child(n + 5) dd").all()
    assert cost.inner_text().startswith("$")
    assert would.inner_text().split() == [cost.inner_text(), "would", "have", "been", "a", "hit"]
    expect(page.answer.locator(".runs tbody td:last-child")).to_have_text(["nothing", cost.inner_text()])
    assert simulator.asked() == 2
    cards = page.the("#charts .card")
    expect(cards.nth(0).locator(".big")).to_have_text(cost.inner_text())
    expect(page.the("#mode-note .would")).to_have_text(cost.inner_text())
    expect(cards.nth(2)).to_contain_text("Would have hit50 %")
    expect(cards.nth(3).locator(".big")).to_have_text(re.compile(r"^[\d.]+ ms ?fetched, as all are$"))
    expect(page.the("#requests .badge")).to_have_text(["would hit", "would miss"])
    expect(page.the("#by-model tbody td").nth(1)).to_have_text("50 %")


def test_the_code_that_is_shown_asks_the_same(
    tab: OpenTab, priced: Proxy, simulator: Simulator, prompt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tab(priced)
    page.the(".options > summary").click()
    page.page.fill("#system", 'Say "no" \\ it\'s\nbrief 水')
    page.page.fill("#temperature", "0.5")
    page.ask(prompt)
    expect(page.badge).to_have_text("miss")
    said = page.answer.locator(".answer-text").inner_text()
    page.the(".code > summary").click()
    shown = page.the("#code-text").inner_text()
    assert f'base_url="{priced.base_url}"' in shown
    scope: dict[str, Any] = {}
    try:
        exec(shown, scope)  # noqa: S102 - the very words that people copy
    finally:
        client = scope.get("client")
        if isinstance(client, openai.OpenAI):
            client.close()
    assert capsys.readouterr().out == said
    assert simulator.asked() == 1  # so it was a hit
    for language, words in (("Node", "for await (const chunk of stream)"), ("curl", "-d '{")):
        page.page.get_by_role("tab", name=language).click()
        expect(page.the("#code-text")).to_contain_text(words)
        expect(page.the("#code-text")).to_contain_text("economy")


def test_everything_can_be_done_from_the_keyboard(
    tab: OpenTab, priced: Proxy, simulator: Simulator, prompt: str
) -> None:
    page = tab(priced)
    keyboard = page.page.keyboard
    eventually(lambda: page.page.evaluate("!document.querySelector('#models-open').hidden"))
    keyboard.press("Tab")
    expect(page.page.get_by_text("Skip to the message")).to_be_focused()
    keyboard.press("Enter")
    expect(page.the("#message")).to_be_focused()
    keyboard.press("Shift+Tab")  # the settings, closed
    keyboard.press("Shift+Tab")
    expect(page.the("#model")).to_be_focused()
    keyboard.type("INST")
    expect(page.the("#models [role=option]")).to_have_count(1)
    keyboard.press("ArrowDown")
    active = page.the("#model").get_attribute("aria-activedescendant")
    expect(page.the(f"#{active}")).to_have_attribute("aria-selected", "true")
    keyboard.press("Enter")
    expect(page.the("#model")).to_have_value("sim-instant")
    expect(page.the("#models")).to_be_hidden()
    keyboard.press("ArrowDown")
    expect(page.the("#models")).to_be_visible()
    keyboard.press("Escape")
    expect(page.the("#models")).to_be_hidden()
    keyboard.press("Tab")
    keyboard.press("Tab")
    keyboard.type(prompt)
    keyboard.press("Control+Enter")
    expect(page.badge).to_have_text("miss")
    expect(page.the("#said")).to_contain_text("Done: miss")
    keyboard.press("Shift+Tab")
    keyboard.press("Shift+Tab")
    keyboard.press("Shift+Tab")
    expect(page.answer.get_by_role("button", name="Ask again")).to_be_focused()
    keyboard.press("Enter")
    expect(page.badge).to_have_text("hit")
    expect(page.the("#message")).to_be_focused()
    keyboard.type("x")
    keyboard.press("Tab")
    expect(page.the("#send")).to_be_focused()
    keyboard.press("Enter")
    expect(page.the(".turn.answer")).to_have_count(2)
    expect(page.badge).to_have_text("miss")
    expect(page.the("#message")).to_be_focused()


# Of every text that is seen: its colour against what lies behind it, as WCAG 2 reckons. Large: 24 px, or 18.7 bold.
CONTRAST = """() => {
  const paint = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    paint.clearRect(0, 0, 1, 1);
    paint.fillStyle = colour;
    paint.fillRect(0, 0, 1, 1);
    return [...paint.getImageData(0, 0, 1, 1).data].map((value) => value / 255);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const found = rgba(getComputedStyle(each).backgroundColor);
      if (found[3] > 0.99) return found.slice(0, 3);
    }
    return [1, 1, 1];
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const unseen = !element.checkVisibility() || element.closest(".unseen, .skip, noscript");
    if (unseen || !walker.currentNode.data.trim()) continue;
    const style = getComputedStyle(element);
    const colour = rgba(element.closest("svg") ? style.fill : style.color).slice(0, 3);
    const [high, low] = [light(colour), light(behind(element))].sort((a, b) => b - a);
    const ratio = (high + 0.05) / (low + 0.05);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.7 && style.fontWeight >= 700);
    seen += 1;
    if (ratio < (large ? 3 : 4.5)) poor.push(`${walker.currentNode.data.trim().slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return [seen, poor];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_lies_behind_it(
    scheme: str, tab: OpenTab, priced: Proxy, simulator: Simulator, prompt: str
) -> None:
    page = tab(priced, status(500), color_scheme=scheme)
    page.ask(prompt)
    expect(page.badge).to_have_text("miss")
    page.press("Ask again")
    expect(page.badge).to_have_text("hit")
    page.ask("x", "sim-instant;status=500")
    expect(page.problem).to_be_visible()
    page.the(".options > summary").click()
    page.the(".code > summary").click()
    expect(page.the("#requests > li")).to_have_count(3)
    page.the("#requests summary").first.click()
    seen, poor = page.page.evaluate(CONTRAST)
    assert seen > 100
    assert poor == []


WIDE = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"


@pytest.mark.parametrize("width", [320, 390, 768, 1280])
def test_nothing_is_wider_than_the_screen(
    width: int, tab: OpenTab, priced: Proxy, simulator: Simulator, prompt: str
) -> None:
    page = tab(priced, status(404), width=width, height=844)
    page.ask(prompt + "W" * 300)
    expect(page.badge).to_have_text("miss")
    page.press("Ask again")
    expect(page.badge).to_have_text("hit")
    page.ask("x", "no-such-model-" * 18)
    expect(page.problem).to_be_visible()
    for each in (".options > summary", ".code > summary", "#minutes > summary"):
        page.the(each).click()
    expect(page.the("#requests > li")).to_have_count(3)
    for summary in page.the("#requests summary").all():
        summary.click()
    wide, screen = page.page.evaluate(WIDE)
    assert wide <= screen == width


# Words that stand on more than one line, of what is read at a glance. A word may end at a hyphen, but no sooner.
TORN = """() => {
  const torn = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  let seen = 0;
  while (walker.nextNode()) {
    const { currentNode: node } = walker;
    const place = node.parentElement.closest("h1, h2, h3, button, summary, td, th, dt, label, .badge, .state, .live");
    if (!place?.checkVisibility() || place.closest(".unseen")) continue;
    for (const word of node.data.matchAll(/[\\p{L}\\p{N}$%.,…]+/gu)) {
      const range = document.createRange();
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      seen += 1;
      if (new Set([...range.getClientRects()].map(({ top }) => Math.round(top))).size > 1) torn.push(word[0]);
    }
  }
  return [seen, torn];
}"""


@pytest.mark.parametrize("width", [320, 390, 1280])
def test_no_word_is_torn_in_two(
    width: int, tab: OpenTab, make_proxy: MakeProxy, monkeypatch: pytest.MonkeyPatch, prompt: str
) -> None:
    monkeypatch.setenv("TEST_ADMIN_KEY", "sk-admin")
    server = {"admin_key_env": "TEST_ADMIN_KEY"}
    models = MODELS | {"forgetful-and-rather-long-name": {"provider": "sim", "upstream": "sim-small"}}
    proxy = make_proxy(key="sk-operator", keys=[key("team")], server=server, models=models)
    page = tab(proxy, "ERR_INTERNET_DISCONNECTED", width=width, height=844)
    page.enter_key("sk-team")
    expect(page.the("#other-key")).to_be_visible()
    for model in ("sim-instant", "forgetful-and-rather-long-name"):
        page.ask(prompt, model)
        expect(page.badge).to_have_text("miss")
        page.press("Ask again")
        expect(page.badge).to_have_text("hit")
    expect(page.the("#requests > li")).to_have_count(4)
    page.the("#minutes > summary").click()
    seen, torn = page.page.evaluate(TORN)
    assert seen > 100
    assert torn == []
    page.context.set_offline(True)
    expect(page.the("#state")).to_contain_text("Trying again in")
    assert page.page.evaluate(TORN)[1] == []
    wide, screen = page.page.evaluate(WIDE)
    assert wide <= screen == width


def test_the_page_is_named_for_who_does_not_see_it(tab: OpenTab, priced: Proxy, prompt: str) -> None:
    page = tab(priced, reduced_motion="reduce")
    page.ask(prompt, SLOW)
    expect(page.answer.locator(".answer-text")).not_to_be_empty()
    caret = "getComputedStyle(document.querySelector('.answer-text'), '::after').animationName"
    assert page.page.evaluate(caret) == "none"
    page.page.press("#message", "Escape")
    expect(page.badge).to_have_text("stopped")
    snapshot = page.the("body").aria_snapshot()
    for landmark in ("banner", "main", "contentinfo", 'region "Playground"', 'region "Figures"', 'heading "Penstock"'):
        assert landmark in snapshot
    for role, name in (("combobox", "Model or route"), ("textbox", "Message"), ("button", "Send"), ("status", None)):
        assert page.page.get_by_role(role, **({} if name is None else {"name": name})).count() == 1  # type: ignore[arg-type]
    unnamed = """() => [...document.querySelectorAll("input, textarea, button, [role=img], table")].filter((one) =>
      one.checkVisibility() && !(one.labels?.length || one.textContent.trim() || one.getAttribute("aria-label")
      || one.caption)).map((one) => one.outerHTML)"""
    assert page.page.evaluate(unnamed) == []
