"""The whole daemon in one process, on simulated time, sockets, threads and disk, from one seed.

After FoundationDB's simulation (Zhou et al., "FoundationDB: A Distributed Unbundled
Transactional Key Value Store", SIGMOD 2021) and TigerBeetle's VOPR: the real daemon runs, from
`opened_store` to the end of `serve`, and everything around it is drawn from a seed.

    scenario    one run as a value: limits, senders, faults, events
    clock       time, threads and processes
    loop        the event loop and the executors
    disk        names and bytes, and which of them survive a power cut
    calls       system calls: their duration and outcome
    sockets     connections, and the epoll that watches them
    senders     the clients
    world       one run: the daemon's lives, and the events that hit them
    oracle      checks the promises after every event
    coverage    counts the states in which faults occurred
    search      runs many scenarios
    shrink      finds the smallest scenario that still fails

`search(seconds, seed)` returns the first broken promise that it finds, if any. It searches the
engine as it is in this process, patched or not.
"""

from tests.simulation.oracle import Violation
from tests.simulation.search import search

__all__ = ["Violation", "search"]
