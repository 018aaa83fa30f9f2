"""What passes through: bodies of any size, in as little memory as if they were small."""

import asyncio
import hashlib

import msgspec

from bench.soak.lab import Lab, Proxy

SMALL, LARGE = 8_000_000, 200_000_000
GROWTH = 16.0  # MB that a body may add, however large it is
PIECE = bytes(range(256)) * 256


async def bodies(lab: Lab) -> str:
    """PT."""
    lab.steps(8)
    seen = []
    with lab.proxy() as proxy:
        for size in (SMALL, LARGE):
            before = proxy.running.memory(peak=True)
            for chunked in (False, True):
                await _upload(lab, proxy, size, chunked=chunked)
            await _download(lab, proxy, size)
            grown = proxy.running.memory(peak=True) - before
            lab.expect(grown < GROWTH, f"{size // 1_000_000} MB through, memory grew by {grown:.0f} MB")
            seen.append(f"{size // 1_000_000} MB up twice and down once: memory grew by {grown:.0f} MB at most")
            lab.step()
        await lab.all_quiet(proxy)
    return "; ".join(seen)


async def _upload(lab: Lab, proxy: Proxy, size: int, *, chunked: bool) -> None:
    """The provider must have had every byte of it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    head = f"POST /v1/mirror/files HTTP/1.1\r\nHost: localhost\r\n{framing}\r\nConnection: close\r\n\r\n"
    writer.write(head.encode())
    digest = hashlib.sha256()
    for start in range(0, size, len(PIECE)):
        piece = PIECE[: size - start]
        digest.update(piece)
        writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        await writer.drain()
    writer.write(b"0\r\n\r\n" if chunked else b"")
    answer = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    # An answer without a body's length is chunked; its one piece is the line that is JSON.
    told = next((line for line in answer[2].splitlines() if line.startswith(b"{")), b"{}")
    seen = msgspec.json.decode(told)
    good = answer[0].startswith(b"HTTP/1.1 200 ") and seen.get("sha256") == digest.hexdigest()
    lab.expect(good and seen.get("length") == size, f"{size} bytes up: {answer[0][:40]!r}, {seen.get('length')} came")
    lab.step()


async def _download(lab: Lab, proxy: Proxy, size: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    request = f"GET /v1/mirror/bytes/{size} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    writer.write(request.encode())
    head = await reader.readuntil(b"\r\n\r\n")
    count = 0
    while piece := await reader.read(1 << 20):
        count += len(piece)
    writer.close()
    lab.expect(head.startswith(b"HTTP/1.1 200 ") and count == size, f"{size} bytes down: {head[:20]!r}, {count} came")
    lab.step()
