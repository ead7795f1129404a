"""How the clients of a process end: within one wait for all of them, and after everybody else.

Many clients that end one after the other while their daemon is away wait for it once, not each:
their threads have been looking for it all the time. What is logged after the last chance to wait,
as by a function of `atexit` that was registered before, is sent at once by whoever logs it.

A child of `multiprocessing` or billiard ends without `atexit`, by its own finalizers, or by the
SIGTERM of a `Pool`, which is taken there if nobody else did. A worker of billiard's own `Pool`, as
Celery's are, runs no finalizers either: it is ended by `os._exit`, and by SIGTERM if that takes
long.
"""

import atexit
import contextlib
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol

from logengine.client.stderr_notices import tell
from logengine.errors import LogEngineError

_TOGETHER_S = 1.0
_LEAST_S = 0.05
_LOOKS_S = 0.5  # who began to look after the others gave up may look for so long
_AFTER_OTHER_FINALIZERS = -1000
_LIBRARIES = ("multiprocessing", "billiard")

_vain: dict[str, tuple[float, float]] = {}  # by socket: since when it was waited, and until
_clients: dict[int, "Ending"] = {}
_hooked: list[int] = []
_under_way: list[float] = []
_exiting: list[int] = []  # the number of this process, once its clients were ended together


class Ending(Protocol):
    """A client, as its process sees it at the end."""

    def close_at_exit(self, began: float) -> None:
        """Ends it; it was waited for since `began`. Raises `LogEngineError` for what is lost."""


def wait_together(
    where: str,
    timeout_s: float,
    began: float | None,
    wait: Callable[[float], bool],
    looks_since: float,
) -> bool:
    """Waits for the daemon at `where`, less what others have just waited for it in vain.

    The daemon may have come since then: a client that looks for it only `looks_since` has half a
    second at least, but for the end of the process.
    """
    now = time.monotonic()
    if began is None:
        since, until = _vain.get(where, (now, now))
        began = since if now - until < _TOGETHER_S else now
    least_s = _LEAST_S if is_exiting() else max(_LEAST_S, looks_since + _LOOKS_S - now)
    is_done = wait(min(timeout_s, max(least_s, began + timeout_s - now)))
    if is_done:
        _vain.pop(where, None)
    else:
        _vain[where] = (began, time.monotonic())
    return is_done


def enter(client: Ending) -> None:
    """From now on the end of the process waits for `client`."""
    forget_all()
    _clients[id(client)] = client
    if not _hooked:
        _hooked[:] = [os.getpid()]
        _hook_child()


def leave(client: Ending) -> None:
    """It has ended by itself."""
    _clients.pop(id(client), None)


def is_exiting() -> bool:
    """Whether nobody will wait any more for what is taken from now on."""
    return _exiting == [os.getpid()]


def forget_all() -> None:
    """In a forked process: it ends only what it uses itself."""
    if _hooked == [os.getpid()]:
        return  # what is here was used in this process, perhaps by another hook of the fork
    _hooked.clear()
    _clients.clear()
    _under_way.clear()


def close_all() -> None:
    """Ends all clients of this process."""
    _exiting[:] = [os.getpid()]
    began = time.monotonic()
    _under_way.append(began)
    try:
        while _clients:
            try:
                _, client = _clients.popitem()
            except KeyError:
                return
            try:
                client.close_at_exit(began)
            except LogEngineError as error:
                tell(str(error))
    finally:
        _under_way.pop()


class _Worker:
    """What a hook of multiprocessing is registered for: that holds it weakly."""


_worker = _Worker()
_followed: list[_Worker] = []


def _follow_worker() -> None:
    """Before a fork: hooks once more where a worker begins, which drops all finalizers it finds.

    Something may have been logged before that: by another hook of the fork, or by a `__del__`.
    """
    if _followed or not any(f"{name}.process" in sys.modules for name in _LIBRARIES):
        return
    from multiprocessing import util  # billiard uses that of the other one

    _followed.append(_worker)
    util.register_after_fork(_worker, _hook_again)


def _hook_again(_: _Worker) -> None:
    if _hooked == [os.getpid()]:
        _hook_child()


def _hook_child() -> None:
    is_child = False
    for name in _LIBRARIES:
        util = sys.modules.get(f"{name}.util")
        process = sys.modules.get(f"{name}.process")
        if util is None or process is None:
            continue
        # multiprocessing hides this from billiard's children, and the other way about.
        if getattr(process.current_process(), "_parent_pid", None) not in (None, os.getpid()):
            util.Finalize(None, close_all, exitpriority=_AFTER_OTHER_FINALIZERS)
            is_child = True
    if is_child:
        _hook_billiard_worker()
    if is_child and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        with contextlib.suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, _end_by)


def _hook_billiard_worker() -> None:
    """Ends the clients of a worker of billiard's `Pool` before it asks its parent for SIGTERM."""
    worker = getattr(sys.modules.get("billiard.pool"), "Worker", None)
    end_worker = getattr(worker, "_do_exit", None)  # all ways out of a worker lead through it
    if worker is None or end_worker is None:
        return

    def close_and_end(self: Any, *arguments: Any, **options: Any) -> Any:
        on_exit = self.on_exit

        def then_close(*exit_arguments: Any) -> None:
            # It is on its way out, and `Pool.terminate` would end it before all is sent.
            with _sigterm_ignored():
                try:
                    if on_exit is not None:
                        on_exit(*exit_arguments)  # Celery's handlers of its end, which may log
                finally:
                    close_all()

        self.on_exit = then_close
        return end_worker(self, *arguments, **options)

    worker._do_exit = close_and_end  # noqa: SLF001 - of this process alone


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
    """Sends what there is, and ends by the signal as if it had not been taken."""
    if _under_way:
        return  # the process is at its end already, and this came in the midst of it
    close_all()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


atexit.register(close_all)
os.register_at_fork(before=_follow_worker)
