"""POST /v1/responses: a request becomes an answer, and is kept unless `store` says no."""

import secrets
import time

import msgspec

from proxy.simulator.answers import Choice, choices
from proxy.simulator.calling import Spoken
from proxy.simulator.request import Json
from proxy.simulator.responses.body import begun, ended, longer, status_of
from proxy.simulator.responses.items import Item, output
from proxy.simulator.responses.request import Responding, read
from proxy.simulator.responses.shelf import Kept, Shelf
from proxy.simulator.responses.telling import Telling
from proxy.simulator.script import Script, whole


class Responses:
    """The endpoint, to be called by `Calls`."""

    name = "responses"

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def read(self, raw: bytes, header: str) -> Responding:
        return read(raw, header, self._shelf)

    def speak(self, asked: Responding) -> Spoken:
        (choice,) = choices(asked.wish(), 1)
        if asked.behaviour.big is not None:
            choice = longer(choice, asked.behaviour.big)
        status, _ = status_of(asked, choice)
        items = output(asked, choice, whole=status != "incomplete")
        start = begun(asked, "resp_" + secrets.token_hex(24), int(time.time()))
        body = ended(start, asked, choice, [item.whole() for item in items])
        streamed = bool(asked.request.stream) and not asked.behaviour.json
        queued = bool(asked.request.background) and not streamed
        if asked.stored:
            self._shelf.put(Kept(body, asked.conversation, queued=queued))
        script = _stream(items, start, body) if streamed else _whole(choice, start, body, queued=queued)
        if status == "failed":
            # OpenAI takes nothing for an answer that failed.
            script = msgspec.structs.replace(script, failed=True, billed=False)
        return Spoken(script, asked.prompt(), 0 if queued else choice.tokens)


def _whole(choice: Choice, start: Json, body: Json, *, queued: bool) -> Script:
    encoded = msgspec.json.encode({**start, "status": "queued"} if queued else body)
    return msgspec.structs.replace(whole(encoded, choice.tokens), obeyed=("big",))


def _stream(items: tuple[Item, ...], start: Json, body: Json) -> Script:
    telling = Telling()
    telling.say("response.created", response=start)
    telling.say("response.in_progress", response=start)
    for index, item in enumerate(items):
        item.tell(telling.of_item(index, item.id))
    if body["status"] == "failed":
        telling.forget_the_end()
    telling.say(f"response.{body['status']}", response=body)
    return telling.script()
