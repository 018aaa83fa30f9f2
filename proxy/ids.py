"""Identifiers that must be unique, not secret."""

import os
import random


class Ids:
    """Seeded once from the system: asking it for every identifier costs a system call each."""

    def __init__(self) -> None:
        self._bits = random.Random(os.urandom(32)).getrandbits  # noqa: S311 - unique is enough

    def request(self) -> bytes:
        """For `x-penstock-request-id`."""
        return b"req_%024x" % self._bits(96)

    def answer(self, prefix: bytes) -> bytes:
        """For a reader that is not the first of its recording."""
        return b"%b%024x" % (prefix, self._bits(96))
