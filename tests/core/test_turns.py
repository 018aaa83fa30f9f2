"""First come first served within a share, in turns between shares; nobody is passed over, nobody is lost."""

import math
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.access import UNLIMITED, Limits
from proxy.core.bucket import MINUTE, Quota
from proxy.core.stated import Accounts
from proxy.core.turns import A_CALL, OWED, SOON, Turn, Turns

NOW = 1000.0


class Desk:
    """One provider's line, with turns by name: the first letter is the share."""

    def __init__(self, limits: Limits, **models: Limits) -> None:
        self.accounts = Accounts()
        self.turns = Turns(limits, models, self.accounts)
        self.now = NOW
        self.named: dict[str, Turn] = {}
        self.went: list[str] = []

    def come(self, names: str, model: str = "", tokens: int = 1, account: str = "", upstream: str = "") -> None:
        """All of them, one after the other; nobody goes before `look`."""
        for name in names.split():
            turn = self.named[name] = self.turns.turn(name[0], model, ("acme", upstream or model, account), tokens)
            self.turns.join(turn, self.now)

    def look(self, seconds: float = 0.0) -> tuple[str, float]:
        """Who goes then, and when to look again."""
        self.now += seconds
        gone, again = self.turns.look(self.now)
        names = {turn: name for name, turn in self.named.items()}
        for turn in gone:
            turn.send(self.now)
        self.went += [names[turn] for turn in gone]
        return " ".join(names[turn] for turn in gone), again

    def leave(self, names: str) -> None:
        for name in names.split():
            self.turns.leave(self.named[name], self.now)

    def hears(self, name: str, **said: str) -> None:
        """Its answer says so of the requests that are left."""
        headers = {f"x-ratelimit-{what}-requests": value for what, value in said.items()}
        self.named[name].heed(headers, self.now, 0.0)


ONE_BY_ONE = Limits(max_concurrent=1)


def served_one_by_one(desk: Desk) -> str:
    """The order in which they go, each leaving before the next."""
    order: list[str] = []
    while name := desk.look()[0]:
        order.append(name)
        desk.leave(name)
    return " ".join(order)


def test_shares_take_turns_and_within_each_who_came_first_goes_first() -> None:
    desk = Desk(ONE_BY_ONE)
    desk.come("a1 a2 a3 a4 b1 c1 b2")
    assert served_one_by_one(desk) == "a1 b1 c1 a2 b2 a3 a4"


def test_a_share_that_comes_late_waits_one_round_however_long_the_others_lines_are() -> None:
    desk = Desk(ONE_BY_ONE)
    desk.come(" ".join(f"a{number}" for number in range(50)))
    assert desk.look()[0] == "a0"
    desk.come("b1 b2")
    desk.leave("a0")
    assert served_one_by_one(desk).startswith("a1 b1 a2 b2 a3")


def test_one_goes_at_once_only_where_nobody_waits() -> None:
    desk = Desk(Limits(tokens_per_minute=10))
    first, large, small = (desk.turns.turn("a", "", ("acme", "", ""), tokens) for tokens in (5, 8, 1))
    assert desk.turns.go(first, NOW)
    assert not desk.turns.go(large, NOW)
    desk.turns.join(large, NOW)
    assert not desk.turns.go(small, NOW)


def test_nobody_passes_who_waits_for_the_provider_however_large_it_is() -> None:
    desk = Desk(Limits(tokens_per_minute=100))
    desk.come("a1", tokens=90)
    assert desk.look() == ("a1", math.inf)
    desk.come("b1", tokens=50)
    desk.come("c1 c2 c3", tokens=1)
    assert desk.look(10) == ("", 50)
    assert desk.look(50) == ("b1 c1 c2 c3", math.inf)


def test_who_waits_for_its_model_holds_up_that_model_only() -> None:
    desk = Desk(Limits(max_concurrent=10), small=Limits(tokens_per_minute=100))
    desk.come("a1", "small", tokens=90)
    desk.look()
    desk.come("a2", "small", tokens=50)
    desk.come("a3 b1", "small", tokens=1)
    desk.come("a4 b2", "large", tokens=10**6)
    assert desk.look(1) == ("a4 b2", 59)
    assert desk.look(59)[0] == "a2 b1 a3"


