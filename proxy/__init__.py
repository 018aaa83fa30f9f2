"""Penstock: a caching and cost-routing proxy for OpenAI-compatible streaming APIs.

The way of a request, and where to read it:

    endpoints/   bytes in and out of Starlette
    pipeline.py  the way of a request, top to bottom: key, look up, join or lead, rank, ask, account, keep, learn
    core/        what is decided, without I/O or a clock: calls, keys, policy, events, recordings, rankings, health
    flights.py   who joins whom; owns the producers of recordings
    router.py    ranks who may answer, and learns from the answers (keeping.py: what was learned outlives the process)
    producer.py  asks one model after the other, until one has begun to answer
    recorder.py  drives a provider's answer into a recording
    upstream.py  the providers over HTTP (transport.py is the engine under httpx)
    accounts.py  what each answer cost and saved (what a token costs: pricing/)
    store/       finished recordings: memory in front of disk
    meter.py     every metric, in one place                                     complaints.py  what the log is told
    settings.py  what may be configured (reading.py: from a file; checks.py: what makes no sense is refused)
    offers.py    the models and routes of the settings, with all that is known of them
    errors.py    what may go wrong           interfaces.py  the edges' shapes
    app.py       puts it all together        cli.py     the commands
    prices.py    what models cost            explain.py what one request would cost     simulate/  what a log would have
    server.py    listens; wire.py is HTTP as clients speak it, connection.py what the system knows of one
    simulator/   a provider that needs no network                               demo/          shows the main job
"""

__version__ = "0.1.0"
