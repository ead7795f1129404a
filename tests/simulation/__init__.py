"""The whole daemon in one process, on simulated time, sockets, threads and disk, from one seed.

After FoundationDB's simulation (Zhou et al., "FoundationDB: A Distributed Unbundled
Transactional Key Value Store", SIGMOD 2021) and TigerBeetle's VOPR: the real daemon runs, from
`opened_store` to the end of `serve`, and everything it meets is drawn from a seed.

    scenario    one run as a value: limits, senders, faults, events
    clock       time, threads and processes
    loop        the event loop and the executors
    disk        names and bytes, and what of them a power cut leaves
    calls       system calls: how long they take, how they end
    sockets     connections, and the epoll that watches them
    senders     who sends
    world       one run: the daemon's lives, and what befalls them
    oracle      the promises, held to after every event
    coverage    which states a fault has met
    search      many runs
    shrink      the smallest scenario that still fails

`search(seconds, seed)` gives the first promise that it finds broken, if any: what it searches is
the engine as it is in this process, patched or not.
"""

from tests.simulation.oracle import Violation
from tests.simulation.search import search

__all__ = ["Violation", "search"]