def test_who_comes_to_the_front_of_its_model_is_not_passed_there_by_another_share() -> None:
    desk = Desk(UNLIMITED, small=ONE_BY_ONE)
    desk.come("a1", "small")
    desk.look()
    for number in range(5):
        desk.come(f"b{number}", "small")
        assert desk.look() == ("", math.inf)
    desk.come("a2", "small")
    desk.leave("a1")
    assert desk.look()[0] == "b0"
    desk.leave("b0")
    assert desk.look()[0] == "a2"


def test_a_model_is_held_up_under_its_other_names_too() -> None:
    desk = Desk(UNLIMITED, small=ONE_BY_ONE)
    desk.come("a1", "small")
    desk.look()
    desk.come("a2", "small")
    desk.come("b1", "other name", upstream="small")
    desk.come("b2", "large")
    assert desk.look()[0] == "b2"
    desk.leave("a1")
    assert desk.look()[0] == "a2 b1"


def test_a_large_one_is_not_kept_back_by_its_model_for_ever_as_others_pass() -> None:
    desk = Desk(Limits(tokens_per_minute=100), small=Limits(requests_per_minute=1))
    desk.come("a1", "small", tokens=1)
    desk.look()
    desk.come("a2", "small", tokens=100)
    for number in range(300):
        desk.come(f"b{number}", "large", tokens=20)
        desk.look(1)
        if not desk.named["a2"].waits:
            break
    assert desk.now <= NOW + 2 * MINUTE + 1


def test_what_a_provider_has_stated_holds_up_that_place_only() -> None:
    desk = Desk(UNLIMITED)
    desk.come("a1", "m", account="theirs")
    desk.look()
    desk.hears("a1", remaining="0", reset="20s")
    desk.come("a2", "m", account="theirs")
    desk.come("b1", "m", account="other")
    desk.come("c1", "n", account="theirs")
    assert desk.look() == ("b1 c1", 20)
    assert desk.look(20) == ("a2", math.inf)


def test_what_has_stated_its_quota_is_sent_no_more_than_that_at_once() -> None:
    desk = Desk(UNLIMITED)
    desk.come("a0", "m")
    desk.look()
    desk.hears("a0", remaining="3", limit="60", reset="57s")
    desk.come("a1 a2 a3 a4 a5", "m")
    assert desk.look() == ("a1 a2 a3", 1)
    assert desk.look(1) == ("a4", 1)


def test_whose_share_changes_goes_to_the_end_of_the_other_line() -> None:
    desk = Desk(ONE_BY_ONE)
    desk.come("x a1 b1 b2 a2")
    desk.look()
    desk.turns.move(desk.named["a1"], "b", desk.now)
    desk.turns.move(desk.named["b1"], "b", desk.now)
    desk.leave("x")
    assert served_one_by_one(desk) == "a2 b1 b2 a1"


def test_a_share_that_changes_before_or_after_the_wait_moves_nothing() -> None:
    desk = Desk(ONE_BY_ONE)
    turn = desk.turns.turn("a", "", ("acme", "", ""), 1)
    desk.turns.move(turn, "b", desk.now)
    assert desk.turns.go(turn, NOW)
    desk.turns.move(turn, "c", desk.now)
    assert (turn.share, desk.turns.waiting) == ("c", 0)


def test_what_left_without_being_sent_gives_all_back() -> None:
    desk = Desk(Limits(3, 100, 1), m=Limits(3, 100, 1))
    turn = desk.turns.turn("a", "m", ("acme", "m", ""), 80)
    assert desk.turns.go(turn, NOW)
    desk.come("b1", "m", tokens=50)
    assert desk.look()[0] == ""
    desk.turns.leave(turn, NOW)
    desk.turns.leave(turn, NOW)
    assert desk.look() == ("b1", math.inf)
    desk.leave("b1")
    assert len(desk.accounts) == 0


def test_what_was_sent_counts_on_and_is_settled_at_the_provider_and_at_the_model() -> None:
    desk = Desk(Limits(tokens_per_minute=100), m=Limits(tokens_per_minute=100))
    desk.come("a1", "m", tokens=80)
    desk.look()
    desk.leave("a1")
    desk.come("b1", "m", tokens=50)
    assert desk.look()[0] == ""
    desk.named["a1"].settle(50, desk.now)
    assert desk.look()[0] == "b1"


def test_who_joins_behind_those_who_are_held_up_need_not_be_looked_at() -> None:
    desk = Desk(Limits(max_concurrent=5), small=ONE_BY_ONE)
    turns = desk.turns

    def joins(share: str, model: str) -> bool:
        return turns.join(turns.turn(share, model, ("acme", model, ""), 1), NOW)

    assert joins("a", "small")
    turns.look(NOW)
    assert joins("a", "small")
    turns.look(NOW)
    assert not joins("b", "small")
    assert joins("b", "large")


