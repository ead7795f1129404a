"""Simulated time, and the threads and processes that live in it.

A thread is a greenlet that yields wherever it would wait: in a system call, for a
lock, for something to read. All future events are in one queue, ordered by time; of two with
the same time, the one that was added first comes first. Nothing else decides which thread runs
next, so equal times reproduce a run.
"""

import asyncio
import random
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Any

from greenlet import getcurrent, greenlet


class ProcessGone(SystemExit):
    """Raised in the threads of a killed process; tasks do not catch it."""


class Kernel:
    """What all processes share: the time in seconds, and the queue of events."""

    def __init__(self, source: random.Random) -> None:
        self.now = 0.0
        self.source = source
        self.events = 0
        self.hub = getcurrent()
        self._queue: list[tuple[float, int, Callable[[], Any]]] = []
        self._order = count()

    def at(self, when: float, call: Callable[[], Any]) -> None:
        """Schedules `call` at a time, or now if that is past."""
        heappush(self._queue, (when, next(self._order), call))

    def after(self, delay_s: float, call: Callable[[], Any]) -> None:
        """Schedules `call` after a delay."""
        heappush(self._queue, (self.now + delay_s, next(self._order), call))

    def step(self) -> bool:
        """Runs the next event; False if there is none."""
        if not self._queue:
            return False
        when, _, call = heappop(self._queue)
        self.now = max(self.now, when)
        self.events += 1
        call()
        return True

    def sleep(self, delay_s: float) -> None:
        """Lets time pass for the calling thread; none if it is not a simulated thread."""
        thread = getcurrent()
        if not isinstance(thread, Thread):
            return
        if not thread.process.is_alive:
            raise ProcessGone
        when = self.now + delay_s
        queue = self._queue
        if not queue or queue[0][0] > when:
            self.now = when  # nothing else is due until then
            self.events += 1
            return
        heappush(queue, (when, next(self._order), thread.resume))
        thread.pause()


class Thread(greenlet):  # type: ignore[misc]
    """One thread of a process, which runs `call`."""

    def __init__(self, process: "Process", call: Callable[[], None]) -> None:
        super().__init__(self._run_call, process.kernel.hub)
        self.process = process
        self.loop: Any = None  # the event loop that runs in it
        self.role = ""  # its purpose
        self._call = call
        process.threads[self] = None

    def start(self, delay_s: float) -> None:
        """Starts the thread after a delay."""
        self.process.kernel.after(delay_s, self.resume)

    def pause(self) -> None:
        """Yields until it is resumed."""
        self.process.kernel.hub.switch()
        if self.loop is not None:
            asyncio._set_running_loop(self.loop)  # another thread's loop may have run meanwhile

    def resume(self) -> None:
        """Continues the thread, called from the event queue."""
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
    """Threads that end together, and the resources that the kernel reclaims from them."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.is_alive = True
        self.threads: dict[Thread, None] = {}
        self.on_end: list[Callable[[], None]] = []

    def end(self) -> None:
        """Ends the process immediately, like a kill. Must not be called by one of its threads."""
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
    """The calling simulated thread; None if the caller is not one."""
    thread = getcurrent()
    return thread if isinstance(thread, Thread) else None
