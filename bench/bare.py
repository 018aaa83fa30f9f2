"""The yardstick of hits: a bare Starlette handler that parses the body, hashes it and answers a constant.

`python -m bench.bare BYTES` serves an answer of so many bytes on a free port.
"""

import hashlib
import json
import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def build_bare(answer: bytes) -> Starlette:
    """`answer` is sent for every request, as a stream's whole body."""

    async def chat(request: Request) -> Response:
        body = await request.body()
        json.loads(body)
        key = hashlib.sha256(body).hexdigest()
        return Response(answer, media_type="text/event-stream", headers={"x-key": key})

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


class _Announced(uvicorn.Server):
    """Plain uvicorn that says where it listens."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        port = self.servers[0].sockets[0].getsockname()[1]
        sys.stdout.write(f"bare Starlette listens on http://127.0.0.1:{port}/v1\n")
        sys.stdout.flush()


if __name__ == "__main__":
    app = build_bare(b"x" * int(sys.argv[1]))
    _Announced(uvicorn.Config(app, port=0, loop="uvloop", http="httptools", log_config=None, access_log=False)).run()