def test_what_waits_for_its_model_is_not_passed_there_as_its_share_goes_elsewhere() -> None:
    desk = Desk(UNLIMITED, small=Limits(tokens_per_minute=100))
    desk.come("a0", "small", tokens=50)
    desk.look()
    desk.come("b0", "small", tokens=100)
    for number in range(1, 60):
        desk.come(f"b{number}", "large")
        desk.come(f"a{number}", "small", tokens=1)
        assert desk.look(1)[0] == f"b{number}"
    assert desk.look(1)[0] == "b0"


class Flood:
    """Calls of 500 tokens of as many other shares, one a second in all, at a provider of 100,000 a minute."""

    def __init__(self, shares: int) -> None:
        self.turns = Turns(Limits(tokens_per_minute=100_000), {}, Accounts())
        self.shares = shares
        self.now = 0
        self.waited: list[int] = []  # seconds, of each of them that went
        self.waiting: dict[Turn, int] = {}
        for _ in range(70):
            self.second()
        self.waited.clear()

    def ask(self, share: str, tokens: int) -> Turn:
        turn = self.turns.turn(share, "m", ("acme", "m", ""), tokens)
        self.turns.join(turn, self.now)
        return turn

    def second(self) -> list[Turn]:
        """One more passes. All who go then are under way for less than that; who has waited for a minute leaves."""
        self.now += 1
        self.waiting[self.ask(f"k{self.now % self.shares}", 500)] = self.now
        gone = self.turns.look(self.now)[0]
        for turn in gone:
            turn.send(self.now)
            if turn in self.waiting:
                self.waited.append(self.now - self.waiting.pop(turn))
                turn.settle(500, self.now)
                self.turns.leave(turn, self.now)
        for turn in [turn for turn, since in self.waiting.items() if self.now - since >= MINUTE]:
            self.turns.leave(turn, self.now)
            del self.waiting[turn]
        return gone


@pytest.mark.parametrize("patience", [30, 60, 10**6])
@pytest.mark.parametrize("used", [0, 99_000])
def test_who_asks_again_and_again_for_all_there_is_does_not_starve_the_others(used: int, patience: int) -> None:
    flood = Flood(10)
    greedy, since = flood.ask("greedy", 99_000), flood.now
    for _ in range(1200):
        if greedy in flood.second():
            greedy.settle(used, flood.now)
        elif flood.now - since < patience:
            continue
        flood.turns.leave(greedy, flood.now)
        greedy, since = flood.ask("greedy", 99_000), flood.now
    assert len(flood.waited) >= 0.8 * 1200
    assert sum(each <= 1 for each in flood.waited) >= 0.7 * 1200


def test_a_large_one_is_served_within_a_minute_however_many_small_ones_come() -> None:
    flood = Flood(10)
    large = flood.ask("large", 100_000)
    assert any(large in flood.second() for _ in range(61))


@pytest.mark.parametrize(("shares", "large"), [(1, "a"), (10, "a"), (4, "abc")])
def test_what_is_large_is_served_as_often_as_is_its_part_and_the_small_ones_are_too(shares: int, large: str) -> None:
    flood = Flood(shares)
    turns = [flood.ask(share, 99_000) for share in large]
    served: Counter[str] = Counter()
    for _ in range(3600):
        gone = flood.second()
        for turn in [turn for turn in turns if turn in gone]:
            served[turn.share] += 1
            turn.settle(0, flood.now)
            flood.turns.leave(turn, flood.now)
            turns[turns.index(turn)] = flood.ask(turn.share, 99_000)
    part = 60 / (shares + len(large))  # of the minutes, as it takes one
    assert min(served[share] for share in large) >= 0.8 * part
    assert len(flood.waited) >= 0.8 * 3600


def test_one_that_waits_for_no_more_than_the_others_owes_them_nothing() -> None:
    desk = Desk(Limits(tokens_per_minute=100))
    desk.come("x1", tokens=100)
    desk.look()
    desk.come("a1 b1", tokens=50)
    desk.come("c1", tokens=60)
    desk.look()
    assert desk.look(60)[0] == "a1 b1"
    desk.come("b2", tokens=50)
    desk.look()
    assert desk.look(60)[0] == "c1"
    assert desk.turns._owes == {("c", desk.turns.quota): pytest.approx(desk.now + 10)}


