"""Faults and load at full size, against real processes. `make soak`; `python -m bench.soak K1 U4` tries only those.

    rows.py       the rows, in one place
    __main__.py   runs them, prints the table
    lab.py        what a row works with: a simulator, proxies in front of it, what they say of themselves
    provider.py   a provider of a row's own, in bytes
    wire.py       a client that sees HTTP as it is (each event, how it ended), and that leaves as rudely as wanted
    answers.py    what two answers have in common, and what they must not

    reaching.py   U1  providers that cannot be reached
    silent.py     U2, U3  that fall silent
    failing.py    U4, U5  that break off
    garbled.py    U6  that send what is no event
    foreign.py    U7  that answer with something else
    later.py      U8  that say "later"
    outage.py     U9  that fail for a while
    endless.py    U10  that send too much
    leaving.py    C1, C2, K7  clients that leave
    slow.py       C3, C4  that take their time
    hostile.py    C5, C7  that send too much, or two things at once
    mutated.py    C6  that send what is almost good
    storage.py    S1, S4  disks that fail
    damaged.py    S2, T8  caches and ledgers that were damaged or planted
    books.py      O5, S3, S5  the ledger beside what the provider saw
    at_once.py    K1–K4  many readers, one call
    limits.py     K5  more than a key, or a provider, allows
    budgets.py    K6  more than a key may spend
    tenants.py    T1, T2  clients that must not meet
    guarded.py    T3–T5, S6  what nobody sees without a key; clocks that jump (jumping.py is such a proxy)
    walls.py      T6, T10, T11  what no request can do
    named.py      T9  names that clients make up
    ending.py     S3, O1  proxies that end
    standing.py   O3  checks that stand
    crowded.py    O4  more than there is room for
    batches.py    BA  batches that are stopped and killed
    passing.py    PT  bodies of any size, through
    equal.py      EQ  whatever is asked, directly and through the proxy (requests.py makes it up)

    long.py       half an hour of everything at once, on its own: `make soak-long` (mixed.py is the load)

A row gives what was seen as words, and tells its lab of everything that fell short.
"""
