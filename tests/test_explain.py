"""`penstock explain`: says what a proxy on the same data directory would do, and asks nobody.

That it says so of every reason is in test_routes.py.
"""

import io
import json
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from proxy.clock import SystemClock
from proxy.core.access import Allowance, Grant
from proxy.errors import StartupError
from proxy.explain import explain
from proxy.ledger.keys import create_key, revoke_key
from proxy.ledger.opening import open_database
from proxy.ledger.rows import Ending, endings
from proxy.offers import price_table
from proxy.reading import read_settings
from tests.conftest import MakeProxy
from tests.ledger.told import end, intent
from tests.routed import asks, by_whom, counted, explained, explained_once, model, routing
from tests.scripted import post
from tests.support import Json, Simulator, ask, eventually, proxy_table

pytestmark = pytest.mark.usefixtures("loaded")

MODELS = {"alpha": model("alpha", "9", "9"), "beta": model("beta", "1", "2")}


def shown(
    directory: Path,
    sections: Json,
    body: Json | bytes,
    *,
    key: str | None = None,
    width: int = 200,
    endpoint: str = "chat",
    **headers: str,
) -> tuple[int, str]:
    """The exit code, and what is printed. Nobody listens at the provider's address."""
    settings = read_settings(proxy_table("http://127.0.0.1:9/v1", directory, {}, sections), source="test")
    console = Console(file=io.StringIO(), width=width)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    said = {name.replace("_", "-"): value for name, value in headers.items()}
    code = explain(raw, settings, price_table(settings), console, key=key, headers=said, endpoint=endpoint)
    return code, console.file.getvalue()  # type: ignore[attr-defined]


def test_without_any_proxy_it_says_what_a_new_one_would_do_and_leaves_no_trace(tmp_path: Path) -> None:
    directory = tmp_path / "nothing"
    code, text = shown(directory, routing(**MODELS), ask("Hello", model="any"))
    assert code == 0
    # 8 tokens, and 50 of an answer that nobody knows yet.
    assert "│ 1 │ beta  │      8 │      0 │     50 │     0.000108 │" in text
    assert "│ 2 │ alpha │      8 │      0 │     50 │     0.000522 │" in text
    assert "any: USD expected" in text
    assert "beta is asked first: the lowest expected cost." in text
    assert "The request needs nothing special; requests expected to follow it: 1.0." in text
    assert not directory.exists()


def test_a_running_proxy_writes_down_what_it_learns_and_is_asked_nothing(
    make_proxy: MakeProxy, simulator: Simulator, prompt: str
) -> None:
    proxy = make_proxy(**routing(**MODELS))
    assert asks(proxy, prompt) == "beta"
    body = ask(prompt + "!", model="any", stream=True)
    before = proxy.metrics()
    explained_once(proxy, body, lambda seen: seen.figures["beta"][2] != "50")
    assert simulator.asked() == 1
    for metric in ("penstock_decisions_total", "penstock_attempts_total", "penstock_requests_total"):
        assert counted(proxy.metrics(), metric) == counted(before, metric)


def test_a_stream_tells_how_soon_its_model_answers(make_proxy: MakeProxy, prompt: str, at_once: None) -> None:
    proxy = make_proxy(**routing(**MODELS))
    with post(proxy.url, ask(prompt, model="any", stream=True)) as wire:
        wire.read_body()
    seen = explained_once(proxy, ask(prompt, model="any"), lambda seen: seen.figures["beta"][5] != "?")
    assert seen.figures["beta"][5].endswith(" s")
    assert seen.figures["alpha"][5] == "?"


def test_it_heeds_what_the_request_wishes(tmp_path: Path) -> None:
    sections = {**routing(**MODELS), "routes": {"alpha": {"models": ["alpha", "beta"]}}}
    body = ask("Hello", model="alpha", max_tokens=100)
    assert "beta is asked first" in shown(tmp_path, sections, body)[1]
    code, text = shown(tmp_path, sections, body, x_penstock_route="exact")
    assert code == 0
    assert "alpha is asked first: nobody else may be asked" in text
    assert "│ 2 │" not in text
    code, text = shown(tmp_path, sections, body, X_Penstock_Max_Cost_USD="0.000001")
    assert code == 1
    assert "Nobody may be asked." in text
    assert "Those that may cost more than 0.000001 USD are not asked." in text
    assert text.count("it may cost") == 2


