"""What went wrong in a batch, by kind."""

import json

import pytest

from proxy.core.batch import Answer, Failure, Wrong
from proxy.core.batch_faults import KINDS, WORDS, Faults, fault_of


def failed(status: int, error: object = None, *, body: bytes | None = None) -> Answer:
    return Answer(status, {}, json.dumps({"error": error}).encode() if body is None else body)


def test_each_kind_is_told_with_an_example_the_most_frequent_first() -> None:
    faults = Faults()
    faults.add(failed(400, {"code": None, "type": "invalid_request_error", "message": "No such model."}))
    for number in range(24):
        faults.add(failed(429, {"code": "insufficient_quota", "message": f"Of this budget {number} are left."}))
    faults.add(Failure("connection_lost", "It broke."))
    faults.add(Wrong("invalid_json_line", "This line is no JSON object."))
    assert faults.lines() == [
        "  24 × 429 insufficient_quota: Of this budget 0 are left.",
        "  1 × 400 invalid_request_error: No such model.",
        "  1 × connection_lost: It broke.",
        "  1 × invalid_json_line: This line is no JSON object.",
    ]
    assert Faults().lines() == []


@pytest.mark.parametrize(
    ("body", "kind", "message"),
    [
        (b'{"error": "full"}', "503", "full"),
        (b'{"message": "full", "type": 7}', "503 7", "full"),
        (b'{"error": null}', "503", ""),
        (b"[]", "503", ""),
        (b"<h1>Bad\n\tgateway</h1>\xff", "503", "<h1>Bad gateway</h1>\ufffd"),
        (b"", "503", ""),
    ],
)
def test_an_error_of_any_shape_is_told(body: bytes, kind: str, message: str) -> None:
    fault = fault_of(failed(503, body=body))
    assert (fault.kind, fault.message) == (kind, message)


def test_what_others_say_is_one_short_line_that_steers_no_terminal() -> None:
    said = {"code": "c\x1b[2J" * 99, "message": "\x1b]0;x\x07 two\nlines\r" + "long " * 10_000}
    fault = fault_of(failed(500, said))
    assert (fault.kind + fault.message).isprintable()
    assert len(fault.kind) < 50
    assert len(fault.message) <= WORDS
    assert fault.message.startswith("]0;x two lines long")


def test_kinds_without_end_are_bounded_and_none_is_lost() -> None:
    faults = Faults()
    for number in range(10 * KINDS):
        faults.add(failed(400, {"code": f"code-{number}"}))
    lines = faults.lines()
    assert len(lines) == 6
    assert lines[-1] == f"  and {10 * KINDS - 5} of other kinds"
