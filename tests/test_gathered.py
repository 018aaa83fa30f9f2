"""What a list came to follows from what of it was known, what it joined, and what it asked for."""

import asyncio
import json
import math
from collections.abc import AsyncIterator
from decimal import Decimal

import pytest

from pricing.cost import Usage
from proxy.core.access import NOBODY
from proxy.core.bill import Bill
from proxy.core.call import read_call
from proxy.core.embeddings import Part
from proxy.core.entry import Entry, Meta
from proxy.core.policy import Freshness, Rules
from proxy.flights import Flight, Flights
from proxy.gathered import Gathered, Listed, listed_of
from proxy.pipeline import Live
from proxy.plans import Plan, Plans, Terms
from tests.fakes import Provider, an_asker, roomy, some_routes

D = Decimal
PLANS = Plans(
    Terms(secret=b"s" * 32, ignore=(), shared=False, ttl=60.0, stale_if_error=0.0),
    Rules(),
    some_routes({"named": {"upstream": "theirs"}}),
    {"sim": Provider()},
    lambda *_: False,
)


def plan(*inputs: str, **members: object) -> Plan:
    body = {"model": "named", "input": inputs} | members
    return PLANS.make(read_call("embeddings", json.dumps(body).encode(), {}), NOBODY)


def part(of: Plan, *inputs: str) -> Plan:
    return PLANS.reduced(of, [piece for piece in of.pieces if piece.input in inputs])


def made(of: Plan, *inputs: str, tokens: int | None = 1, form: str | None = "float") -> dict[bytes, Entry]:
    """What these come to, by key."""
    usage = None if tokens is None else Usage(input=tokens, cached=0, output=0)
    found = {}
    for piece in of.pieces:
        if piece.input in inputs:
            meta = Meta(piece.key, "json", "sim", "theirs", 0.0, 60.0, 0, False, True, usage=usage, form=form)
            found[piece.key] = Entry(meta, str(piece.input).encode(), (0.0,))
    return found


class Sky:
    """Calls that are under way for ever. `usd`: what one cost; None: that is not known."""

    def __init__(self) -> None:
        self.flights = Flights(on_abandon="cancel", max_entry=1000, load=roomy())

    def own(self, of: Plan, usd: str | None = "1") -> Live:
        return self._led(of, usd, "req_own")

    def another(self, of: Plan, usd: str | None = "1", *, left: bool = False) -> Live:
        """A call that was joined. `left`: whoever led it has gone, and who joined it pays."""
        leader = self._led(of, usd, "req_other").reader
        reader = leader.flight.reader(asker=an_asker(request="req_own"))
        if left:
            leader.leave()
            leader.flight.payer = reader
        return Live(of, None, reader, collapsed=True)

    def _led(self, of: Plan, usd: str | None, request: str) -> Live:
        reader = self.flights.lead(of.keys, _waits, ttl=60, asker=an_asker(request=request))
        if usd is not None:
            reader.flight.bill = Bill(of.choice.baseline, usd=D(usd))
        return Live(of, None, reader, collapsed=False)


async def _waits(_: Flight) -> None:
    await asyncio.Event().wait()


@pytest.fixture
async def sky() -> AsyncIterator[Sky]:
    found = Sky()
    yield found
    await found.flights.close()


def came_to(gathered: Gathered, usd: str | None = "0.5") -> Listed:
    """Each answer would cost so much now, and is as old as its text is long."""
    worth = None if usd is None else D(usd)
    return listed_of(gathered, lambda *_: worth, lambda entry: Freshness(len(entry.body), 60 - len(entry.body)))


def counts(listed: Listed) -> tuple[str, bool, int, int, int]:
    return listed.outcome, listed.partial, listed.known, listed.joined, listed.asked


ABC = plan("a", "bb", "ccc", "a")


def gathering(of: Plan = ABC) -> Gathered:
    return Gathered(of, an_asker())


def test_what_is_neither_known_nor_made_is_missing_once_and_in_order() -> None:
    gathered = gathering()
    assert [piece.input for piece in gathered.missing] == ["a", "bb", "ccc"]
    gathered.found = made(ABC, "bb")
    assert [piece.input for piece in gathered.missing] == ["a", "ccc"]
    gathered.made, gathered.shared = made(ABC, "a"), made(ABC, "ccc")
    assert gathered.missing == []
    assert [entry.body for entry in gathered.entries] == [b"a", b"bb", b"ccc", b"a"]