def test_a_share_owes_for_each_thing_that_was_kept_for_one_after_the_other() -> None:
    desk = Desk(Limits(tokens_per_minute=110), m=Limits(tokens_per_minute=50))
    desk.come("a0", "m", tokens=50)
    desk.look()
    desk.come("b0", "n", tokens=60)
    desk.look(30)
    desk.named["b0"].settle(110, desk.now)
    desk.come("c1", "m", tokens=50)
    desk.come("d1", "m", tokens=10)
    assert desk.look() == ("", 30)
    desk.come("e1", "n", tokens=10)
    assert desk.look(30) == ("", 30)
    assert desk.look(30)[0] == "c1 e1"
    model, _ = desk.named["c1"].lane
    owed = {("c", model): 30 * 0.8, ("c", desk.turns.quota): 30 * (0.8 + 0.8)}
    assert desk.turns._owes == pytest.approx({whose: desk.now + seconds for whose, seconds in owed.items()})


def test_who_is_passed_and_then_lacks_something_else_does_not_hold_up_its_share() -> None:
    desk = Desk(Limits(tokens_per_minute=30), m=Limits(tokens_per_minute=20))
    desk.come("x1", "n", tokens=20)
    desk.look()
    desk.come("a1", "n", tokens=20)
    desk.come("c1", "n", tokens=1)
    desk.look()
    assert desk.look(60)[0] == "a1 c1"
    desk.come("a2", "m", tokens=13)
    desk.come("b1", "m", tokens=8)
    desk.come("a3", "n", tokens=0)
    assert desk.look()[0] == "b1 a3"


def test_a_share_owes_itself_nothing_and_others_no_more_than_an_hour() -> None:
    for others, owes in (("", 0), ("".join(f" {chr(1000 + number)}" for number in range(100)), OWED)):
        desk = Desk(Limits(tokens_per_minute=1000))
        desk.come("x", tokens=1000)
        desk.look()
        desk.come("a1", tokens=1000)
        desk.come("a2" + others, "n", tokens=1)
        desk.look()
        assert desk.look(60)[0] == "a1"
        assert list(desk.turns._owes.values()) == ([desk.now + owes] if owes else [])


def test_one_that_is_passed_goes_as_soon_as_it_fits_and_before_its_shares_small_ones() -> None:
    desk = Desk(Limits(tokens_per_minute=100))
    desk.come("b0", tokens=2)
    desk.look()
    desk.come("a1", tokens=99)
    desk.come("b1", tokens=1)
    desk.look()
    assert desk.look(60)[0] == "a1 b1"
    desk.come("a2", tokens=99)
    desk.come("a3 b2", tokens=0)
    assert desk.look() == ("b2", 60)
    desk.named["a1"].settle(0, desk.now)
    assert desk.look()[0] == "a2 a3"


@pytest.mark.parametrize(
    ("model", "tokens", "limit"), [("", 101, 100), ("m", 51, 50), ("m", 101, 100), ("m", 50, None), ("", 100, None)]
)
def test_what_is_larger_than_a_whole_limit_is_told_so(model: str, tokens: int, limit: int | None) -> None:
    turns = Turns(Limits(tokens_per_minute=100), {"m": Limits(tokens_per_minute=50)}, Accounts())
    assert turns.too_large(turns.turn("a", model, ("acme", model, ""), tokens)) == limit
    assert (turns.wait(model, ("acme", model, ""), tokens, NOW) == math.inf) == (limit is not None)


def test_whether_tokens_count_is_told_of_a_provider_and_of_a_model() -> None:
    assert Turns(Limits(tokens_per_minute=9), {}, Accounts()).counts_tokens("m")
    turns = Turns(Limits(9), {"m": Limits(tokens_per_minute=9), "n": Limits(9)}, Accounts())
    assert [turns.counts_tokens(model) for model in "mno"] == [True, False, False]


def test_the_expected_wait_is_nothing_where_it_would_go_at_once() -> None:
    desk = Desk(Limits(max_concurrent=10, tokens_per_minute=100), small=ONE_BY_ONE)
    place = ("acme", "", "")
    assert desk.turns.wait("", place, 100, NOW) == 0
    desk.come("a1 a2", "small")
    desk.look()
    assert desk.turns.wait("small", place, 1, NOW) > 0
    assert desk.turns.wait("", place, 1, NOW) == 0


