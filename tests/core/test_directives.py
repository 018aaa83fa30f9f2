"""Each directive is heard, and one of ours that makes no sense is refused by its name."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.access import Headers
from proxy.core.directives import DIRECTIVES, Directives, read_directives
from proxy.errors import InvalidRequest


def said(name: bytes, value: bytes) -> Directives:
    return read_directives({name: value})


def test_a_request_without_directives_says_nothing() -> None:
    assert read_directives({}) == read_directives({b"authorization": b"Bearer x"}) == Directives()


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        (b"cache-control", b"no-cache", Directives(no_cache=True)),
        (b"cache-control", b"no-store", Directives(no_store=True)),
        (b"cache-control", b"max-age=60", Directives(max_age=60)),
        (b"cache-control", b"max-age=0", Directives(max_age=0)),
        (b"cache-control", b"only-if-cached", Directives(only_if_cached=True)),
        (b"x-penstock-ttl", b"3600", Directives(ttl=3600)),
        (b"x-penstock-ttl", b"0", Directives(ttl=0)),
        (b"x-penstock-ttl", b" 0.5 ", Directives(ttl=0.5)),
        (b"x-penstock-sample", b"3", Directives(sample=b"3")),
        (b"x-penstock-sample", b"0", Directives(sample=b"0")),
        (b"x-penstock-replay", b"instant", Directives(replay="instant")),
        (b"x-penstock-replay", b" Recorded", Directives(replay="recorded")),
        (b"x-penstock-route", b"exact", Directives(route="exact")),
        (b"x-penstock-route", b"cheapest", Directives(route="cheapest")),
        (b"x-penstock-route", b" EXACT ", Directives(route="exact")),
        (b"x-penstock-max-cost-usd", b"0.05", Directives(max_cost=Decimal("0.05"))),
        (b"x-penstock-max-cost-usd", b" 2 ", Directives(max_cost=Decimal(2))),
        (b"x-penstock-max-cost-usd", b"0", Directives(max_cost=Decimal(0))),
        (b"x-penstock-max-cost-usd", b"1.", Directives(max_cost=Decimal(1))),
    ],
)
def test_each_directive_is_heard(name: bytes, value: bytes, meant: Directives) -> None:
    assert said(name, value) == meant
    assert name in DIRECTIVES


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        (b"", Directives()),
        (b",, ,", Directives()),
        (b"no-transform, private, s-maxage=5, max-stale", Directives()),
        (b"no-cachet", Directives()),
        (b"NO-CACHE , No-Store", Directives(no_cache=True, no_store=True)),
        (b'no-cache="x-field"', Directives(no_cache=True)),
        (b"no-cache=1;max-age=5", Directives(no_cache=True)),
        (b'max-age="60"', Directives(max_age=60)),
        (b"max-age = 60", Directives(max_age=60)),
        (b"only-if-cached,max-age=1.5", Directives(only_if_cached=True, max_age=1.5)),
        (b"\xff\xfe, no-store", Directives(no_store=True)),
    ],
)
def test_an_odd_cache_control_is_read_as_far_as_it_goes(value: bytes, meant: Directives) -> None:
    assert said(b"cache-control", value) == meant


@pytest.mark.parametrize("age", [b"", b"abc", b"-1", b"+1", b"nan", b"inf", b"1e9", b"1_000", b".5", b"1.2.3", b"\xb2"])
def test_an_age_that_cannot_be_read_accepts_nothing_old(age: bytes) -> None:
    assert said(b"cache-control", b"max-age=" + age).max_age == 0
    assert said(b"cache-control", b"max-age").max_age == 0


@pytest.mark.parametrize("age", [b"2147483648", b"9223372036854775807", b"9" * 400])
def test_an_age_beyond_all_numbers_is_as_good_as_for_ever(age: bytes) -> None:
    found = said(b"cache-control", b"max-age=" + age).max_age
    assert found is not None
    assert found >= 2147483648  # RFC 9111, 1.2.2


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("x-penstock-ttl", value)
            for value in (b"", b"-1", b"1h", b"nan", b"inf", b"1e3", b"5, 6", b"\xd9\xa3", b"1_0")
        ),
        *(
            ("x-penstock-max-cost-usd", value)
            for value in (b"", b"-1", b"$1", b"nan", b"inf", b"1e3", b"1,5", b".5", b"\xb2", b"1_0", b"0." + b"1" * 29)
        ),
        *(("x-penstock-sample", value) for value in (b"-1", b"1.0", b"a", b"1, 2", b"\xb2", b"1" * 19)),
        *(("x-penstock-replay", value) for value in (b"", b"slow", b"instant, recorded", b"\xff")),
        *(("x-penstock-route", value) for value in (b"", b"cheap", b"exact, exact")),
    ],
)
def test_a_directive_that_makes_no_sense_is_refused_by_its_name(name: str, value: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        said(name.encode(), value)
    error = caught.value
    assert (error.status, error.param) == (400, name)
    assert f"`{name}`" in error.message


def test_a_cap_is_as_exact_as_it_was_said() -> None:
    cap = said(b"x-penstock-max-cost-usd", b"0.1234567890123456789012345678").max_cost
    assert cap == Decimal("0.1234567890123456789012345678")  # as a float it would have lost half of its digits


def test_one_sample_has_one_name() -> None:
    assert said(b"x-penstock-sample", b"007").sample == said(b"x-penstock-sample", b" 7 ").sample == b"7"
    assert said(b"x-penstock-sample", b"000").sample == b"0" != Directives().sample


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(DIRECTIVES), st.binary(max_size=30)))
def test_any_bytes_in_headers_are_read_or_refused(headers: Headers) -> None:
    try:
        found = read_directives(headers)
    except InvalidRequest as error:
        found = Directives()
        named = error.param
    else:
        named = None
    assert named is None or named.encode() in headers
    assert found.ttl is None or found.ttl >= 0
    assert found.max_age is None or found.max_age >= 0
    assert found.max_cost is None or (found.max_cost.is_finite() and found.max_cost >= 0)
