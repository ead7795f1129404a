"""A numbering process whose sends are interrupted: by signals, by collections, and by forks.

Run as `python -m tests.crash.rig.interrupted_process SOCKET SPOOL PRODUCER N PAUSE_S`.
Its own records are numbered like those of `numbering_process`. Meanwhile it logs to another
stream, and so does what interrupts it, through the same client: n, n + 1, … in each process.
Signal handlers log
there, what a collection finds, and children that are forked in the midst of it all, which end in
each of the ways that `docs/clients.md` says lose nothing. Of a child that ended as it should the
parent says so: then all of its records have to be there.
"""

import contextlib
import gc
import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import logengine
from tests.crash.rig import numbering_process

_EVERY_S = 0.003
_COLLECTIONS_EVERY = 10  # signals
_FORKS_EVERY = 40
_LOGS_EVERY = 10  # records
_CHILD_RECORDS = 5
_CHILDREN_MAX = 4
_PATIENCE_S = 300.0
_ESCAPED = 99


class Interruptions:
    """A client that is used from where it hurts."""

    def __init__(self, socket: str, name: str) -> None:
        self.client = logengine.Client("interruptions", socket=socket, close_timeout=_PATIENCE_S)
        self._name = name
        self._said = f"{socket}.{name}.children"
        self._pid = os.getpid()
        self.is_over = False
        self.collecting = 0
        self._numbers = itertools.count(1)
        self._records = itertools.count(1)
        self._signals = 0
        self._ways = itertools.cycle(WAYS)
        self._children: dict[int, tuple[str, int]] = {}  # how each is to end
        self._workers: list[tuple[Any, str, int]] = []  # those of multiprocessing

    @property
    def is_child(self) -> bool:
        return os.getpid() != self._pid

    def process(self, pid: int) -> str:
        return f"{self._name}-{pid}"

    def log(self, what: str, **fields: object) -> None:
        # A forked process counts on: what it inherits may be collected there, too.
        if not self.is_over:
            process = self.process(os.getpid())
            number = next(self._numbers)
            self.client.send({"process": process, "n": number, "what": what} | fields)

    def by_signal(self, *_: object) -> None:
        if self.is_child:
            return
        self._signals += 1
        self.log("signal")
        Collected(self)
        if self._signals % _COLLECTIONS_EVERY == 0:
            gc.collect()
        # What ends a child by an exception would be ignored in a `__del__`.
        if self._signals % _FORKS_EVERY == 0 and not self.collecting:
            self.fork()
        self.reap()

    def before_each(self) -> None:
        if self.is_child:
            os._exit(_ESCAPED)
        if next(self._records) % _LOGS_EVERY == 0:
            self.log("main")

    def fork(self) -> None:
        if len(self._children) + len(self._workers) >= _CHILDREN_MAX:
            return
        way, (end, status, is_worker) = next(self._ways)
        if is_worker:
            worker = multiprocessing.get_context("fork").Process(
                target=self.live_and_end, args=(way, end)
            )
            worker.start()
            self._workers.append((worker, way, status))
        elif pid := os.fork():
            self._children[pid] = way, status
        else:
            self.live_and_end(way, end)

    def live_and_end(self, way: str, end: Callable[["Interruptions"], None]) -> None:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        # Tracebacks that are as they should be, and what the client says.
        os.dup2(os.open(self._said, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        os.write(2, f"{os.getpid()}: {way}\n".encode())
        for number in range(_CHILD_RECORDS):
            self.log("child", way=way, is_last=number == _CHILD_RECORDS - 1)
            Collected(self)
        end(self)

    def reap(self, options: int = os.WNOHANG) -> None:
        """Says how children ended that ended."""
        for pid, (way, expected) in list(self._children.items()):
            try:
                found, status = os.waitpid(pid, options)
            except ChildProcessError:
                continue  # by the handler that interrupted this one
            if found and pid in self._children:
                del self._children[pid]
                self._say_end(pid, way, expected, os.waitstatus_to_exitcode(status))
        for each in list(self._workers):
            worker, way, expected = each
            if not options:
                worker.join()
            if (status := worker.exitcode) is not None and each in self._workers:
                self._workers.remove(each)
                self._say_end(worker.pid, way, expected, status)

    def _say_end(self, pid: int, way: str, expected: int, status: int) -> None:
        what = "ended" if status == expected else f"ended with {status} instead of {expected}"
        self.log(what, child=self.process(pid), way=way)


class Collected:
    """Logs when a collection finds it."""

    def __init__(self, interruptions: Interruptions) -> None:
        self._itself = self
        self._interruptions = interruptions

    def __del__(self) -> None:
        interruptions = self._interruptions
        interruptions.collecting += 1
        interruptions.log("collected")
        interruptions.collecting -= 1


def by_flush(interruptions: Interruptions) -> None:
    interruptions.client.flush(_PATIENCE_S)
    os._exit(0)


def by_close(interruptions: Interruptions) -> None:
    interruptions.client.close()
    os._exit(0)


def by_exec(interruptions: Interruptions) -> None:
    interruptions.client.flush(_PATIENCE_S)
    os.execv("/bin/true", ["true"])


def by_exit(_: Interruptions) -> None:
    sys.exit(3)


class Uncaught(BaseException):
    """What no `except Exception` takes that was interrupted."""


def by_error(_: Interruptions) -> None:
    raise Uncaught


def by_interrupt(_: Interruptions) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.raise_signal(signal.SIGINT)


def by_sigterm(_: Interruptions) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.raise_signal(signal.SIGTERM)


def by_return(_: Interruptions) -> None:
    pass


def by_default_sigterm(_: Interruptions) -> None:
    signal.raise_signal(signal.SIGTERM)


# How a child ends, with which status, and whether it is a worker of multiprocessing.
WAYS: tuple[tuple[str, tuple[Callable[[Interruptions], None], int, bool]], ...] = (
    ("flush and _exit", (by_flush, 0, False)),
    ("sys.exit", (by_exit, 3, False)),
    ("a worker returns", (by_return, 0, True)),
    ("close and _exit", (by_close, 0, False)),
    ("an exception", (by_error, 1, False)),
    ("a worker gets SIGTERM", (by_default_sigterm, -signal.SIGTERM, True)),
    ("flush and execv", (by_exec, 0, False)),
    ("Ctrl-C", (by_interrupt, -signal.SIGINT, False)),
    ("a SIGTERM that is taken", (by_sigterm, 143, False)),
    ("a worker calls sys.exit", (by_exit, 3, True)),
)


def main(socket: str, spool: str, producer: str, last: int, pause_s: float) -> None:
    gc.freeze()  # what is there by now makes collections slow, and nothing else
    gc.set_threshold(50)
    interruptions = Interruptions(socket, producer)
    signal.signal(signal.SIGALRM, interruptions.by_signal)
    signal.setitimer(signal.ITIMER_REAL, _EVERY_S, _EVERY_S)
    try:
        numbering_process.main(
            socket, spool, producer, last, pause_s, before_each=interruptions.before_each
        )
    finally:
        if not interruptions.is_child:  # those end as they are, and log on meanwhile
            signal.setitimer(signal.ITIMER_REAL, 0)
            interruptions.reap(options=0)
            interruptions.is_over = True
            with contextlib.suppress(logengine.ClientClosed):
                interruptions.client.close(_PATIENCE_S)


if __name__ == "__main__":
    socket_path, spool_path, name, records, pause = sys.argv[1:]
    main(socket_path, spool_path, name, int(records), float(pause))