def test_it_says_what_a_request_needs(tmp_path: Path) -> None:
    body = ask("Hello", model="any", n=2, logprobs=True)
    code, text = shown(tmp_path, routing(**MODELS), body)
    assert code == 0
    assert "The request needs n, logprobs;" in text
    assert "not known to do n, logprobs" in text


def test_a_model_that_no_settings_name_goes_to_the_default_provider(tmp_path: Path) -> None:
    code, text = shown(tmp_path, routing(**MODELS), ask("Hello", model="nobody-knows"))
    assert code == 0
    assert "nobody-knows is asked first: nobody has a known price." in text
    assert 'set models."nobody-knows".price' in text


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    name = "[bold]m[/bold]"
    code, text = shown(tmp_path, {"models": {name: {"price": {"input": "1", "output": "1"}}}}, ask("Hello", model=name))
    assert code == 0
    assert f"{name} is asked first" in text
    assert f"│ {name} │" in text


KEYS = [{"name": name, "key_sha256": sha256(name.encode()).hexdigest()} for name in ("one", "other")]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]


def test_the_conversation_of_a_key_is_known_by_its_name(make_proxy: MakeProxy, prompt: str, at_once: None) -> None:
    models = {"alpha": model("alpha", "1", "1", can=["tools"]), "beta": model("beta", "0.5", "20", can=["tools"])}
    proxy = make_proxy(**routing(**models), keys=KEYS, key="sk-operator")
    turn: Json = {"model": "any", "messages": [{"role": "user", "content": prompt + " the" * 380}], "tools": TOOLS}
    with post(proxy.url, turn, authorization="Bearer one") as wire:
        said = json.loads(wire.read_body())["choices"][0]["message"]
        assert by_whom(wire, proxy) == "alpha"
    result = {"role": "tool", "tool_call_id": said["tool_calls"][0]["id"], "content": "42"}
    body = {**turn, "messages": [*turn["messages"], said, result], "max_tokens": 1}
    eventually(lambda: "alpha is asked first: it made the calls" in explained(proxy, body, key="one").text)
    assert "beta is asked first: the lowest expected cost" in explained(proxy, body, key="other").text


def test_a_key_of_the_ledger_is_known_by_name_and_id_with_what_is_left_of_its_budget(tmp_path: Path) -> None:
    grant = Grant("team", models=("any",), budget=Allowance(Decimal("0.0005"), "month"))
    row, _ = create_key(tmp_path, grant, now=1.0)
    body, sections = ask("Hello", model="any", max_tokens=50), routing(**MODELS)
    for key in ("team", row.id):
        code, text = shown(tmp_path, sections, body, key=key)
        assert code == 0
        assert "Of this key's budget of 0.0005 USD per month (UTC) 0.0005 are left." in text
    now = SystemClock().wall()
    money = Ending(intent(at=now, key=row.id), end(usd=Decimal("0.00045")))
    with open_database(tmp_path).connect() as connection:
        connection.exec_driver_sql(*endings().whole([money]))
    code, text = shown(tmp_path, sections, body, key="team")
    assert (code, "Nobody may be asked." in text) == (1, True)
    assert "0.00005 are left." in text
    with pytest.raises(StartupError, match="may not call 'beta'"):
        shown(tmp_path, sections, ask("Hello", model="beta"), key="team")
    revoke_key(tmp_path, "team", now=now)
    with pytest.raises(StartupError, match="--key: 'team' is not in force"):
        shown(tmp_path, sections, body, key="team")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"no JSON", "the request: "),
        (b"[]", "the request: "),
        (b'{"messages": []}', "the request: `model` is required"),
        (b'{"model": "any", "stream": 1}', "the request: `stream` must be"),
    ],
)
def test_what_is_no_request_is_said_in_one_line(body: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=said) as raised:
        shown(tmp_path, routing(**MODELS), body)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"key": "nobody"}, "--key: there is no key named 'nobody'"),
        ({"x_penstock_route": "exact"}, "'any' is a route, not a model"),
        ({"x_penstock_route": "best"}, "`x-penstock-route` must be one of"),
        ({"x_penstock_max_cost_usd": "little"}, "must be a number of US dollars"),
    ],
)
def test_what_makes_no_sense_with_it_is_said(options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=said):
        shown(tmp_path, routing(**MODELS), ask("Hello", model="any"), **options)


