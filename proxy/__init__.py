"""Penstock: a caching proxy for OpenAI-compatible streaming APIs.

The way of a request, and where to read it:

    endpoints/   bytes in and out of Starlette
    pipeline.py  the way of a request, top to bottom: key, look up, join or lead, fetch, keep
    core/        what is decided, without I/O or a clock: calls, keys, policy, events, recordings
    flights.py   who joins whom; owns the producers of recordings
    recorder.py  drives a provider's answer into a recording
    upstream.py  the providers over HTTP (transport.py is the engine under httpx)
    store/       finished recordings: memory in front of disk
    meter.py     every metric, in one place                                     complaints.py  what the log is told
    settings.py  what may be configured (reading.py: from a file)
    errors.py    what may go wrong           interfaces.py  the edges' shapes
    app.py       puts it all together        cli.py     the commands (prices.py: what models cost)
    server.py    listens; wire.py is HTTP as clients speak it, connection.py what the system knows of one
    simulator/   a provider that needs no network                               demo/          shows the main job
"""

__version__ = "0.1.0"
