"""What the log says of a request and of everything else: one line, whatever anybody said, and no figure made up."""

import json
import re
from datetime import timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pricing.cost import Usage
from proxy.core.books import Answered
from proxy.core.lines import SHOWN, json_lines, json_note, level_of, text_lines, text_note

AT = 1_767_225_845.25  # 2026-01-01 00:04:05.250 UTC

PLAIN = Answered(
    request="req_1",
    at=AT,
    key="",
    endpoint="chat",
    asked="",
    outcome="refused",
    status=401,
    code=None,
    provider="",
    model="",
    usage=None,
    saved=None,
    first=None,
    total=0.5,
    leader=None,
    entry=b"\x00" * 32,
)
FULL = msgspec.structs.replace(
    PLAIN,
    key="pk_1",
    asked="economy",
    outcome="miss",
    status=200,
    code="upstream_stall",
    provider="p",
    model="deepseek-v3.2",
    usage=Usage(120, 100, 30, reasoning=10),
    saved=Decimal("0.00120"),
    first=0.1234567,
    leader="req_0",
    cost=Decimal("0.0000000010"),
    token=0.2,
    overhead=0.0003,
    shadow="hit",
    route="economy",
    why="cheapest",
    passed_over=(("gpt-4.1", "cooling"), ("claude", "no_tools")),
    attempts=(("first", "status_503"), ("deepseek-v3.2", "ok")),
)

ANY_TEXT = st.text(st.characters())  # half characters too: not what UTF-8 can say
LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\x7f\x9b\u202e\ud800"


def row(**members: Any) -> Answered:
    return msgspec.structs.replace(PLAIN, **members)


def read(line: bytes) -> dict[str, Any]:
    """The one line that this must be."""
    assert line.endswith(b"\n")
    assert line[:-1].decode().isprintable()
    found: dict[str, Any] = json.loads(line)
    return found


def text(answered: Answered) -> str:
    line = text_lines([answered]).decode()
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    return line[:-1]


def test_json_says_everything_that_is_known_of_a_request() -> None:
    assert read(json_lines([FULL])) == {
        "time": "2026-01-01T00:04:05.750Z",  # when it was over
        "level": "info",
        "message": "request",
        "request": "req_1",
        "key": "pk_1",
        "endpoint": "chat",
        "asked": "economy",
        "provider": "p",
        "model": "deepseek-v3.2",
        "outcome": "miss",
        "status": 200,
        "code": "upstream_stall",
        "input_tokens": 120,
        "output_tokens": 30,
        "cached_tokens": 100,
        "cost_usd": "0.000000001",
        "saved_usd": "0.0012",
        "first_token": 0.2,
        "first": 0.123457,
        "total": 0.5,
        "overhead": 0.0003,
        "leader": "req_0",
        "route": "economy",
        "why": "cheapest",
        "passed_over": [{"model": "gpt-4.1", "reason": "cooling"}, {"model": "claude", "reason": "no_tools"}],
        "attempts": [{"model": "first", "result": "status_503"}, {"model": "deepseek-v3.2", "result": "ok"}],
        "shadow": "hit",
    }


def test_json_leaves_out_what_is_not_known() -> None:
    assert read(json_lines([PLAIN])) == {
        "time": "2026-01-01T00:04:05.750Z",
        "level": "info",
        "message": "request",
        "request": "req_1",
        "endpoint": "chat",
        "outcome": "refused",
        "status": 401,
        "total": 0.5,
    }


def test_nothing_is_a_figure_and_not_unknown() -> None:
    line = read(json_lines([row(usage=Usage(0, 0, 0), cost=Decimal(0), saved=Decimal("0.00"), first=0.0)]))
    assert (line["input_tokens"], line["output_tokens"], line["cached_tokens"]) == (0, 0, 0)
    assert (line["cost_usd"], line["saved_usd"], line["first"]) == ("0", "0", 0.0)


@pytest.mark.parametrize(
    ("routing", "said"), [(Decimal("0.5"), "0.5"), (Decimal("-0.5"), None), (Decimal(0), None), (None, None)]
)
def test_a_request_saves_by_its_route_too(routing: Decimal | None, said: str | None) -> None:
    assert read(json_lines([row(routing=routing)])).get("saved_usd") == said
    assert ("saved" in text(row(routing=routing))) == (said is not None)


@pytest.mark.parametrize(
    ("attempts", "said"),
    [
        ((), False),
        ((("m", "ok"),), False),  # which the line says anyway
        ((("m", "status_503"),), True),
        ((("m", "status_503"), ("n", "ok")), True),
    ],
)
def test_who_was_asked_is_told_where_that_did_not_go_well(attempts: tuple[tuple[str, str], ...], said: bool) -> None:
    assert ("attempts" in read(json_lines([row(attempts=attempts)]))) == said


def test_the_key_of_the_answer_in_the_cache_is_not_told() -> None:
    secret = b"\x01\x02" * 16
    assert read(json_lines([row(entry=secret)])) == read(json_lines([row(entry=None)]))


@pytest.mark.parametrize(
    ("outcome", "status", "level"),
    [("hit", 200, "info"), ("refused", 429, "info"), ("left", 499, "info"), ("miss", 502, "warning"),
     ("refused", 503, "warning"), ("broken", 200, "warning")],
)  # fmt: skip
def test_what_failed_without_the_clients_doing_is_a_warning(outcome: str, status: int, level: str) -> None:
    answered = row(outcome=outcome, status=status)
    assert level_of(answered) == level
    assert read(json_lines([answered]))["level"] == level


