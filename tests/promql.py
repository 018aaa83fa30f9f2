"""PromQL as far as the tests of grafana/ must read it: which metrics and labels an expression names, and where."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

TOKEN: Final = re.compile(
    r"""\s+|\#[^\n]*|(?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<number>\d[\w.]*)|(?P<word>[A-Za-z_:$][\w:$]*)"""
    r"""|(?P<sign>=~|!~|!=|==|>=|<=|[-+*/%^<>=@,(){}\[\]])"""
)
GROUPING: Final = {"by", "on"}  # others (without, ignoring, group_left) are not used here, so they are not understood
WORDS: Final = {"and", "or", "unless", "offset", "bool"}
COMPARISONS: Final = {"==", "!=", ">=", "<=", ">", "<"}
TARGET: Final = frozenset({"job", "instance"})  # labels that Prometheus adds


class Token(NamedTuple):
    kind: str
    text: str
    start: int


def tokens(expression: str) -> list[Token]:
    """Raises ValueError where it cannot be read."""
    found, at = [], 0
    while at < len(expression):
        match = TOKEN.match(expression, at)
        if match is None:
            raise ValueError(f"cannot read {expression[at : at + 20]!r}")
        if match.lastgroup is not None:
            found.append(Token(match.lastgroup, match.group(), at))
        at = match.end()
    return found


class Selector(NamedTuple):
    """`name` is "" where only labels are given. `ranged`: a range follows, as `[5m]`."""

    name: str
    labels: frozenset[str]
    ranged: bool


@dataclass
class Expression:
    """`groups`: labels that something is grouped by, and what is within; `on`: labels that two sides are matched by."""

    selectors: list[Selector] = field(default_factory=list)
    groups: list[tuple[frozenset[str], list[Selector]]] = field(default_factory=list)
    on: set[str] = field(default_factory=set)

    @property
    def grouped_by(self) -> set[str]:
        return set().union(*(labels for labels, _ in self.groups))


class _Reader:
    def __init__(self, expression: str) -> None:
        self._tokens = tokens(expression)
        self._at = 0
        self.found = Expression()

    def _peek(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._tokens[at].text if at < len(self._tokens) else ""

    def _next(self) -> Token:
        self._at += 1
        return self._tokens[self._at - 1]

    def read(self, until: str = "") -> list[Selector]:
        """Selectors up to this sign."""
        here: list[Selector] = []
        while (text := self._peek()) != until:
            if not text:
                raise ValueError(f"{until} is missing")
            token = self._next()
            if text in GROUPING and self._peek() == "(":
                here += self._grouped(text)
            elif token.kind == "word" and text not in WORDS and self._peek() not in {"(", "by"}:
                here.append(self._selector(text))
            elif text == "{":
                self._at -= 1
                here.append(self._selector(""))
            elif text == "(":
                here += self.read(until=")")
            elif text == "[":
                self._skip("]")
        if until:
            self._next()
        return here

    def _grouped(self, how: str) -> list[Selector]:
        self._next()
        labels = frozenset(token.text for token in self._until(")") if token.kind == "word")
        if how == "on":
            self.found.on |= labels
            return []
        if self._next().text != "(":
            raise ValueError("what is grouped must follow its labels")
        within = self.read(until=")")
        self.found.groups.append((labels, within))
        return within

    def _selector(self, name: str) -> Selector:
        labels: list[str] = []
        if self._peek() == "{":
            self._next()
            labels = [token.text for token in self._until("}") if token.kind == "word"]
        selector = Selector(name, frozenset(labels), self._peek() == "[")
        self.found.selectors.append(selector)
        return selector

    def _until(self, sign: str) -> Iterator[Token]:
        while (token := self._next()).text != sign:
            yield token

    def _skip(self, sign: str) -> None:
        for _ in self._until(sign):
            pass


def read(expression: str) -> Expression:
    """Raises ValueError or IndexError: it is none that is understood here."""
    reader = _Reader(expression)
    reader.read()
    return reader.found


def wrongs(expression: str, known: Mapping[str, frozenset[str]]) -> list[str]:
    """What it names that does not exist. `known`: the labels of each metric as it is exposed."""
    found = read(expression)
    everything = frozenset[str]().union(*known.values()) | TARGET
    wrong = []

    def has(selector: Selector) -> frozenset[str]:
        return known.get(selector.name, frozenset()) | TARGET if selector.name else everything

    for selector in found.selectors:
        if selector.name and selector.name not in known:
            wrong.append(f"no metric {selector.name}")
        else:
            wrong += [f"{selector.name} has no label {label}" for label in sorted(selector.labels - has(selector))]
    for labels, within in found.groups:
        there = frozenset[str]().union(*map(has, within))
        wrong += [f"nothing in it has a label {label} to group by" for label in sorted(labels - there)]
    wrong += [f"nothing has a label {label} to match on" for label in sorted(found.on - everything)]
    return wrong


def shortened(expression: str) -> str:
    """As a proxy and a Prometheus that have run for some seconds can answer it.

    Each range (an hour, or whatever Grafana would put for `$__range`) is a minute, which is all of their life; "a day
    ago" is a second ago; a variable of a dashboard is everything.
    """
    assert not re.search(r"\[[^\]]*:", expression), "a subquery would have to be shortened, too"
    short = re.sub(r"\[[^\]]+\]", "[1m]", expression)
    short = re.sub(r"\boffset \w+", "offset 1s", short)
    short = re.sub(r'"\$\w+"', '".*"', short)
    assert "$" not in short, short
    return short


def without_thresholds(expression: str) -> str:
    """Each comparison says 1 or 0 instead of letting through only what it is true of."""
    pieces, last, within = [], 0, False
    for token in tokens(expression):
        within = (within or token.text == "{") and token.text != "}"
        if token.kind == "sign" and token.text in COMPARISONS and not within:
            end = token.start + len(token.text)
            pieces.append(expression[last:end] + " bool")
            last = end
    return "".join(pieces) + expression[last:]


def without_fallbacks(expression: str) -> str:
    """Without the 0 that a panel shows where there is nothing at all."""
    bare = re.sub(r'\s+or on \(\) label_replace\(vector\(0\), "\w+", "[\w ]+", "", ""\)', "", expression)
    bare = bare.replace(" or vector(0)", "")
    assert "vector(0)" not in bare, bare
    return bare
