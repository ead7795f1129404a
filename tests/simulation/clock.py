"""Simulated time, and the threads and processes that live in it.

A thread is a greenlet that gives up its turn wherever it would wait: in a system call, for a
lock, for something to read. Whatever is to happen stands in one queue by its time, and is
done in that order; of two at the same time the one that was put there first. Nothing else
decides who goes on, so a run is the same again whenever its times are.
"""

import asyncio
import random
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any

from greenlet import getcurrent, greenlet


class ProcessGone(SystemExit):
    """Raised in the threads of a process that was killed; a task does not keep this one."""


class Kernel:
    """What all processes share: the time in seconds, and what happens when."""

    def __init__(self, source: random.Random) -> None:
        self.now = 0.0
        self.source = source
        self.events = 0
        self.hub = getcurrent()
        self._queue: list[tuple[float, int, Callable[[], Any]]] = []
        self._order = count()

    def at(self, when: float, call: Callable[[], Any]) -> None:
        """Has `call` made at a time, or now if that is past."""
        heappush(self._queue, (when, next(self._order), call))

    def after(self, delay_s: float, call: Callable[[], Any]) -> None:
        """Has `call` made so much later."""
        heappush(self._queue, (self.now + delay_s, next(self._order), call))

    def step(self) -> bool:
        """Does what is next; False if there is nothing."""
        if not self._queue:
            return False
        when, _, call = heappop(self._queue)
        self.now = max(self.now, when)
        self.events += 1
        call()
        return True

    def sleep(self, delay_s: float) -> None:
        """Lets time pass for the thread that calls; no time for whoever is no thread."""
        thread = getcurrent()
        if not isinstance(thread, Thread):
            return
        if not thread.process.is_alive:
            raise ProcessGone
        when = self.now + delay_s
        queue = self._queue
        if not queue or queue[0][0] > when:
            self.now = when  # nobody else has anything to do until then
            self.events += 1
            return
        heappush(queue, (when, next(self._order), thread.resume))
        thread.pause()


class Thread(greenlet):  # type: ignore[misc]
    """One thread of a process; `call` is what it does."""

    def __init__(self, process: "Process", call: Callable[[], None]) -> None:
        super().__init__(self._run_call, process.kernel.hub)
        self.process = process
        self.loop: Any = None  # the event loop that runs in it
        self.role = ""  # what it is there for
        self._call = call
        process.threads[self] = None

    def start(self, delay_s: float) -> None:
        """Has it begin so much later."""
        self.process.kernel.after(delay_s, self.resume)

    def pause(self) -> None:
        """Gives up the turn until somebody resumes it."""
        self.process.kernel.hub.switch()
        if self.loop is not None:
            asyncio._set_running_loop(self.loop)  # another one's may have run meanwhile

    def resume(self) -> None:
        """Goes on, from the queue of what happens."""
        if not self.dead and self.process.is_alive:
            self.switch()

    def _run_call(self) -> None:
        try:
            self._call()
        except ProcessGone:
            pass
        finally:
            self.process.threads.pop(self, None)


class Process:
    """Some threads that end together, and whatever else the kernel takes back from them."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.is_alive = True
        self.threads: dict[Thread, None] = {}
        self.on_end: list[Callable[[], None]] = []

    def end(self) -> None:
        """Ends it there and then, as a kill does. Not to be called by one of its threads."""
        if not self.is_alive:
            return
        self.is_alive = False
        for thread in list(self.threads):
            if thread:
                thread.throw(ProcessGone)
        self.threads.clear()
        for call in self.on_end:
            call()


def current_thread() -> Thread | None:
    """The simulated thread that calls; None for whoever is none."""
    thread = getcurrent()
    return thread if isinstance(thread, Thread) else None
