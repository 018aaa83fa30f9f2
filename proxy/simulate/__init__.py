"""`penstock simulate`: what a log would have cost under several policies, before anything is changed.

    trace.py     the log: times, lengths and ids of prefix blocks; never a text
    options.py   the models that may answer, with what is known of them and what is supposed
    policies.py  who chooses one for each request
    seen.py      which blocks a provider has seen, and when
    world.py     the truth that no policy is told: what a call really cost
    answers.py   Penstock's own cache of answers
    run.py       one policy over the log, and its figures
    report.py    all of them over the log, and the table

Rule: a policy learns of a call what a proxy would have learned of it, and not before its answer was complete.
"""
