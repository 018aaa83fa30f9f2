"""Penstock: a caching and cost-routing proxy for OpenAI-compatible streaming APIs.

The way of a request, and where to read it:

    endpoints/   bytes in and out of Starlette (embeddings.py: lists, input by input)
    plans.py     what a request comes to: who may answer, under which key
    pipeline.py  the way of a request, top to bottom: look up, join or lead, rank, ask, keep, learn
    storing.py   what of a finished answer is kept, and under which keys: all of it, or each part of a list
    piecemeal.py the same way for a list, whose inputs are known, under way or asked for one by one
    gathered.py  such a list on its way, and what it came to
    core/        what is decided, without I/O or a clock: calls, keys, policy, events, recordings, rankings, health
    flights.py   who joins whom; owns the producers of recordings
    limiter.py   who is refused at once, and whose turn it is
    claims.py    what is set aside of a key's minute and budget before each attempt
    router.py    ranks who may answer, and learns from the answers (keeping.py: what was learned outlives the process)
    producer.py  asks one model after the other, until one has begun to answer
    recorder.py  drives a provider's answer into a recording
    upstream.py  the providers over HTTP (transport.py is the engine under httpx)
    accounts.py  what each attempt cost, told to all who reckon with it (what a token costs: pricing/)
    ledger/      every request and attempt, durable; keys that are made by command (keyring.py: those in force)
    store/       finished recordings: memory in front of disk
    meter.py     every metric, in one place (core/tally.py: the sums)           complaints.py  what the log is warned of
    watching.py  what metrics read when they are scraped                        logs.py     a line for each request
    settings.py  what may be configured (reading.py: from a file; checks.py, rights.py: no nonsense)
    purging.py   purges in force
    offers.py    the models and routes of the settings, with all that is known of them
    errors.py    what may go wrong           interfaces.py  the edges' shapes
    clock.py     what time it is             ids.py         what requests are called
    founding.py  opens the data directory, and all that outlives the process
    app.py       puts it all together        entrance.py  who answers at which path      cli.py  the commands
    prices.py    what models cost            explain.py what one request would cost     simulate/  what a log would have
    keys.py      makes and revokes keys      report.py  what the ledger says
    batch/       asks every request in a file, here or of a proxy that runs
    office.py    what administrators work with        serving.py  the processes that listen
    console/     the page at /: plain files, whose figures core/history.py keeps
    server.py    listens; wire.py (cycle.py) is HTTP as clients speak it, connection.py what the system knows of one
    simulator/   a provider that needs no network                               demo/          shows the main job
"""

__version__ = "0.1.0"