async def test_a_list_of_which_nothing_was_known_is_a_miss_and_what_stands_twice_is_known_then(sky: Sky) -> None:
    gathered = gathering()
    gathered.own = [sky.own(part(ABC, "a", "bb", "ccc"))]
    gathered.made = made(ABC, "a", "bb", "ccc")
    listed = came_to(gathered)
    assert counts(listed) == ("miss", False, 1, 0, 3)
    assert (listed.usage, listed.again) == (Usage(4, 0, 0), Usage(1, 0, 0))
    assert (listed.saved, listed.cost, listed.leader) == (D("0.5"), D(1), None)
    assert listed.freshness == Freshness(0.0, math.inf)


async def test_a_list_of_which_some_was_known_is_partial(sky: Sky) -> None:
    gathered = gathering()
    gathered.found, gathered.made = made(ABC, "a", "bb"), made(ABC, "ccc", tokens=10)
    gathered.own = [sky.own(part(ABC, "ccc"))]
    listed = came_to(gathered)
    assert counts(listed) == ("miss", True, 3, 0, 1)
    assert (listed.usage, listed.again) == (Usage(13, 0, 0), Usage(3, 0, 0))
    assert (listed.saved, listed.cost) == (D("1.5"), D(1))
    assert listed.freshness == Freshness(2, 58)  # the oldest that was known


async def test_a_list_of_which_some_was_joined_is_partial(sky: Sky) -> None:
    gathered = gathering()
    gathered.own, gathered.others = [sky.own(part(ABC, "ccc"))], [sky.another(part(ABC, "a", "bb"), "7")]
    gathered.made, gathered.shared = made(ABC, "ccc"), made(ABC, "a", "bb")
    listed = came_to(gathered)
    assert counts(listed) == ("miss", True, 0, 3, 1)
    assert (listed.saved, listed.cost, listed.leader) == (D("1.5"), D(1), None)
    gathered.made, gathered.shared = made(ABC, "a", "ccc"), made(ABC, "bb")
    assert counts(came_to(gathered)) == ("miss", True, 1, 1, 2)


async def test_a_list_that_was_all_joined_is_free_and_names_who_paid(sky: Sky) -> None:
    gathered = gathering()
    gathered.others, gathered.shared = [sky.another(ABC, "7")], made(ABC, "a", "bb", "ccc")
    listed = came_to(gathered)
    assert counts(listed) == ("collapsed", False, 0, 4, 0)
    assert (listed.saved, listed.cost, listed.leader) == (D(2), D(0), "req_other")


async def test_a_list_that_was_known_and_joined_is_partial_and_asks_nothing(sky: Sky) -> None:
    gathered = gathering()
    gathered.others, gathered.shared, gathered.found = [sky.another(ABC)], made(ABC, "a"), made(ABC, "bb", "ccc")
    assert counts(came_to(gathered)) == ("collapsed", True, 2, 2, 0)


async def test_who_joined_a_call_whose_leader_left_pays_it_and_saves_nothing(sky: Sky) -> None:
    of = plan("a", "bb")
    gathered = gathering(of)
    gathered.others, gathered.made = [sky.another(of, "7", left=True)], made(of, "a", "bb")
    listed = came_to(gathered)
    assert counts(listed) == ("collapsed", False, 0, 0, 2)
    assert (listed.again, listed.saved, listed.cost, listed.leader) == (None, None, D(7), None)


async def test_of_several_calls_that_were_joined_the_leader_is_one_that_paid(sky: Sky) -> None:
    gathered = gathering()
    gathered.others = [sky.another(part(ABC, "a"), left=True), sky.another(part(ABC, "bb", "ccc"))]
    gathered.made, gathered.shared = made(ABC, "a"), made(ABC, "bb", "ccc")
    assert (came_to(gathered).leader, came_to(gathered).cost) == ("req_other", D(1))


def test_a_list_that_was_all_known_is_a_hit_as_old_as_its_oldest_part() -> None:
    gathered = gathering()
    gathered.found = made(ABC, "a", "bb", "ccc")
    listed = came_to(gathered)
    assert counts(listed) == ("hit", True, 4, 0, 0)
    assert (listed.saved, listed.cost, listed.freshness) == (D(2), D(0), Freshness(3, 57))
    assert gathered.first is None


async def test_old_answers_in_place_of_a_failure_are_stale_unless_others_were_made(sky: Sky) -> None:
    gathered = gathering()
    gathered.own, gathered.found, gathered.is_stale = [sky.own(ABC)], made(ABC, "a", "bb", "ccc"), True
    assert gathered.outcome == "stale"
    gathered.found, gathered.made = made(ABC, "bb", "ccc"), made(ABC, "a")
    assert gathered.outcome == "miss"


