"""Faults and load at full size, against real processes. `make soak`; `python -m bench.soak K1 U4` tries only those.

    __main__.py   the rows, in one place; runs them, prints the table
    lab.py        what a row works with: a simulator, proxies in front of it, what they say of themselves
    wire.py       a client that sees HTTP as it is (each event, how it ended), and that leaves as rudely as wanted
    answers.py    what two answers have in common, and what they must not

    at_once.py    K1–K4  many readers, one call
    leaving.py    K7, C1, C2  clients that leave
    failing.py    U1, U4, U5  providers that fail
    tenants.py    T1  clients that must not meet
    ending.py     S3, O1  proxies that end

A row gives what was seen as words, and tells its lab of everything that fell short.
"""
