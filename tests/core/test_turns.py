"""First come first served within a share, in turns between shares; nobody is passed over, nobody is lost."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy.core.access import UNLIMITED, Limits
from proxy.core.bucket import MINUTE
from proxy.core.stated import Accounts
from proxy.core.turns import A_CALL, SOON, Turn, Turns

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
    desk.turns.move(desk.named["a1"], "b")
    desk.turns.move(desk.named["b1"], "b")
    desk.leave("x")
    assert served_one_by_one(desk) == "a2 b1 b2 a1"


def test_a_share_that_changes_before_or_after_the_wait_moves_nothing() -> None:
    desk = Desk(ONE_BY_ONE)
    turn = desk.turns.turn("a", "", ("acme", "", ""), 1)
    desk.turns.move(turn, "b")
    assert desk.turns.go(turn, NOW)
    desk.turns.move(turn, "c")
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


LIMITS = Limits(requests_per_minute=6, tokens_per_minute=30, max_concurrent=4)
OF_M = Limits(requests_per_minute=4, tokens_per_minute=20, max_concurrent=2)

acts = st.lists(
    st.tuples(
        st.sampled_from(["come", "come", "come", "leave", "leave", "move", "settle", "hear"]),
        st.sampled_from("abc"),
        st.sampled_from("mn"),
        st.integers(0, 20),
        st.sampled_from([0, 0, 0, 1, 5, 61]),
    ),
    max_size=60,
)


class Rules:
    """The rules once more, as plainly as can be: the shares in their order, each with its line."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.lines: list[tuple[str, list[str]]] = []

    def add(self, name: str, share: str) -> None:
        for each, line in self.lines:
            if each == share:
                line.append(name)
                return
        self.lines.append((share, [name]))

    def remove(self, name: str) -> None:
        lines = [(share, [each for each in line if each != name]) for share, line in self.lines]
        self.lines = [(share, line) for share, line in lines if line]

    def first(self) -> str | None:
        """Whose turn it is: whom neither its model nor its place holds up, nor anybody before it there."""
        held_up: set[object] = set()
        for _, line in self.lines:
            for name in line:
                turn = self.desk.named[name]
                model, place = turn.lane
                if {model, place} & held_up:
                    continue
                if model is not None and not model.fits(turn.tokens, self.desk.now):
                    held_up |= {model, place}
                elif turn.stated(self.desk.now) > 0:
                    held_up.add(place)
                else:
                    return name
        return None

    def hold(self) -> None:
        """Look, and see that those go whose turn it is. What held one up when another went does so still."""
        for name in self.desk.look()[0].split():
            # Whoever went is not held up by what it took itself: so it stands for nobody when it is looked for.
            share, line = next(each for each in self.lines if name in each[1])
            before = [each for each in self.lines if each[0] != share]
            self.lines = [*self.lines[: self.lines.index((share, line))], (share, line[: line.index(name)])]
            assert self.first() is None, f"{name} passed {self.first()}"
            rest = [each for each in line if each != name]
            self.lines = [*before, (share, rest)] if rest else before
        front = self.first()
        turns, now = self.desk.turns, self.desk.now
        assert front is None or not turns.quota.fits(self.desk.named[front].tokens, now), f"{front} may go"


def act(desk: Desk, rules: Rules, name: str, deed: tuple[str, str, str, int, int]) -> None:
    """Do it: to a new one, or to the one of that name."""
    what, share, model, amount, _ = deed
    if what == "come":
        desk.come(name, model, tokens=amount)
        rules.add(name, share)
        return
    turn = desk.named[name]
    if what == "leave":
        desk.leave(name)
        rules.remove(name)
        del desk.named[name]
    elif what == "move" and turn.waits and turn.share != share:
        desk.turns.move(turn, share)
        rules.remove(name)
        rules.add(name, share)
    elif what == "settle":
        turn.settle(amount, desk.now)
    elif what == "hear":
        desk.hears(name, remaining=str(amount // 5), limit="10", reset="30s")


@settings(max_examples=300, deadline=None)
@given(acts)
def test_whatever_happens_turns_follow_the_rules_and_nobody_is_lost(
    script: list[tuple[str, str, str, int, int]],
) -> None:
    desk = Desk(LIMITS, m=OF_M)
    rules = Rules(desk)
    for number, deed in enumerate(script):
        desk.now += deed[-1]
        names = list(desk.named)
        if deed[0] == "come":
            act(desk, rules, f"{deed[1]}{number}", deed)
        elif names:
            act(desk, rules, names[deed[3] % len(names)], deed)
        rules.hold()
        assert desk.turns.quota.inside <= 4
    for _ in range(200):
        for name in [name for name, turn in desk.named.items() if turn.going]:
            desk.leave(name)
            del desk.named[name]
        desk.now += 5
        rules.hold()
    assert not desk.named
    assert (desk.turns.waiting, len(desk.turns._lines), len(desk.turns._lanes)) == (0, 0, 0)
    assert desk.turns.quota.idle(desk.now + MINUTE)
    assert len(desk.accounts) <= 2