async def test_what_is_not_known_of_one_part_is_not_known_of_the_whole(sky: Sky) -> None:
    gathered = gathering()
    gathered.own, gathered.others = [sky.own(part(ABC, "ccc"), None)], [sky.another(part(ABC, "a"), left=True)]
    gathered.found = made(ABC, "bb", tokens=None)
    gathered.made = made(ABC, "a", "ccc")
    listed = came_to(gathered, None)
    assert (listed.usage, listed.again, listed.saved, listed.cost) == (None, None, None, None)


async def test_what_a_call_that_was_joined_cost_is_for_who_paid_it_to_know(sky: Sky) -> None:
    gathered = gathering()
    gathered.own, gathered.others = [sky.own(part(ABC, "ccc"), "3")], [sky.another(part(ABC, "a", "bb"), None)]
    assert gathered.cost == D(3)


@pytest.mark.parametrize(("last", "model"), [("sim", "named"), ("gone", "theirs")])
def test_a_list_is_of_the_model_that_made_the_last_part_by_the_settings_name_for_it(last: str, model: str) -> None:
    gathered = gathering(plan("a", "bb"))
    gathered.found = made(gathered.plan, "a", "bb")
    meta = list(gathered.found.values())[-1].meta
    gathered.found[meta.key] = Entry(
        Meta(meta.key, "json", last, "theirs", 0.0, 60.0, 0, False, True, usage=meta.usage), b"", ()
    )
    listed = came_to(gathered)
    assert (listed.provider, listed.model, listed.upstream) == (last, model, "theirs")
    assert listed.saved == (D(1) if last == "sim" else None)  # what a model that is gone would cost nobody knows


async def test_a_list_is_of_the_model_that_was_asked_rather_than_of_what_was_known(sky: Sky) -> None:
    of = plan("a", "bb")
    gathered = gathering(of)
    gathered.own, gathered.made, gathered.found = [sky.own(of)], made(of, "a"), made(of, "bb")
    (key, known) = next(iter(gathered.found.items()))
    gathered.found[key] = Entry(Meta(key, "json", "before", "theirs", 0.0, 60.0, 0, False, True), known.body, ())
    assert came_to(gathered).provider == "sim"


async def test_an_answer_goes_out_as_it_came_only_where_one_call_asked_for_all_of_it(sky: Sky) -> None:
    of = plan("a", "bb")
    gathered = gathering(of)
    gathered.own, gathered.made = [sky.own(PLANS.reduced(of, of.pieces))], made(of, "a", "bb")
    assert gathered.is_plain
    twice = gathering()
    twice.own, twice.made = [sky.own(part(ABC, "a", "bb", "ccc"))], made(ABC, "a", "bb", "ccc")
    assert not twice.is_plain
    for known, joined in ((made(of, "bb"), {}), ({}, made(of, "bb"))):
        gathered.found, gathered.shared = known, joined
        assert [gathered.is_plain] == [False]
    anew = gathering(of)
    anew.own, anew.made = [sky.own(of), sky.own(part(of, "bb"))], made(of, "a", "bb")
    assert not anew.is_plain
    taken_over = gathering(of)
    taken_over.own, taken_over.others = [sky.own(part(of, "a"))], [sky.another(part(of, "bb"), left=True)]
    taken_over.made = made(of, "a", "bb")
    assert not taken_over.is_plain


def test_each_part_says_in_which_form_it_was_asked_for_and_whether_it_is_new() -> None:
    of = plan("a", "bb", "a", encoding_format="base64")
    gathered = gathering(of)
    gathered.found, gathered.made = made(of, "a", form="float"), made(of, "bb", form=None)
    known, fresh = Part(b"a", "float", False), Part(b"bb", "base64", True)
    assert gathered.parts == [known, fresh, known]
    other = plan("a", encoding_format="int8")
    gathered = gathering(other)
    gathered.made = made(other, "a", form=None)
    assert gathered.parts == [Part(b"a", "", True)]


async def test_whoever_goes_leaves_every_call_and_may_do_so_twice(sky: Sky) -> None:
    gathered = gathering()
    gathered.own, gathered.others = [sky.own(ABC)], [sky.another(ABC)]
    assert gathered.first is gathered.own[0]
    with pytest.raises(ZeroDivisionError), gathered:
        raise ZeroDivisionError
    assert [len(live.reader.flight.readers) for live in (*gathered.own, *gathered.others)] == [0, 1]
    gathered.leave()
