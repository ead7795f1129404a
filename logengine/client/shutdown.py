"""Closes the clients of a process when it exits: with one wait for all, after other exit handlers.

Clients that close one after the other while their daemon is away share one wait: their threads have
been trying to connect all the time. A record logged after that wait, for example by an `atexit`
function that was registered earlier, is sent immediately by the thread that logs it.

A child of `multiprocessing` or billiard exits without `atexit`: through its own finalizers, or by
the SIGTERM of a `Pool`, which is caught here if its action is the default. Both are arranged when
the child starts, if its parent has made a client: only the main thread can catch a signal, and a
worker's first record may come from another one. A worker of billiard's own `Pool`, which Celery
uses, does not run finalizers either: it exits through `os._exit`, and by SIGTERM if that takes
long.
"""

import atexit
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol

from logengine.client.clock import now_s
from logengine.client.stderr_notices import tell
from logengine.errors import LogEngineError

_TOGETHER_S = 1.0
_LEAST_S = 0.05
_LATE_S = 1.0  # so long records are waited for that are logged after a vain wait at exit
_LONG_AGO = float("-inf")
_LOOKS_S = 0.5  # a client made after the others gave up may try to connect for this long
_AFTER_OTHER_FINALIZERS = -1000
_LIBRARIES = ("multiprocessing", "billiard")

_vain: dict[str, tuple[float, float]] = {}  # by socket: start and end of the last vain wait
_clients: dict[int, "Ending"] = {}
_hooked: list[int] = []
_workers: list[int] = []  # the id of this process, if it is a worker
_under_way: list[float] = []
_reports: list[Callable[[], None]] = []
_exiting: list[int] = []  # the id of this process, once `close_all` was called in it


class Ending(Protocol):
    """A client that is closed at exit."""

    def close_at_exit(self, began: float) -> None:
        """Closes it; the common wait began at `began`. Raises `LogEngineError` for losses."""


def wait_together(
    where: str,
    timeout_s: float,
    began: float | None,
    wait: Callable[[float], bool],
    looks_since: float,
) -> bool:
    """Waits for the daemon at `where`, less the time that others have just waited in vain.

    The daemon may have started since then: a client that has been trying only since `looks_since`
    gets until half a second after that. At process exit, records that are logged one after the
    other get a second together.
    """
    now = now_s()
    least_s = _LEAST_S if is_exiting() else max(_LEAST_S, looks_since + _LOOKS_S - now)
    if began is None:
        since, until = _vain.get(where, (now, now))
        if is_exiting():
            began = now - (until - since)
            least_s = _LEAST_S if until - since < timeout_s + _LATE_S else 0.0
        else:
            began = since if now - until < _TOGETHER_S else now
    is_done = wait(min(timeout_s, max(least_s, began + timeout_s - now)))
    if is_done:
        _vain.pop(where, None)
    else:
        _vain[where] = (began, now_s())
    return is_done


def prepare() -> None:
    """Arranges, for a client that is being made, how this process and its workers will exit."""
    _is_used[:] = [True]
    _follow_worker()  # a process may import the program first, and become a worker after that
    _hook()


def enter(client: Ending) -> None:
    """Registers `client`, to be closed when the process exits."""
    _hook()
    _clients[id(client)] = client
    _catch_sigterm()  # a worker may have given it its default action only after it started


def _hook() -> None:
    forget_all()
    if not _hooked:
        _hooked[:] = [os.getpid()]
        _hook_child()


def leave(client: Ending) -> None:
    """Unregisters `client`, which was closed."""
    _clients.pop(id(client), None)


def is_exiting() -> bool:
    """Whether the clients were closed at exit: nothing waits for records taken from now on."""
    return _exiting == [os.getpid()]


def forget_all() -> None:
    """In a forked process, forgets the parent's clients: it closes only those it uses itself."""
    if _hooked == [os.getpid()]:
        return  # registered in this process already, perhaps by another fork hook
    _hooked.clear()
    _clients.clear()
    _under_way.clear()


