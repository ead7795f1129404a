"""What the daemon does with each signal; `README.md` has the table for users.

SIGHUP has the daemon read its TLS certificates again, if it has any.

Many scripts send SIGHUP, SIGUSR1 or SIGUSR2 to make a logging daemon open its files again. The
default action of all three ends a process at once. This daemon has no file to open again, so it
logs that the signal was ignored, and continues.

The kernel and a shell also send SIGHUP when a terminal closes. Then the daemon stops, and commits
what it received: a process that nobody sees any more should not keep the data directory and the
socket. Without a terminal, or under nohup, there is nothing to close.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import structlog

log = structlog.get_logger()

_STOPS = (signal.SIGTERM, signal.SIGINT)
_IGNORED = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def ignore_until_served() -> bool:
    """Ignores the signals that must not end a daemon that is still starting.

    Returns True if a SIGHUP shall stop it later, if it comes with the end of its terminal. Call
    this in the main thread.
    """
    under_nohup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    for number in _IGNORED:
        signal.signal(number, signal.SIG_IGN)
    return not under_nohup and _has_terminal()


@contextlib.contextmanager
def early_signals() -> Iterator[list[signal.Signals]]:
    """Collects the signals that the daemon acts on, until `stop_signals` handles them.

    Whoever can connect may take the daemon for started, and a certificate may be renewed after it
    was read. Call this in the main thread.
    """
    received: list[signal.Signals] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(signal.Signals(number))

    before = {number: signal.signal(number, note) for number in (*_STOPS, signal.SIGHUP)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_signals(
    *,
    stops_with_terminal: bool,
    reload: Callable[[], bool] = lambda: False,
    received: Sequence[signal.Signals] = (),
) -> asyncio.Future[signal.Signals]:
    """Handles the signals from now on. The future has the first one that stops the daemon.

    Those `received` so far are handled first. A SIGHUP that does not stop it calls `reload`, which
    returns whether there was anything to do.
    """
    loop = asyncio.get_running_loop()
    stopping: asyncio.Future[signal.Signals] = loop.create_future()

    def stop(received: signal.Signals) -> None:
        if not stopping.done():
            stopping.set_result(received)

    def ignore(received: signal.Signals) -> None:
        if received == signal.SIGHUP and stops_with_terminal and not _has_terminal():
            stop(received)
            return
        if received == signal.SIGHUP and reload():
            return
        log.warning(
            "signal_ignored",
            signal=received.name,
            reason="the daemon has no file or certificate to read again, and reads its "
            "configuration only at its start; SIGTERM stops it",
        )

    for number in _STOPS:
        loop.add_signal_handler(number, stop, number)
    for number in _IGNORED:
        loop.add_signal_handler(number, ignore, number)
    for number in received:
        (stop if number in _STOPS else ignore)(number)
    if stops_with_terminal and not _has_terminal():
        stop(signal.SIGHUP)  # it was ignored during the start
    return stopping


def _has_terminal() -> bool:
    """True if the process has a controlling terminal that is still open."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
