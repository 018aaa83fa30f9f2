"""All that was learned of models, prefixes and conversations: one value to look at, to teach, and to keep.

Rule: nothing here decides. What is kept holds no word of a prompt, only links (chain.py) and figures.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from pricing.cost import Usage
from pricing.multipliers import Multipliers
from pricing.tokens import Prompt
from proxy.core.breaker import Health, Snapshot
from proxy.core.call import Call
from proxy.core.chain import Counted, Links
from proxy.core.conversations import Conversations, Habits, Turn
from proxy.core.experience import Experience
from proxy.core.needs import Needs, last_made, read_needs
from proxy.core.policy import refers_to_state
from proxy.core.prefixes import LINKS, Prefixes
from proxy.core.ranking import Ask, Estimate, View
from proxy.core.routing import Choice, Option, Place
from proxy.core.stored import LASTING, Shelf, Stored

UNTRIED_TRUST: Final = 0.5  # of a prompt cache of which no more than a price is known
LIFETIME: Final = 300.0  # seconds, where a prompt cache does not say
VERSION: Final = 1


class Kept(msgspec.Struct, frozen=True):
    """What is written down. `version` changes with its meaning. `held`: which of `turns` held each link last; `made`:
    who answered each prompt, by its last link, and when. `stored`: Responses, by what stands for their names.
    """

    version: int
    multipliers: Multipliers
    experience: Experience
    habits: dict[str, Habits]
    turns: list[Turn[Place]]
    held: dict[bytes, Annotated[int, msgspec.Meta(ge=0)]]
    made: dict[bytes, tuple[Place, float]]
    prefixes: list[tuple[Place, dict[bytes, float]]]
    health: Snapshot
    stored: dict[bytes, Stored] = {}


class Asked(msgspec.Struct, frozen=True):
    """A request that is to be routed: who may answer, whose account pays, what it needs and holds.

    `upto`: its tokens up to each link, the last all of it; `base`: the same by no model's tokenizer. `made`: the link
    of the prompt that was answered by what this conversation must go on from, if by anything. `bound`: it refers to
    what one provider holds; `previous`: the name of the Response that it goes on from.
    """

    choice: Choice
    account: str
    needs: Needs
    links: Links
    upto: Sequence[Prompt]
    base: Sequence[int]
    made: bytes | None = None
    bound: bool = False
    previous: object = None

    @property
    def route(self) -> str:
        return self.choice.route or ""

    def place(self, option: Option) -> Place:
        return option.target.place(self.account)


def asked_of(choice: Choice, account: str, call: Call, links: Links, counted: Counted) -> Asked:
    """A call that is to be routed."""
    made = last_made(call.likeness.get("messages"))
    return Asked(
        choice=choice,
        account=account,
        needs=read_needs(call.likeness, call.made),
        links=links,
        upto=counted.upto,
        base=counted.base,
        # The link before an assistant's message stands for the prompt that this message answered.
        made=links[made] if made is not None and made < len(links) else None,
        bound=choice.routed and refers_to_state(call),
        previous=call.body.get("previous_response_id"),
    )


class Learned:
    """`kept_for` in seconds: how long a conversation stays with the model that made its last turn. `links`: how many
    of prompts that were sent are remembered.
    """

    def __init__(self, health: Health, *, kept_for: float, links: int = LINKS) -> None:
        self.health = health
        self._changed = False
        self._kept_for = kept_for
        self._multipliers = Multipliers()
        self._experience = Experience()
        self._prefixes: Prefixes[Place, bytes] = Prefixes(links)
        self._conversations: Conversations[Place, bytes] = Conversations(links)
        self._waiting: Counter[tuple[str, Place]] = Counter()  # calls that are under way
        self.stored = Shelf(lasting=max(kept_for, LASTING))

    def ask(self, asked: Asked, now: float) -> Ask:
        """The request, and what is known of what it follows and what will follow it."""
        habits, (before, _) = self._conversations.of(asked.route), self._before(asked, now)
        number = 1 if before is None else before.number + 1
        stored = self.stored.find(asked.previous, now)
        return Ask(
            needs=asked.needs,
            upto=asked.upto,
            pinned=self._pinned(asked, stored, now),
            holder=_holder(asked, stored),
            held=0 if stored is None else stored.tokens,
            to_come=habits.to_come(number, max(map(lifetime_of, asked.choice.options))),
            growth=habits.growth.value,
            shared=habits.shared.toward(1.0),
        )

    def _before(self, asked: Asked, now: float) -> tuple[Turn[Place] | None, float]:
        """The turn that this request follows, and the part of that one's prompt that it begins with."""
        return self._conversations.before(asked.links, asked.base, now - self._kept_for)

    def _pinned(self, asked: Asked, stored: Stored | None, now: float) -> int | None:
        """The option that made what this conversation must go on from; None: nobody, or nobody knows."""
        maker = self._conversations.maker(asked.made, now - self._kept_for) if stored is None else stored.place
        places = [asked.place(option) for option in asked.choice.options]
        return places.index(maker) if maker in places else None

    def views(self, asked: Asked, now: float) -> list[View]:
        """What is known of each option."""
        follows = self._before(asked, now)[0] is not None
        habits = self._conversations.of(asked.route)
        longest = max(habits.within(max(map(lifetime_of, asked.choice.options))), 1e-9)
        return [
            self._view(option, asked, now, follows=follows, warm=min(1.0, habits.within(lifetime_of(option)) / longest))
            for option in asked.choice.options
        ]

    def _view(self, option: Option, asked: Asked, now: float, *, follows: bool, warm: float) -> View:
        place, waiting = asked.place(option), self._waiting[asked.route, asked.place(option)]
        sure = 1.0 if option.cache is not None and option.cache.automatic is not None else UNTRIED_TRUST
        lengths = self._experience.of(asked.route)
        return View(
            state=self.health.state(place, now),
            links=self._prefixes.longest(place, asked.links, now - lifetime_of(option)),
            trust=self._experience.trusted(place, sure),
            factor=self.factor(option),
            output=lengths.hoped(place, waiting, asked.base[-1], follows=follows),
            rarely=lengths.rarely(place, asked.base[-1], follows=follows),
            first=self._experience.soon(place),
            warm=warm,
        )

    def factor(self, option: Option) -> float:
        """What was learned of its tokenizer."""
        return self._multipliers.of(option.target.provider, option.target.upstream)

    def begun(self, asked: Asked, option: Option) -> None:
        """This option is asked; `ended` says when that is over."""
        self._waiting[asked.route, asked.place(option)] += 1

    def ended(self, asked: Asked, option: Option) -> None:
        key = asked.route, asked.place(option)
        self._waiting[key] -= 1
        if not self._waiting[key]:
            del self._waiting[key]

    def answered(
        self, asked: Asked, found: Estimate, usage: Usage | None, *, first: float | None, began: float
    ) -> None:
        """This option gave a whole answer to a call that began then, `first` seconds later where it streamed."""
        place, tokens = asked.place(found.option), asked.base[-1]
        before, share = self._before(asked, began)
        if asked.links:
            number = self._conversations.came(asked.route, before, share, tokens=tokens, now=began)
            self._conversations.made(asked.links, Turn(place, began, number, tokens))
            self._conversations.given(asked.links[-1], place, began)
            self._prefixes.sent(place, asked.links, began)
        if usage is not None:
            output = usage.output / asked.needs.choices
            self._experience.of(asked.route).answered(place, tokens, output, follows=before is not None)
            self._experience.cached(place, believed=found.cached, billed=usage.cached)
            if not asked.needs.unbounded:  # else more was read than the request shows
                self._multipliers = self._multipliers.after(place[0], place[1], found.count, usage.input)
        if first is not None:
            self._experience.streamed(place, first)
        self._changed = True

    def holds(
        self, name: str, owner: str, place: Place, now: float, *, usage: Usage | None = None, entry: bytes | None = None
    ) -> None:
        """The provider there may keep a Response under this name, for other requests of this key to go on from."""
        if not name:
            return
        # What was reasoned is not gone on from.
        tokens = 0 if usage is None else usage.input + max(0, usage.output - usage.reasoning)
        self.stored.put(name, place, owner, now, tokens=tokens, entry=entry or b"")
        self._changed = True

    def given_again(self, links: Links, place: Place, now: float) -> None:
        """An answer of this place came out of the cache: its conversation stays with it all the same."""
        self._conversations.given(links[-1], place, now)
        self._changed = True

    @property
    def changed(self) -> bool:
        """Since the last snapshot."""
        return self._changed or self.health.changed

    def snapshot(self, now: float) -> bytes:
        """To be kept; `restore` takes it."""
        self._changed = self.health.changed = False
        turns, held, made = self._conversations.snapshot()
        kept = Kept(
            VERSION,
            self._multipliers,
            self._experience,
            self._conversations.habits,
            turns,
            held,
            made,
            self._prefixes.snapshot(),
            self.health.snapshot(now),
            self.stored.snapshot(),
        )
        return msgspec.msgpack.encode(kept)

    def restore(self, kept: bytes, now: float) -> None:
        """Raises ValueError: not what `snapshot` made; nothing is changed then."""
        try:
            found = msgspec.msgpack.decode(kept, type=Kept)
            if found.version != VERSION:
                raise ValueError(f"version {found.version}")
            self._conversations.restore(found.turns, found.held, found.made)
        except (msgspec.DecodeError, IndexError, RecursionError) as error:
            raise ValueError(str(error)) from None
        self._conversations.habits = found.habits
        self._multipliers, self._experience = found.multipliers, found.experience
        self._prefixes.restore(found.prefixes)
        self.health.restore(found.health, now)
        self.stored.restore(found.stored)


def _holder(asked: Asked, stored: Stored | None) -> str | None:
    """The provider that holds what this refers to, or probably does; None: it refers to nothing."""
    if not asked.bound:
        return None
    return asked.choice.baseline.target.provider if stored is None else stored.place[0]


def lifetime_of(option: Option) -> float:
    """Seconds for which a prefix stays in this provider's prompt cache."""
    known = option.cache.lifetime if option.cache is not None else None
    return LIFETIME if known is None else float(known)
