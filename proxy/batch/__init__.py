"""`penstock batch`: a file of requests, asked through the whole machinery, and a file of their results.

    requests.py  the file of requests: where its lines are, and which are none
    results.py   the file of results: what comes, and the whole in its order
    held.py      what such a file holds already, and whose that is
    client.py    who is asked: a proxy in this process, or one that runs elsewhere
    workers.py   so many at once, until all are done or somebody stops it
    screen.py    how far it is
    stopping.py  what stops it, from its first moment on
    command.py   all of it together
    foresight.py `--dry-run`: what would be asked, and what that would cost
    forecast.py  the same as a table, in words

Rule: a result is on the disk before it counts. Whatever ends a run, the next one asks nothing again that was answered.
"""
