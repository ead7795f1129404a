"""How a context manager learns that its `with` statement was left, whatever happened.

An exception may come at any instruction: Ctrl-C, a time limit that a signal handler raises. One
that comes before the first instruction of `__exit__`, or behind the last one of `__enter__`,
passes every handler that could be written there.

Source: PEP 343, "Specification: The 'with' Statement".
"""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any


class ExitGuard:
    """The `__exit__` of a class: a method, but an object of its own for each `with`.

    The `with` statement takes it before it calls `__enter__`, and nobody else holds it. So it
    goes when the `with` is left, however. `__enter__` finds a weak reference to it as `leaving`,
    and may make one that calls back.
    """

    def __init__(self, leave: Callable[..., Any]) -> None:
        self._leave = leave

    def __get__(self, manager: Any, owner: type | None = None) -> Callable[..., Any]:
        """What is called to leave: for a class, as `ExitStack` asks, the function itself."""
        if manager is None:
            return self._leave
        leaving = partial(self._leave, manager)
        manager.leaving = weakref.ref(leaving)
        return leaving