def test_the_expected_wait_counts_those_who_wait_already_and_what_was_stated() -> None:
    desk = Desk(Limits(requests_per_minute=1), m=Limits(max_concurrent=1))
    place = ("acme", "m", "")
    desk.come("a1", "m")
    desk.look()
    assert desk.turns.wait("m", place, 1, NOW) == MINUTE
    desk.come("a2", "m")
    desk.look()
    assert desk.turns.wait("m", place, 1, NOW) == 2 * MINUTE
    assert desk.turns.expected(desk.named["a2"], NOW) == MINUTE
    desk.hears("a1", remaining="0", reset="10m")
    assert desk.turns.wait("m", place, 1, NOW) == 10 * MINUTE


def test_the_expected_wait_for_a_place_follows_how_long_calls_last() -> None:
    desk = Desk(ONE_BY_ONE)
    place = ("acme", "", "")
    desk.come("a0")
    desk.look()
    assert desk.turns.wait("", place, 1, NOW) == A_CALL
    for number in range(60):
        desk.come(f"a{number + 1}")
        desk.now += 10
        desk.leave(f"a{number}")
        desk.look()
    assert desk.turns.wait("", place, 1, desk.now) == pytest.approx(10, rel=0.05)
    desk.leave("a60")
    desk.come("b1")
    assert desk.turns.expected(desk.named["b1"], desk.now) == SOON


LIMITS = Limits(requests_per_minute=15, tokens_per_minute=30, max_concurrent=4)
OF_M = Limits(requests_per_minute=10, tokens_per_minute=20, max_concurrent=2)

acts = st.lists(
    st.tuples(
        st.sampled_from(["come", "come", "come", "leave", "leave", "move", "settle", "hear"]),
        st.sampled_from("abc"),
        st.sampled_from("mn"),
        st.integers(0, 20),
        st.sampled_from([0, 0, 1, 10, 30, 61]),
    ),
    max_size=60,
)


class Rules:
    """The rules once more, as plainly as can be, for a provider of their own that has the same limits."""

    def __init__(self) -> None:
        self.own, self.m, self.accounts = Quota(LIMITS), Quota(OF_M), Accounts()
        self.lines: list[tuple[str, list[Turn]]] = []
        self.kept: list[tuple[Turn, dict[object, float]]] = []  # for whom; by thing, the seconds owed for it
        self.since: dict[tuple[Turn, object], float] = {}
        self.owes: dict[tuple[str, object], float] = {}

    def turn(self, share: str, model: str, tokens: int) -> Turn:
        place = ("acme", model, "")
        return Turn(share, (self.m if model == "m" else None, place), tokens, self.accounts.use(place))

    def add(self, turn: Turn, share: str) -> None:
        turn.share, turn.waits = share, True
        line = next((line for each, line in self.lines if each == share), None)
        if line is None:
            self.lines.append((share, line := []))
        line.append(turn)

    def remove(self, turn: Turn, now: float) -> None:
        """From its line; what was kept for it is owed for."""
        for each, owed in list(self.kept):
            if each is turn:
                self.count(turn, now)
                self.kept.remove((each, owed))
                for thing, seconds in owed.items():
                    if seconds:
                        self.owes[turn.share, thing] = now + min(seconds, OWED)
        lines = [(share, [each for each in line if each is not turn]) for share, line in self.lines]
        self.lines = [(share, line) for share, line in lines if line]

    def wants(self, turn: Turn) -> set[object]:
        return {each for each in (self.own, *turn.lane) if each is not None}

    def count(self, turn: Turn, now: float, *, but: object = None) -> None:
        """What is owed for what was kept for this turn for want of tokens, but for the thing that still is."""
        owed = next(owed for each, owed in self.kept if each is turn)
        for (each, thing), since in list(self.since.items()):
            if each is not turn or thing is but:
                continue
            del self.since[each, thing]
            for share, line in self.lines:
                # Of each of its lanes only the first may go.
                lanes = {other.lane: other.tokens for other in reversed(line) if thing in self.wants(other)}
                if share != turn.share and lanes:
                    owed[thing] += (now - since) * max(0, 1 - min(lanes.values()) / turn.tokens)

    def next(self, passed: set[tuple[str, object]], now: float) -> Turn | None:
        """Who goes: asks all for whom something is kept, then all in their order. `passed`: of this share, with this
        thing, nobody any more.
        """
        kept: set[object] = set()
        for turn in [each for each, _ in self.kept] + [each for _, line in self.lines for each in line]:
            if self.wants(turn) & kept or {(turn.share, thing) for thing in self.wants(turn)} & passed:
                continue
            lack = turn.lack(self.own, now)
            if lack is None:
                return turn
            owed = next((owed for each, owed in self.kept if each is turn), None)
            thing = lack.things[0]
            if self.owes.get((turn.share, thing), 0) > now:
                passed |= {(turn.share, each) for each in lack.things}
                if owed is not None:
                    self.forget(turn, now)
                continue
            kept |= set(lack.things)
            if owed is None:
                self.kept.append((turn, owed := {}))
            self.count(turn, now, but=thing)
            owed.setdefault(thing, 0)
            if lack.tokens:
                self.since.setdefault((turn, thing), now)
        return None

    def forget(self, turn: Turn, now: float) -> None:
        """It waits on where it waited, and nothing is kept for it."""
        lines = [(share, list(line)) for share, line in self.lines]
        self.remove(turn, now)
        self.lines = lines

    def look(self, now: float) -> list[Turn]:
        """In rounds: whom others passed in the last one is asked again as long as anybody went."""
        gone: list[Turn] = []
        passed: set[tuple[str, object]] = set()
        while (turn := self.next(passed, now)) is not None or passed:
            if turn is None:
                passed.clear()
                turn = self.next(passed, now)
            if turn is None:
                break
            rest = next(line for share, line in self.lines if share == turn.share)
            self.remove(turn, now)
            rest = [each for each in rest if each is not turn]
            self.lines = [each for each in self.lines if each[0] != turn.share]
            if rest:
                self.lines.append((turn.share, rest))
            turn.waits = False
            turn.go(self.own, now)
            turn.send(now)
            gone.append(turn)
        return gone