def test_what_was_learned_and_cannot_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "learned").write_bytes(b"\x81nonsense")
    with pytest.raises(StartupError, match=r"data\.directory: what was learned in .* cannot be read"):
        shown(tmp_path, routing(**MODELS), ask("Hello", model="any"))


@pytest.mark.parametrize("messages", [None, [], "text", [None], [{"role": "user", "content": 7}], [{}] * 1000])
def test_whatever_the_messages_are_something_is_ranked(messages: object, tmp_path: Path) -> None:
    assert shown(tmp_path, routing(**MODELS), {"model": "any", "messages": messages})[0] == 0


def test_a_narrow_terminal_shows_every_figure_and_a_wide_one_the_rest(tmp_path: Path) -> None:
    narrow = shown(tmp_path, routing(**MODELS), ask("Hello", model="any"), width=80)[1]
    assert "│     0.000108 │" in narrow
    assert "provider" not in narrow
    assert all(len(line) <= 80 for line in narrow.splitlines())
    assert "provider" in shown(tmp_path, routing(**MODELS), ask("Hello", model="any"), width=120)[1]


@pytest.mark.parametrize(
    ("endpoint", "asked"),
    [
        ("responses", {"input": "word " * 100, "max_output_tokens": 7}),
        ("completions", {"prompt": "word " * 100, "max_tokens": 7}),
        ("chat", {"messages": [{"role": "user", "content": "word " * 100}], "max_tokens": 7}),
    ],
)
def test_a_request_to_any_endpoint_is_counted_by_what_it_says(endpoint: str, asked: Json, tmp_path: Path) -> None:
    code, text = shown(tmp_path, routing(**MODELS), {"model": "any", **asked}, endpoint=endpoint)
    assert code == 0
    (row,) = [line for line in text.splitlines() if "│ beta " in line]
    prompt, _, answer = (int(each) for each in row.split("│")[3:6])
    assert 100 <= prompt < 120
    assert answer == 7


def test_what_is_no_request_to_that_endpoint_is_said(tmp_path: Path) -> None:
    body = {"model": "any", "input": "Hello", "max_output_tokens": "few"}
    with pytest.raises(StartupError, match="the request: `max_output_tokens` must be a whole number or null"):
        shown(tmp_path, routing(**MODELS), body, endpoint="responses")
    assert shown(tmp_path, routing(**MODELS), body | {"messages": []})[0] == 0


def test_an_embedding_has_a_prompt_and_no_answer(tmp_path: Path) -> None:
    body = {"model": "any", "input": ["word " * 100, "more"]}
    sections = {**routing(alpha=model("alpha", "9", "9")), "routes": {"any": {"models": ["alpha"]}}}
    code, text = shown(tmp_path, sections, body, endpoint="embeddings")
    assert code == 0
    (row,) = [line for line in text.splitlines() if "│ alpha " in line]
    assert [each.strip() for each in row.split("│")[4:6]] == ["0", "0"]


def test_models_without_the_endpoint_are_named_with_the_reason(tmp_path: Path) -> None:
    sections = routing(**MODELS)
    known = {"embed": {"upstream": "text-embedding-3-small"}, "embed-2": {"upstream": "text-embedding-3-large"}}
    sections["models"] |= known
    sections["routes"]["any"] = {"models": ["beta", "embed-2", "embed"]}
    code, text = shown(tmp_path, sections, {"model": "any", "messages": []})
    assert code == 0
    assert "embed: it has no chat\n" in text
    assert "embed-2: it has no chat\n" in text
    assert "beta: it has no" not in text
    sections["routes"]["any"] = {"models": ["embed-2", "embed"]}
    text = shown(tmp_path, sections, {"model": "any", "input": "Hello"}, endpoint="embeddings")[1]
    assert "embed: its vectors are not those of embed-2\n" in text
    assert "embed-2 is asked first: nobody else may be asked." in text
