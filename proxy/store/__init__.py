"""Finished recordings: memory in front of disk, and the small files that say who owns them.

What the pipeline is given is tiered.TieredStore. In this package:

    memory.py  the hot entries, bounded in bytes
    disk.py    the tier on disk
    rows.py    diskcache, kept to bytes: nothing in a cache directory is ever executed
    tiered.py  both tiers as one
    writes.py  what is on its way to the disk
    purges.py  what was purged, across processes
    lock.py    one process owns a data directory
    secret.py  what the keys of entries are made with
    glance.py  a look from outside, that changes nothing
    files.py   small files that are replaced whole
"""
