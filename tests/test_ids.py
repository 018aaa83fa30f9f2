"""Identifiers are unique, of one shape, and cost no system call each."""

import os
import re
from functools import partial

import pytest

from proxy.ids import Ids


def test_identifiers_have_the_shape_that_clients_know() -> None:
    ids = Ids()
    for _ in range(100):
        assert re.fullmatch(rb"req_[0-9a-f]{24}", ids.request())
        assert re.fullmatch(rb"chatcmpl-[0-9a-f]{24}", ids.answer(b"chatcmpl-"))


def test_no_two_are_alike_within_a_process_or_between_two() -> None:
    made = [each() for ids in (Ids(), Ids()) for each in [ids.request] * 2000 + [partial(ids.answer, b"cmpl-")] * 2000]
    assert len({one.partition(b"_")[2] or one.partition(b"-")[2] for one in made}) == len(made)


def test_only_the_seed_asks_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = Ids()
    monkeypatch.delattr(os, "urandom")
    assert ids.request() != ids.answer(b"req_")
