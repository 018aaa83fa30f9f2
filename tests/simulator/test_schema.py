"""Values fit the schemas that they are made for."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.simulator.schema import Fitting
from proxy.simulator.text import Dice, pieces, prose

checked = settings(deadline=None, max_examples=40)

SEEDS = st.binary(min_size=1, max_size=8)


def fitting(schema: dict[str, Any], seed: bytes) -> Any:
    return Fitting(schema, Dice(seed)).value()


@checked
@given(SEEDS)
def test_a_list_of_types_gives_the_one_that_is_not_null(seed: bytes) -> None:
    assert isinstance(fitting({"type": ["null", "integer"]}, seed), int)
    assert fitting({"type": ["null"]}, seed) is None


@checked
@given(SEEDS, st.integers(-500, 500), st.integers(0, 50))
def test_integers_keep_their_bounds(seed: bytes, low: int, span: int) -> None:
    assert low <= fitting({"type": "integer", "minimum": low, "maximum": low + span}, seed) <= low + span
    above = fitting({"type": "integer", "exclusiveMinimum": low, "exclusiveMaximum": low + 2}, seed)
    assert above == low + 1


@checked
@given(SEEDS)
def test_numbers_strings_and_lists_keep_their_bounds(seed: bytes) -> None:
    assert 0.2 <= fitting({"type": "number", "minimum": 0.2, "maximum": 0.3}, seed) <= 0.3
    assert fitting({"type": "integer", "multipleOf": 5}, seed) % 5 == 0
    assert len(fitting({"type": "string", "minLength": 30, "maxLength": 40}, seed)) in range(30, 41)
    assert len(fitting({"type": "array", "minItems": 4, "maxItems": 6, "items": {}}, seed)) in range(4, 7)
    assert fitting({"enum": ["a", 3]}, seed) in ("a", 3)
    assert fitting({"const": {"x": 1}}, seed) == {"x": 1}


@checked
@given(SEEDS)
def test_a_schema_that_contains_itself_comes_to_an_end(seed: bytes) -> None:
    node = {
        "type": "object",
        "properties": {
            "children": {"type": "array", "items": {"$ref": "#/$defs/node"}},
            "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
        },
        "required": ["children", "next"],
    }
    tree = fitting({"$ref": "#/$defs/node", "$defs": {"node": node}}, seed)
    assert set(tree) == {"children", "next"}


@checked
@given(SEEDS)
def test_a_schema_that_requires_itself_comes_to_an_end_too(seed: bytes) -> None:
    fitting({"type": "object", "properties": {"me": {"$ref": "#"}}, "required": ["me"]}, seed)


@checked
@given(SEEDS)
def test_what_makes_no_sense_gives_a_string(seed: bytes) -> None:
    for schema in ({}, {"$ref": "#/nowhere"}, {"type": "unheard-of"}, {"anyOf": [True]}):
        assert isinstance(fitting(schema, seed), str)


@checked
@given(st.text())
def test_pieces_join_to_the_text(text: str) -> None:
    assert "".join(pieces(text)) == text


@checked
@given(SEEDS, st.integers(1, 80))
def test_prose_has_at_least_so_many_tokens(seed: bytes, count: int) -> None:
    assert len(pieces(prose(Dice(seed), count))) >= count
