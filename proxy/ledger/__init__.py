"""Every request and every attempt, written down; and the keys that are made by command.

What the proxy is given is ledger.Ledger. In this package:

    schema.py     the tables
    migrations/   how they came to be
    opening.py    the database file: made, brought up to date, or refused
    settling.py   what a process that died left behind
    ledger.py     what the proxy tells and asks
    backlog.py    what waits to be written
    writer.py     the thread that writes
    rows.py       rows as they are written
    pico.py       money as it is written
    retention.py  what is too old
    spending.py   what keys were charged
    figures.py    sums for reports (shadows.py: of shadow mode; sums.py: what both are made of)
    keys.py       keys: made, found, revoked
    entries.py    which kept answer a request was given
    marks.py      numbers by name
    absent.py     no ledger
"""

from proxy.ledger.absent import NoLedger
from proxy.ledger.ledger import Ledger

__all__ = ["Ledger", "NoLedger"]
