"""Detects that the `with` statement of a context manager was left, however that happened.

An exception may come at any instruction: Ctrl-C, or a time limit that a signal handler raises. An
exception before the first instruction of `__exit__`, or after the last one of `__enter__`,
bypasses every handler in those methods.

Source: PEP 343, "Specification: The 'with' Statement".
"""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any


class ExitGuard:
    """The `__exit__` of a class: acts as a method, but is a new object for each `with`.

    The `with` statement fetches it before it calls `__enter__` and holds the only reference. So it
    is destroyed when the `with` is left, however that happens. `__enter__` finds a weak reference
    to it as `leaving`, and may make one with a callback.
    """

    def __init__(self, leave: Callable[..., Any]) -> None:
        self._leave = leave

    def __get__(self, manager: Any, owner: type | None = None) -> Callable[..., Any]:
        """Returns the exit callable; for the class itself, as `ExitStack` asks, the function."""
        if manager is None:
            return self._leave
        leaving = partial(self._leave, manager)
        manager.leaving = weakref.ref(leaving)
        return leaving
