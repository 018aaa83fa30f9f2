"""What a process that died left behind: attempts that nobody ended, requests that nobody answered.

Rule: every call has its row, and what nobody knows is charged as it was reserved, and marked.
"""

from sqlalchemy import Connection, Double, cast, exists, func, insert, literal, select, update

from proxy.ledger import marks
from proxy.ledger.schema import NO_HIT, OPEN, attempts, requests

# Seconds. No request lasts as long, so only attempts so close to the last of all can lack the row of their request.
RECENT = 86_400.0


def settle(connection: Connection) -> int:
    """Settle what is open and begin anew; how many attempts were open. Within a transaction of the caller."""
    left = connection.execute(update(attempts).where(OPEN).values(ended="unknown", estimated=True)).rowcount
    if left or marks.read(connection, marks.RUNNING):
        _add_lost_requests(connection)
    marks.add(connection, marks.RUNNING)
    return left


def _add_lost_requests(connection: Connection) -> None:
    """A row for each request that has attempts and none of its own: its client got no whole answer, or nobody knows."""
    last = attempts.alias()
    newest = select(func.max(attempts.c.at)).scalar_subquery()
    later = attempts.alias()
    lost = select(
        last.c.at,
        last.c.request,
        last.c.key,
        last.c.endpoint,
        last.c.asked,
        literal("lost"),
        literal(0),
        last.c.provider,
        last.c.model,
        cast(literal(0.0), Double),
    ).where(
        last.c.at >= newest - RECENT,
        ~exists().where(later.c.request == last.c.request, later.c.number > last.c.number),
        ~exists().where(requests.c.id == last.c.request, NO_HIT),
    )
    names = ["at", "id", "key", "endpoint", "asked", "outcome", "status", "provider", "model", "total"]
    connection.execute(insert(requests).from_select(names, lost))
