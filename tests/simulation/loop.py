"""An event loop in simulated time, and its executors.

It has only what the engine needs from a loop. Like uvloop and asyncio, it calls what is
due in the order in which it became so.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Executor, Future
from itertools import count
from typing import Any

from tests.simulation.clock import Kernel, Process, ProcessGone, Thread, current_thread

_LOOK_S = 2e-7  # what a look at the clock takes

Watched = Any  # a simulated socket, or what has one's `is_readable` and `is_writable`


class _Handle:
    __slots__ = ("args", "call", "is_cancelled", "when_s")

    def __init__(self, call: Callable[..., Any], args: tuple[Any, ...], when_s: float) -> None:
        self.call: Callable[..., Any] | None = call
        self.args = args
        self.when_s = when_s
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True
        self.call = None
        self.args = ()

    def cancelled(self) -> bool:
        return self.is_cancelled

    def when(self) -> float:
        return self.when_s


class SimulatedLoop:
    """The event loop of one process; `turn_s` is the duration of each turn."""

    def __init__(self, process: Process, turn_s: float, on_error: Callable[[Any], None]) -> None:
        self.process = process
        self.kernel: Kernel = process.kernel
        self._turn_s = turn_s
        self._timer_s = 10 * turn_s
        self._on_error = on_error
        self._ready: deque[_Handle] = deque()
        self._timers: list[tuple[float, int, _Handle]] = []
        self._order = count()
        self._readers: dict[Watched, _Handle] = {}
        self._writers: dict[Watched, _Handle] = {}
        self._signals: dict[int, tuple[Any, tuple[Any, ...]]] = {}
        self._thread: Thread | None = None
        self._is_parked = False
        self._may_be_readable = False
        self._wake_is_due = False
        self._is_closed = False
        self._default = SimulatedExecutor(process, 8)
        self._as_loop: Any = self

    def time(self) -> float:
        # Time passes between two looks within one callback too.
        self.kernel.now += _LOOK_S
        return self.kernel.now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return self._thread is not None

    def is_closed(self) -> bool:
        return self._is_closed

    def call_soon(self, call: Any, *args: Any, context: Any = None) -> Any:
        handle = _Handle(call, args, 0.0)
        self._ready.append(handle)
        if self._is_parked:
            self.wake()
        return handle

    def call_soon_threadsafe(self, call: Any, *args: Any, context: Any = None) -> Any:
        return self.call_soon(call, *args)

    def call_later(self, delay: float, call: Any, *args: Any, context: Any = None) -> Any:
        # As uvloop does, which rounds to milliseconds: it may call a little too early.
        rounded_s = round(delay / self._timer_s) * self._timer_s
        return self.call_at(self.kernel.now + rounded_s, call, *args)

    def call_at(self, when: float, call: Any, *args: Any, context: Any = None) -> Any:
        handle = _Handle(call, args, when)
        heapq.heappush(self._timers, (when, next(self._order), handle))
        if self._is_parked:
            self.wake()
        return handle

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self._as_loop)

    def create_task(
        self, coro: Coroutine[Any, Any, Any], *, name: Any = None, context: Any = None
    ) -> "asyncio.Task[Any]":
        return asyncio.Task(coro, loop=self._as_loop, name=name or "task")

    def run_in_executor(self, executor: Any, call: Any, *args: Any) -> "asyncio.Future[Any]":
        if not self.process.is_alive:
            raise ProcessGone
        future = self.create_future()

        def done(result: Any, error: BaseException | None) -> None:
            self.call_soon(_settle, future, result, error)

        (executor or self._default).run(lambda: call(*args), done)
        return future

    def add_reader(self, watched: Any, call: Any, *args: Any) -> None:
        self.remove_reader(watched)
        self._readers[watched] = _Handle(call, args, 0.0)
        self.look()

    def remove_reader(self, watched: Any) -> bool:
        return _removed(self._readers, watched)

    def add_writer(self, watched: Any, call: Any, *args: Any) -> None:
        self.remove_writer(watched)
        self._writers[watched] = _Handle(call, args, 0.0)
        self.wake()

    def remove_writer(self, watched: Any) -> bool:
        return _removed(self._writers, watched)

    def add_signal_handler(self, sig: int, call: Any, *args: Any) -> None:
        self._signals[sig] = (call, args)

    def signal(self, number: int) -> None:
        """Delivers a signal."""
        if number in self._signals:
            call, args = self._signals[number]
            self.call_soon(call, *args)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._on_error(context)

    def look(self) -> None:
        """Makes it check its sockets again: one may be readable or writable."""
        self._may_be_readable = True
        self.wake()

    def wake(self) -> None:
        """Wakes a parked loop to check what is due."""
        if self._is_parked and not self._wake_is_due:
            self._wake_is_due = True
            self.kernel.after(self._turn_s, self._unpark)

    def run_until_complete(self, work: Any) -> Any:
        """Runs in the calling thread until `work` is done; returns its result."""
        thread = current_thread()
        assert thread is not None
        self._thread = thread
        thread.loop = self._as_loop
        asyncio._set_running_loop(self._as_loop)
        try:
            task = self.create_task(work)
            while not task.done():
                self._turn()
            return task.result()
        finally:
            asyncio._set_running_loop(None)
            thread.loop = None
            self._thread = None
            self._is_closed = True

    def _turn(self) -> None:
        ready = self._ready
        timers = self._timers
        now = self.kernel.now
        if self._may_be_readable or self._writers:
            self._look_at_sockets()
        while timers and timers[0][0] <= now:
            handle = heapq.heappop(timers)[2]
            if not handle.is_cancelled:
                ready.append(handle)
        if not ready:
            self._park()
            return
        thread = self._thread
        assert thread is not None
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle.call is not None:
                try:
                    handle.call(*handle.args)
                except Exception as error:  # noqa: BLE001 - as any loop does
                    self._on_error({"message": "a callback raised", "exception": error})
                if not thread.process.is_alive:
                    raise ProcessGone  # a group of tasks caught it, to end its other tasks
        self.kernel.sleep(self._turn_s)

    def _look_at_sockets(self) -> None:
        self._may_be_readable = False
        for watched, handle in self._readers.items():
            if watched.is_readable:
                self._may_be_readable = True
                self._ready.append(handle)
        for watched, handle in self._writers.items():
            if watched.is_writable:
                self._ready.append(handle)

    def _park(self) -> None:
        timers = self._timers
        while timers and timers[0][2].is_cancelled:
            heapq.heappop(timers)
        if timers:
            self.kernel.at(timers[0][0], self._unpark)
        self._is_parked = True
        assert self._thread is not None
        self._thread.pause()

    def _unpark(self) -> None:
        self._wake_is_due = False
        if self._is_parked and self.process.is_alive:
            self._is_parked = False
            assert self._thread is not None
            self._thread.resume()


def _removed(handles: dict[Watched, _Handle], watched: Watched) -> bool:
    handle = handles.pop(watched, None)
    if handle is not None:
        handle.cancel()  # even if it is already due
    return handle is not None


def _settle(future: "asyncio.Future[Any]", result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


class SimulatedExecutor(Executor):
    """Runs calls in a limited number of threads; further calls wait in order."""

    def __init__(self, process: Process, threads: int, role: str = "default") -> None:
        self._process = process
        self._role = role
        self._free = threads
        self._jobs: deque[tuple[Callable[[], Any], Callable[[Any, BaseException | None], None]]] = (
            deque()
        )

    def run(
        self, call: Callable[[], Any], done: Callable[[Any, BaseException | None], None]
    ) -> None:
        """Runs `call` in a thread, and then calls `done` there with its outcome."""
        self._jobs.append((call, done))
        if self._free:
            self._free -= 1
            kernel = self._process.kernel
            thread = Thread(self._process, self._work)
            thread.role = self._role
            thread.start(kernel.source.random() * 2e-5)

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        future: Future[Any] = Future()

        def done(result: Any, error: BaseException | None) -> None:
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        self.run(lambda: call(*args, **kwargs), done)
        return future

    def map(
        self,
        call: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
    ) -> Iterator[Any]:
        """Like `Executor.map`, in the calling thread's time."""
        futures = [self.submit(call, *args) for args in zip(*iterables, strict=False)]
        for future in futures:
            while not future.done():
                self._process.kernel.sleep(1e-4)
            yield future.result()

    def _work(self) -> None:
        while self._jobs:
            call, done = self._jobs.popleft()
            try:
                result = call()
            except ProcessGone:
                raise
            except BaseException as error:  # noqa: BLE001 - as any executor does
                done(None, error)
            else:
                done(result, None)
        self._free += 1
