"""Money as an integer of 1e-12 USD: exact, and never better than it is."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from proxy.ledger.pico import MOST, charged, dollars, spared

WHOLE = st.integers(-(10**18), 10**18)


@given(WHOLE)
def test_what_a_row_can_hold_comes_back_as_it_was(pico: int) -> None:
    usd = dollars(pico)
    assert charged(usd) == spared(usd) == pico
    assert usd == Decimal(pico) / 10**12


@given(WHOLE, st.decimals("0.0001", "0.9999"))
def test_a_charge_that_is_finer_is_rounded_up_and_a_saving_down(pico: int, rest: Decimal) -> None:
    usd = (pico + rest) / 10**12 if abs(pico) < 10**15 else dollars(pico) + rest.scaleb(-12)
    assert charged(usd) == pico + 1
    assert spared(usd) == pico


def test_what_is_not_known_is_not_nothing() -> None:
    assert charged(None) is None
    assert spared(None) is None
    assert charged(Decimal(0)) == 0


def test_an_amount_beyond_every_column_is_the_most_that_one_holds() -> None:
    assert charged(Decimal("1e30")) == MOST
    assert spared(Decimal("-1e30")) == -MOST


def test_digits_beyond_the_usual_precision_are_not_lost_on_the_way() -> None:
    assert charged(Decimal("1234567.123456789012000000000000000001")) == 1234567_123456789013
