"""What has come of a batch, counted, and said in words."""

from decimal import Decimal

import pytest

from proxy.core.batch import Answer, Failure, Wrong
from proxy.core.batch_figures import Figures, dollars, outcome_of, progress_words, seconds_left, several, span

MISS, HIT, JOINED = "penstock; fwd=miss; stored", "penstock; hit; ttl=9", "penstock; fwd=miss; collapsed"


def answer(cache: str, status: int = 200, cost: str | None = None, saved: str | None = None) -> Answer:
    headers = {"cache-status": cache, "x-penstock-cost-usd": cost, "x-penstock-saved-usd": saved}
    return Answer(status, {name: value for name, value in headers.items() if value is not None}, b"{}")


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        (HIT, "hit"),
        ("penstock; hit; ttl=-20; detail=stale-if-error", "hit"),
        (JOINED, "joined"),
        (MISS, "asked"),
        ("penstock; fwd=partial", "asked"),
        ("penstock; fwd=bypass; detail=hit", "asked"),
        ("", "asked"),
    ],
)
def test_a_cache_status_says_what_became_of_a_request(said: str, outcome: str) -> None:
    assert outcome_of(said) == outcome


def test_every_result_is_counted_once() -> None:
    figures = Figures(total=9, taken=2, wrong=1)
    figures.add(answer(MISS, cost="0.5"))
    figures.add(answer(HIT, cost="0", saved="0.25"))
    figures.add(answer(JOINED, cost="0", saved="0.25"))
    figures.add(answer(MISS, status=400))
    figures.add(Failure("connection_lost", "."))
    assert (figures.done, figures.left, figures.errors) == (8, 1, 3)
    assert (figures.hits, figures.joined, figures.answered, figures.failed) == (1, 1, 3, 2)
    assert (figures.cost, figures.saved) == (Decimal("0.5"), Decimal("0.5"))
    assert figures.unpriced == 1  # of what was lost nobody knows


def test_what_was_answered_badly_is_neither_hit_nor_joined() -> None:
    figures = Figures(total=9)
    for cache in (HIT, JOINED, MISS):
        figures.add(answer(cache, status=429))
    assert (figures.hits, figures.joined, figures.failed) == (0, 0, 3)


def test_what_went_wrong_is_kept_by_kind() -> None:
    figures = Figures(total=4)
    figures.found_wrong(Wrong("invalid_url", "No."))
    figures.add(answer(MISS, status=400))
    figures.add(Failure("connection_lost", "It broke."))
    figures.add(answer(MISS))
    assert (figures.wrong, figures.errors, figures.left) == (1, 3, 0)
    assert figures.faults.lines() == ["  1 × invalid_url: No.", "  1 × 400", "  1 × connection_lost: It broke."]


def test_a_cost_that_nobody_said_is_in_no_sum_and_never_0() -> None:
    figures = Figures(total=2)
    figures.add(answer(MISS))
    figures.add(answer(HIT, cost="0"))
    assert "cost unknown" in progress_words(figures, None)
    figures.add(answer(MISS, cost="0.5"))
    figures.add(answer(MISS, cost="nan"))
    assert "cost $0.5000 and 2 of unknown cost" in progress_words(figures, None)


def test_a_request_that_was_never_sent_costs_nothing() -> None:
    figures = Figures(total=1)
    figures.add(Failure("connection_failed", ".", sent=False))
    assert (figures.failed, figures.unpriced) == (1, 0)


def test_a_line_of_progress_says_how_far_it_is() -> None:
    figures = Figures(total=5000, taken=1000)
    figures.answered, figures.hits, figures.cost, figures.saved = 250, 40, Decimal("0.123456"), Decimal("120.5")
    assert progress_words(figures, 200.0) == (
        "1,250 of 5,000 done (25%), 40 hits, 0 joined, cost $0.1235, saved $120.50, about 3 min left"
    )
    figures.failed = 1
    assert "1 error," in progress_words(figures, None)
    figures.hits, figures.failed = 1, 1000
    assert "1 hit, 0 joined, 1,000 errors" in progress_words(figures, None)
    assert [several(count, "line") for count in (0, 1, 2)] == ["0 lines", "1 line", "2 lines"]


def test_the_time_left_follows_from_this_run_alone() -> None:
    figures = Figures(total=100, taken=50)
    assert seconds_left(figures, 10.0) is None
    figures.answered = 10
    assert seconds_left(figures, 10.0) == 40.0


def test_amounts_and_times_are_for_people() -> None:
    assert [dollars(Decimal(usd)) for usd in ("0", "0.0000123", "0.05", "1234.567")] == [
        "$0.0000",
        "$0.000012",
        "$0.0500",
        "$1,234.57",
    ]
    assert [span(seconds) for seconds in (0.2, 59, 600, 7200)] == ["1 s", "59 s", "10 min", "2.0 h"]
