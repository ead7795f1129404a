"""A numbering process whose sends are interrupted: by signals, by collections, and by forks.

Run as `python -m tests.crash.interrupted_process SOCKET SPOOL PRODUCER N PAUSE_S`. The records of
its own have numbers, as those of `numbering_process`; what interrupts them logs to another stream,
by a client of its own: n, n + 1, … in each process.
"""

import gc
import itertools
import os
import signal
import sys

import logengine
from tests.crash import numbering_process

_EVERY_S = 0.003
_FORKS_EVERY = 40


class Interruptions:
    """A client that is used from where it hurts."""

    def __init__(self, socket: str, name: str) -> None:
        self.client = logengine.Client("interruptions", socket=socket)
        self._name = name
        self.is_over = False
        self._numbers = itertools.count(1)
        self._signals = 0

    def log(self, what: str) -> None:
        # A forked process counts on: what it inherits may be collected there, too.
        process = f"{self._name}-{os.getpid()}"
        if not self.is_over:
            self.client.send({"process": process, "n": next(self._numbers), "what": what})

    def by_signal(self, *_: object) -> None:
        self._signals += 1
        self.log("signal")
        Collected(self)
        if self._signals % _FORKS_EVERY == 0 and os.fork() == 0:
            # The child's own client begins anew; what its parent took is not its to send.
            self.log("fork")
            status = 1
            try:
                self.client.flush(10)
                status = 0
            finally:
                os._exit(status)
        while True:
            try:
                if os.waitpid(-1, os.WNOHANG) == (0, 0):
                    return
            except ChildProcessError:
                return


class Collected:
    """Logs when a collection finds it."""

    def __init__(self, interruptions: Interruptions) -> None:
        self._itself = self
        self._interruptions = interruptions

    def __del__(self) -> None:
        self._interruptions.log("collected")


def main(socket: str, spool: str, producer: str, last: int, pause_s: float) -> None:
    gc.set_threshold(50)
    interruptions = Interruptions(socket, producer)
    signal.signal(signal.SIGALRM, interruptions.by_signal)
    signal.setitimer(signal.ITIMER_REAL, _EVERY_S, _EVERY_S)
    try:
        numbering_process.main(socket, spool, producer, last, pause_s)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        interruptions.is_over = True
        interruptions.client.close(60)


if __name__ == "__main__":
    socket_path, spool_path, name, records, pause = sys.argv[1:]
    main(socket_path, spool_path, name, int(records), float(pause))
