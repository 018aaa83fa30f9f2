"""`Cache-Status` in the very words of RFC 9211."""

import pytest

from proxy.core.policy import FETCH_ANEW, JOIN_ONLY, LEAD_ONLY, PLAIN, Verdict, bypass
from proxy.core.status import forward_status, hit_status


@pytest.mark.parametrize(
    ("left", "stale", "status"),
    [
        (3541, False, b"penstock; hit; ttl=3541"),
        (3541.9, False, b"penstock; hit; ttl=3541"),
        (0.2, False, b"penstock; hit; ttl=0"),
        (-20, True, b"penstock; hit; ttl=-20; detail=stale-if-error"),
        (-20.7, True, b"penstock; hit; ttl=-20; detail=stale-if-error"),
    ],
)
def test_a_hit_says_how_long_it_is_good(left: float, stale: bool, status: bytes) -> None:
    assert hit_status(left, stale=stale) == status


@pytest.mark.parametrize(
    ("verdict", "found_stale", "stored", "status"),
    [
        (PLAIN, False, True, b"penstock; fwd=miss; stored"),
        (PLAIN, False, False, b"penstock; fwd=miss"),
        (PLAIN, True, True, b"penstock; fwd=stale; stored"),
        (FETCH_ANEW, False, True, b"penstock; fwd=request; stored"),
        (FETCH_ANEW, True, True, b"penstock; fwd=request; stored"),
        (LEAD_ONLY, False, False, b"penstock; fwd=request"),
        (JOIN_ONLY, False, False, b"penstock; fwd=bypass; detail=sampled"),
        (bypass("no-store"), False, False, b"penstock; fwd=bypass; detail=no-store"),
        (bypass("remote-media"), False, False, b"penstock; fwd=bypass; detail=remote-media"),
    ],
)
def test_an_answer_from_the_provider_says_why_and_whether_it_will_be_kept(
    verdict: Verdict, found_stale: bool, stored: bool, status: bytes
) -> None:
    assert forward_status(verdict, found_stale=found_stale, collapsed=False, stored=stored) == status


@pytest.mark.parametrize("verdict", [PLAIN, JOIN_ONLY])
@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("found_stale", [True, False])
def test_a_joined_answer_says_so_and_nothing_else(verdict: Verdict, stored: bool, found_stale: bool) -> None:
    status = forward_status(verdict, found_stale=found_stale, collapsed=True, stored=stored)
    assert status == b"penstock; fwd=miss; collapsed"


@pytest.mark.parametrize(
    ("partial", "collapsed", "stored", "status"),
    [
        (True, False, True, b"penstock; fwd=partial; stored"),
        (True, False, False, b"penstock; fwd=partial"),
        (True, True, False, b"penstock; fwd=partial; collapsed"),
        (False, True, False, b"penstock; fwd=miss; collapsed"),
    ],
)
def test_a_list_says_whether_a_part_of_it_was_known(
    partial: bool, collapsed: bool, stored: bool, status: bytes
) -> None:
    found = forward_status(PLAIN, found_stale=True, collapsed=collapsed, stored=stored, partial=partial)
    assert found == status
