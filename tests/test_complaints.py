"""What the log is told of failures, and how often."""

import logging

import pytest

from proxy.complaints import KINDS, QUIET, Complaints
from proxy.errors import Overloaded, UpstreamBadContentType, UpstreamConnectError, UpstreamFailed


class Watch:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def complaints(watch: Watch, caplog: pytest.LogCaptureFixture) -> Complaints:
    caplog.set_level(logging.WARNING)
    return Complaints(watch)


def test_a_failure_is_told_at_once_with_what_clients_are_not_told(
    complaints: Complaints, caplog: pytest.LogCaptureFixture
) -> None:
    complaints.failed("sim", UpstreamConnectError("It could not be reached.", detail="10.0.0.7:443"), model="gpt")
    assert caplog.messages == [
        "provider sim, model gpt: upstream_connect_error: It could not be reached. (10.0.0.7:443)"
    ]


def test_of_one_kind_there_is_a_line_once_in_a_while_that_says_how_many_there_were(
    complaints: Complaints, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(4):
        complaints.answered("sim", 503)
    watch.now = QUIET
    complaints.answered("sim", 503)
    watch.now = 2 * QUIET
    complaints.answered("sim", 503)
    told = "provider sim: answered with status 503"
    assert caplog.messages == [told, f"{told} (3 more since the last line)", told]


def test_another_kind_is_not_held_back(complaints: Complaints, caplog: pytest.LogCaptureFixture) -> None:
    complaints.failed("sim", UpstreamBadContentType("It answered with HTML."))
    complaints.failed("sim", UpstreamBadContentType("It answered with a redirect."))
    complaints.failed("other", UpstreamBadContentType("It answered with HTML."))
    complaints.overloaded(Overloaded("No room (server.max_flights)."))
    assert len(caplog.messages) == 4
    assert caplog.messages[-1].startswith("overloaded: No room (server.max_flights).")


@pytest.mark.parametrize("status", [200, 400, 401, 404, 429])
def test_what_a_provider_could_answer_is_no_complaint(
    status: int, complaints: Complaints, caplog: pytest.LogCaptureFixture
) -> None:
    complaints.answered("sim", status)
    assert caplog.messages == []


def test_what_a_provider_can_think_of_is_not_remembered_for_ever(complaints: Complaints) -> None:
    for number in range(3 * KINDS):
        complaints.failed("sim", UpstreamBadContentType(f"It answered with text/x-{number}."))
    assert len(complaints._last) <= KINDS


def test_a_providers_own_words_are_not_repeated_and_no_line_is_made_two(
    complaints: Complaints, caplog: pytest.LogCaptureFixture
) -> None:
    complaints.failed("sim", UpstreamFailed({"message": "you said: my secret"}))
    complaints.failed("sim", UpstreamBadContentType("one\n2026-01-01 ERROR forged\x1b[31m " + "x" * 5000))
    assert "secret" not in caplog.text
    assert all(line.isprintable() and len(line) < 600 for line in caplog.messages)
