"""Detects whether a signal handler is running.

Python calls its handlers between two instructions of the main thread, whatever it is doing. A
handler that waits blocks the program that it interrupted, and the next signal interrupts it in
turn.

Source: the documentation of `signal`, "Execution of Python signal handlers".
"""

import signal
import sys
import threading
from functools import partial
from importlib import import_module
from types import CodeType, FrameType
from typing import Any

# `signal.getsignal` makes enum members of what this returns: 60 times the cost, for each drop.
_getsignal = import_module("_signal").getsignal
_SIGNALS = tuple(map(int, signal.valid_signals()))


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
