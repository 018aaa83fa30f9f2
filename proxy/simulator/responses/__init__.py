"""/v1/responses: a conversation's next answer, as items, and the answers that are kept.

endpoint.py      a request becomes an answer, which is kept unless `store` says no
request.py       the request, checked; what it continues
conversation.py  its items, made alike; what of them an answer depends on
items.py         answer → items: reasoning, a web search, a message, calls; each whole, and as its events
body.py          the Response around them, with what was asked echoed as OpenAI echoes it
telling.py       the events of a stream, numbered
shelf.py         what is kept: by id, bounded
kept.py          GET, DELETE, cancel, input_items
"""

from proxy.simulator.responses.endpoint import Responses
from proxy.simulator.responses.kept import KeptResponses
from proxy.simulator.responses.shelf import Shelf

__all__ = ["KeptResponses", "Responses", "Shelf"]
