"""Who sent a request.

Rule: what is true of this one request only stands here, never in a Call, which is remembered for when its bytes come
again.
"""

import msgspec

from proxy.core.access import NOBODY, Grant


class Asker(msgspec.Struct, frozen=True):
    """`request`: the id that its answer bears; `endpoint`: as metrics name it; `grant`: of the key that it showed."""

    request: str
    endpoint: str
    grant: Grant


ANYBODY = Asker("", "", NOBODY)
