"""Where the application's signals are handled, and whether that is happening now.

Python calls its handlers between two instructions of the main thread, whatever it is doing. A
handler that waits blocks the program that it interrupted, and the next signal interrupts it in
turn.

The kernel gives a signal for the process to any thread that does not block it. A program that
blocks signals in its threads, to wait for them with `sigwait`, would be killed by one that the
client's thread gets.

Source: the documentation of `signal`, "Execution of Python signal handlers".
"""

import signal
import sys
import threading
from _thread import start_new_thread
from functools import partial
from importlib import import_module
from types import BuiltinFunctionType, CodeType, FrameType
from typing import Any

# `signal.getsignal` makes enum members of what this returns: 60 times the cost, for each drop.
_getsignal = import_module("_signal").getsignal
_SIGNALS = tuple(map(int, signal.valid_signals()))
# The kernel sends these to the thread that caused them.
_FAULTS = {signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV, signal.SIGSYS}
# gevent and eventlet replace it: their threads all run in one of the application's.
_STARTS_THREADS = (
    isinstance(start_new_thread, BuiltinFunctionType) and start_new_thread.__module__ == "_thread"
)


def leave_signals_to_others() -> None:
    """Blocks all signals in the calling thread, which the client has just started."""
    if _STARTS_THREADS:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals() - _FAULTS)


def is_in_signal_handler() -> bool:
    """Returns whether a handler set by `signal.signal` is anywhere in the caller's stack."""
    if threading.current_thread() is not threading.main_thread():
        return False
    found = [_getsignal(number) for number in _SIGNALS]
    handlers = {_code_of(each) for each in found if callable(each)} - {None}
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - documented, for CPython
    while handlers and frame is not None:
        if frame.f_code in handlers:
            return True
        frame = frame.f_back
    return False


def _code_of(handler: Any) -> CodeType | None:
    """Returns the code of a Python handler; None for one in C, such as the default for SIGINT."""
    while isinstance(handler, partial):
        handler = handler.func
    for found in (handler, getattr(handler, "__func__", None), type(handler).__call__):
        code = getattr(found, "__code__", None)
        if isinstance(code, CodeType):
            return code
    return None
