"""Ends connections that began a hello and did not finish it in time."""

import asyncio
from typing import Protocol


class Greeter(Protocol):
    """A connection that began its hello."""

    def end_hello(self) -> bool:
        """Ends it, because its hello took too long. Returns False if it was kept from sending."""


class HelloTimeout:
    """Ends connections whose hello is unfinished for `timeout_s`. One timer serves them all."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._began_s: dict[Greeter, float] = {}  # the oldest first
        self._timer: asyncio.TimerHandle | None = None

    def begins(self, greeter: Greeter) -> None:
        """Notes that a connection began its hello, unless that is known."""
        if greeter not in self._began_s:
            self._began_s[greeter] = self._loop.time()
            self._watch()

    def ends(self, greeter: Greeter) -> None:
        """Forgets a connection that finished its hello, or has ended."""
        self._began_s.pop(greeter, None)

    def close(self) -> None:
        """Ends nobody any more."""
        self._began_s.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self) -> None:
        if self._timer is None and self._began_s:
            oldest_s = next(iter(self._began_s.values()))
            self._timer = self._loop.call_at(oldest_s + self._timeout_s, self._on_time)

    def _on_time(self) -> None:
        self._timer = None
        now_s = self._loop.time()
        while self._began_s:
            greeter, began_s = next(iter(self._began_s.items()))
            if began_s + self._timeout_s > now_s:
                break
            del self._began_s[greeter]
            if not greeter.end_hello():
                self._began_s[greeter] = now_s
        self._watch()