def test_each_request_has_a_line_in_their_order() -> None:
    rows = [row(request=f"req_{number}", asked="ä\x7f"[: number % 3]) for number in range(10)]
    assert [json.loads(line)["request"] for line in json_lines(rows).splitlines()] == [each.request for each in rows]
    assert [line.split()[-1] for line in text_lines(rows).decode().splitlines()] == [each.request for each in rows]
    assert json_lines([]) == text_lines([]) == b""


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT, ANY_TEXT)
@example(LINE_ENDS, LINE_ENDS, LINE_ENDS, LINE_ENDS)
@example("gpt-4.1\n{}", "x\u2028y", '","status":500,"', "\x1b[2J")
def test_whatever_a_client_said_json_is_one_line_that_reads_back(asked: str, model: str, key: str, code: str) -> None:
    answered = row(asked=asked, model=model, key=key, code=code, passed_over=((model, asked),))
    line = read(json_lines([answered]))
    said = {"asked": asked, "model": model, "key": key, "code": code}
    assert {name: line.get(name, "") for name in said} == said
    assert line["passed_over"] == [{"model": model, "reason": asked}]
    assert line["status"] == 401


@given(ANY_TEXT, ANY_TEXT, ANY_TEXT)
@example(LINE_ENDS, LINE_ENDS, LINE_ENDS)
def test_whatever_a_client_said_text_is_one_line_of_what_can_be_seen(asked: str, model: str, code: str) -> None:
    assert text(row(asked=asked, model=model, code=code)).startswith("00:04:05 refused   401 chat ")


def test_one_strange_name_costs_its_neighbours_nothing() -> None:
    lines = json_lines([FULL, row(asked="\ud800"), row(asked="\x9b"), row(asked="größer"), PLAIN]).splitlines()
    assert lines[0] + b"\n" == json_lines([FULL])
    assert [json.loads(line).get("asked") for line in lines] == ["economy", "\ud800", "\x9b", "größer", None]
    assert "größer".encode() in lines[3]  # as people write it


def test_text_is_short_and_aligned() -> None:
    hit = row(
        asked="gpt-4.1", model="gpt-4.1", outcome="hit", status=200, total=0.0012, saved=Decimal("0.00124"),
        cost=Decimal(0), key="pk_1",
    )  # fmt: skip
    lines = [text(each) for each in (hit, FULL, PLAIN, row(total=75.0, status=404, endpoint="models"))]
    remarks = "upstream_stall  after first status_503  saved $0.0012  cost $0.0000000010  would be hit  pk_1  req_1"
    assert lines == [
        "00:04:05 hit       200 chat   gpt-4.1                        1.2 ms  saved $0.0012  pk_1  req_1",
        f"00:04:05 miss      200 chat   economy → deepseek-v3.2        500 ms  {remarks}",
        "00:04:05 refused   401 chat                                  500 ms  req_1",
        "00:05:20 refused   404 models                                75.0 s  req_1",
    ]


def test_text_has_the_time_of_the_readers_clock() -> None:
    assert text_lines([PLAIN], timezone(timedelta(hours=5, minutes=30))).startswith(b"05:34:05 ")
    note = text_note(AT, "warning", "penstock", "so", zone=timezone(timedelta(hours=-1)))
    assert note == b"2025-12-31 23:04:05,250 WARNING penstock: so\n"


@pytest.mark.parametrize(
    ("usd", "shown"),
    [
        ("12.346", "$12.35"),
        ("0.5", "$0.50"),
        ("0.012", "$0.012"),
        ("0.0012345", "$0.0012"),
        ("1.234E-7", "$0.00000012"),
    ],
)
def test_people_see_two_digits_of_what_is_less_than_a_cent(usd: str, shown: str) -> None:
    assert f"cost {shown}  req_1" in text(row(cost=Decimal(usd)))


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.00004, "0.0 ms"),
        (0.00994, "9.9 ms"),
        (0.00996, "10 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (9.996, "10.0 s"),
        (120, "120.0 s"),
    ],
)
def test_a_duration_has_a_unit_that_suits_it(seconds: float, shown: str) -> None:
    assert text(row(total=seconds)).endswith(f" {shown}  req_1")


def test_text_shows_the_beginning_of_a_long_name() -> None:
    line = text(row(asked="m" * 256))
    assert f" {'m' * (SHOWN - 1)}… " in line
    assert len(line) < 120


def test_a_name_that_might_pass_for_more_is_quoted() -> None:
    assert " 'x  saved $9  req_9' " in text(row(asked="x  saved $9  req_9"))


@given(ANY_TEXT, ANY_TEXT)
@example(LINE_ENDS, LINE_ENDS)
def test_whatever_is_noted_json_is_one_line_that_reads_back(message: str, exception: str) -> None:
    line = read(json_note(AT, "error", "penstock", message, exception))
    expected = {"time": "2026-01-01T00:04:05.250Z", "level": "error", "logger": "penstock", "message": message}
    assert line == {**expected, **({"exception": exception} if exception else {})}


@given(ANY_TEXT, ANY_TEXT)
@example("one\n2026-01-01 00:00:00,000 INFO penstock: two", "E\n2026-01-01 00:00:00,000 INFO penstock: three")
def test_whatever_is_noted_only_one_line_of_text_looks_like_one(message: str, exception: str) -> None:
    first, *more = text_note(AT, "error", "penstock", message, exception).decode().removesuffix("\n").split("\n")
    assert re.match(r"2026-01-01 00:04:05,250 ERROR penstock: ", first)
    assert first.isprintable()
    assert len(more) == sum(bool(line) for line in exception.split("\n"))
    assert all(line.startswith("    ") and line.isprintable() for line in more)
