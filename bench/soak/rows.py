"""The rows, in one place. Their names are those of the project's list of what it must survive."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bench.soak import (
    at_once,
    batches,
    books,
    budgets,
    crowded,
    damaged,
    ending,
    endless,
    equal,
    failing,
    foreign,
    garbled,
    guarded,
    hostile,
    later,
    leaving,
    limits,
    mutated,
    named,
    outage,
    passing,
    reaching,
    silent,
    slow,
    standing,
    storage,
    tenants,
    walls,
)
from bench.soak.lab import Lab


@dataclass(frozen=True, slots=True)
class Row:
    """What is tried, in the reader's words; `run` gives what was seen."""

    name: str
    tried: str
    run: Callable[[Lab], Awaitable[str]]


ROWS = (
    Row(
        "U1", "closed port, unknown host, back between two tries, bad certificates: 40 calls each", reaching.unreachable
    ),
    Row("U2", "50 at once, streamed and JSON: nothing, a head, a part, then silence", silent.slow_to_begin),
    Row("U3", "stall after each event, a byte each 0.4 s, comments only, 16 s of silence", silent.silent_within),
    Row("U4", "the provider resets at each event, 20 rounds, and at each byte; streamed and JSON", failing.reset),
    Row("U5", "the provider ends early at each event, streamed and JSON; 20 rounds", failing.cut),
    Row("U6", "odd and garbled streams, each in 500 random splits, bytewise and whole", garbled.malformed),
    Row("U7", "pages, redirects, other media, JSON to a stream; 40 calls each", foreign.another_thing),
    Row("U8", "429 with 12 kinds of Retry-After and rate headers, with and without another model", later.told_to_wait),
    Row("U9", "a provider that fails for a minute, with and without another model; then it heals", outage.minute),
    Row("U10", "gzip unasked, endless streams and JSON, events too large", endless.endless),
    Row("C1", "a client leaves a stream at each chunk, silent and flowing", leaving.streams),
    Row("C2", "a client leaves a JSON call", leaving.completions),
    Row("C3", "100 readers at 1 KB/s and 20 others on one answer, and the 20 alone", slow.slow_readers),
    Row("C4", "1,000 half-open sockets and 100 slow readers beside hits and misses", slow.half_open),
    Row("C5", "bodies too large, announced and not, and encoded ones; 100 times each", hostile.too_large),
    Row("C6", "100,000 mutated bodies over 32 kept connections", mutated.mutated),
    Row("C7", "ambiguous, too many, unlisted headers, a provider's own key; 100 times each", hostile.two_things),
    Row("S1", "a cache on a full disk, 200 answers, and room again", storage.full_disk),
    Row("S1", "a ledger on a full disk, 600 requests with and without a budget, and room again", storage.full_ledger),
    Row("S2", "50 damages to a cache of 100 entries, a restart after each", damaged.corrupt),
    Row("S2", "24 damages to a ledger, each repaired as it is told", damaged.corrupt_ledger),
    Row("S3", "kill -9 under load, 20 times on one data directory", ending.killed),
    Row("S3", "the same, and what the ledger says of each call", books.survived),
    Row("S4", "directories that may not be written, without root's rights; 200 answers each", storage.read_only),
    Row("S5", "the proxy and three commands that make and revoke keys, 1,500 writes each", books.shared),
    Row("S6", "the clock jumps a day forth and back, under a budget, hits and a stream", guarded.jumped),
    Row("K1", "500 identical at once, streamed, and half streamed half JSON; 10 rounds each", at_once.identical),
    Row("K2", "the first client leaves at each chunk", at_once.left_by_the_first),
    Row("K3", "a stream and a JSON call join at every chunk of 50; 20 rounds", at_once.late),
    Row("K4", "50 share an answer that can't be stored, 10 more come later; 10 rounds", at_once.unstorable),
    Row(
        "K5",
        "1,000 at once against 100 a minute, three times; 90 of three keys at a full provider; cancels in its line",
        limits.by_the_minute,
    ),
    Row(
        "K6",
        "200 at once on a budget for 50; the same under each fault, with clients that leave, kill -9",
        budgets.never_over,
    ),
    Row("K7", "20,000 cancels at random moments, 100 at a time", leaving.cancels),
    Row("T1", "20 keys ask the same 20 questions at once, and 20 strangers after them", tenants.keys_apart),
    Row("T2", "250 + 250 refusals: another's answer or nobody's, a key almost right or not at all", tenants.timing),
    Row("T3", "20 keys made and revoked while they are used; six kinds of refusal", guarded.revoked),
    Row("T4", "secrets of five kinds in 432 calls, most of which fail: logs, metrics, errors, ledger", guarded.untold),
    Row("T5", "every path and method without a key, and with wrong ones; an empty admin key", guarded.asked_for_a_key),
    Row("T6", "other addresses in members, headers, models, targets, environment", walls.nowhere_else),
    Row("T8", "pickles wherever a cache might load them; what the locks pin", damaged.planted),
    Row("T9", "10,000 models, samples and calls that nobody has heard of", named.junk),
    Row("T10", "each answer sets cookies, over a host name", walls.no_cookies),
    Row("T11", "foreign Origins and Hosts, bodies that are not JSON; 20 times each", walls.web_pages),
    Row("O1", "SIGTERM with 50 open streams, 5 rounds; once with a drain too short for them", ending.drained),
    Row("O3", "1,000 checks each: silent, dead, frozen provider, no data directory", standing.checks),
    Row("O4", "500 streams, readers, large bodies and answers with room for fewer", crowded.overloaded),
    Row(
        "O5", "5,000 requests of all kinds by five keys, SIGTERM; the ledger beside the provider's list", books.balanced
    ),
    Row("BA", "batches of 5,000 lines, stopped once and killed once: in one process, over HTTP", batches.interrupted),
    Row("PT", "8 MB and 200 MB passed through, up in one piece and in chunks, and down", passing.bodies),
    Row("EQ", "2,000 random requests, good, refused and passed through: direct, cold, warm", equal.equal),
)