class Both:
    """A desk, and the rules beside it: whatever happens there happens here."""

    def __init__(self) -> None:
        self.desk, self.rules = Desk(LIMITS, m=OF_M), Rules()
        self.twins: dict[str, Turn] = {}

    def act(self, name: str, deed: tuple[str, str, str, int, int]) -> None:
        """Do it: to a new one, or to the one of that name."""
        what, share, model, amount, _ = deed
        now = self.desk.now
        if what == "come":
            self.desk.come(name, model, tokens=amount)
            self.twins[name] = self.rules.turn(share, model, amount)
            self.rules.add(self.twins[name], share)
            return
        turn, twin = self.desk.named[name], self.twins[name]
        if what == "leave":
            self.leave(name)
        elif what == "move" and turn.waits and turn.share != share:
            self.desk.turns.move(turn, share, now)
            self.rules.remove(twin, now)
            self.rules.add(twin, share)
        elif what == "settle":
            for each in (turn, twin):
                each.settle(amount, now)
        elif what == "hear":
            said = {"remaining": str(amount // 5), "limit": "10", "reset": "30s"}
            self.desk.hears(name, **said)
            twin.heed({f"x-ratelimit-{each}-requests": value for each, value in said.items()}, now, 0.0)

    def leave(self, name: str) -> None:
        self.desk.leave(name)
        del self.desk.named[name]
        twin = self.twins.pop(name)
        if twin.waits:
            self.rules.remove(twin, self.desk.now)
        twin.end(self.rules.accounts, self.desk.now)

    def look(self) -> None:
        """The same go, one after the other, here and there."""
        names = {twin: name for name, twin in self.twins.items()}
        went = [names[twin] for twin in self.rules.look(self.desk.now)]
        assert self.desk.look()[0].split() == went


@settings(max_examples=300, deadline=None)
@given(acts)
def test_whatever_happens_turns_follow_the_rules_and_nobody_is_lost(
    script: list[tuple[str, str, str, int, int]],
) -> None:
    both = Both()
    desk = both.desk
    for number, deed in enumerate(script):
        desk.now += deed[-1]
        names = list(desk.named)
        if deed[0] == "come":
            both.act(f"{deed[1]}{number}", deed)
        elif names:
            both.act(names[deed[3] % len(names)], deed)
        both.look()
        assert desk.turns.quota.inside <= 4
    for _ in range(400):
        for name in [name for name, turn in desk.named.items() if turn.going]:
            both.act(name, ("settle", "", "", 0, 0))
            both.leave(name)
        desk.now += 5
        both.look()
    assert not desk.named
    turns = desk.turns
    assert (turns.waiting, len(turns._lines), len(turns._lanes), len(turns._keeping)) == (0, 0, 0, 0)
    assert turns.quota.idle(desk.now + MINUTE)
    assert len(desk.accounts) <= 2