def close_all() -> None:
    """Closes all clients of this process.

    An interruption, such as Ctrl-C, ends the wait for the daemon and is raised at the end.
    """
    _exiting[:] = [os.getpid()]
    began = now_s()
    _under_way.append(began)
    try:
        try:
            _close_each(began)
        except BaseException as interruption:
            for note in getattr(interruption, "__notes__", ()):
                tell(note)
            _close_each(_LONG_AGO)
            raise
    finally:
        _under_way.pop()
        for report in _reports:
            report()


def _close_each(began: float) -> None:
    while client := next(iter(list(_clients.values())), None):
        try:
            client.close_at_exit(began)
        except LogEngineError as error:
            tell(str(error))
        leave(client)


def report_after(report: Callable[[], None]) -> None:
    """Calls `report` whenever all clients were closed at exit."""
    _reports.append(report)


class _Worker:
    """The object that a hook of multiprocessing is registered with; it keeps a weak reference."""


_worker = _Worker()
_followed: list[_Worker] = []
_is_used: list[bool] = []  # not empty once a client was made, here or in the parent


def _follow_worker() -> None:
    """Arranges to hook again in a new worker, which drops all finalizers it finds.

    Another fork hook, or a `__del__`, may have logged, and so hooked, before the worker does that.
    """
    if _followed or not _is_used:
        return
    if not any(f"{name}.process" in sys.modules for name in _LIBRARIES):
        return
    from multiprocessing import util  # billiard uses the same registry

    _followed.append(_worker)
    util.register_after_fork(_worker, _hook_again)


def _hook_again(_: _Worker) -> None:
    forget_all()
    _hooked[:] = [os.getpid()]
    _hook_child()


def _hook_child() -> None:
    is_child = False
    for name in _LIBRARIES:
        util = sys.modules.get(f"{name}.util")
        process = sys.modules.get(f"{name}.process")
        if util is None or process is None:
            continue
        current = process.current_process()
        is_importing = getattr(current, "_inheriting", False)  # with `spawn`, before it is a child
        # multiprocessing hides this from billiard's children, and vice versa.
        if is_importing or getattr(current, "_parent_pid", None) not in (None, os.getpid()):
            util.Finalize(None, close_all, exitpriority=_AFTER_OTHER_FINALIZERS)
            is_child = True
    if is_child:
        _workers[:] = [os.getpid()]
        _hook_billiard_worker()
        _catch_sigterm()


def _catch_sigterm() -> None:
    """Catches SIGTERM in a worker in which it has its default action."""
    if _workers == [os.getpid()] and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, _end_by)


def _hook_billiard_worker() -> None:
    """Closes the clients of a billiard `Pool` worker before it asks its parent for SIGTERM."""
    worker = getattr(sys.modules.get("billiard.pool"), "Worker", None)
    end_worker = getattr(worker, "_do_exit", None)  # every exit of a worker calls it
    if worker is None or end_worker is None:
        return

    def close_and_end(self: Any, *arguments: Any, **options: Any) -> Any:
        on_exit = self.on_exit

        def then_close(*exit_arguments: Any) -> None:
            # The worker is exiting, and `Pool.terminate` would kill it before everything is sent.
            with _sigterm_ignored():
                try:
                    if on_exit is not None:
                        on_exit(*exit_arguments)  # Celery's exit handlers, which may log
                finally:
                    close_all()

        self.on_exit = then_close
        return end_worker(self, *arguments, **options)

    worker._do_exit = close_and_end  # noqa: SLF001 - only in this process


@contextlib.contextmanager
def _sigterm_ignored() -> Iterator[None]:
    try:
        before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGTERM, before)


def _end_by(number: int, _: FrameType | None) -> None:
    """Closes all clients, then lets the signal's default action terminate the process."""
    if _under_way:
        return  # the process is already closing its clients
    close_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


atexit.register(close_all)
os.register_at_fork(before=_follow_worker)
