"""/v1/chat/completions."""

import secrets
import time

from proxy.simulator.calling import Spoken
from proxy.simulator.chat_request import Chat, read
from proxy.simulator.render import Stamp, answer, completion, stream


class ChatCompletions:
    """The endpoint, to be called by `Calls`."""

    name = "chat"

    def read(self, raw: bytes, header: str) -> Chat:
        return read(raw, header)

    def speak(self, asked: Chat) -> Spoken:
        said = answer(asked)
        stamp = Stamp("chatcmpl-" + secrets.token_hex(15)[:29], int(time.time()))
        streamed = bool(asked.request.stream) and not asked.behaviour.json
        script = stream(said, asked, stamp) if streamed else completion(said, asked, stamp)
        return Spoken(script, said.prompt, said.longest)
