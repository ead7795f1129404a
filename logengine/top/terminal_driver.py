"""Draws on a terminal that may be slow, or stand still: whoever leaves never waits for it."""

import contextlib
import os
import queue
from typing import Any

from textual.drivers.linux_driver import LinuxDriver

# How long a terminal may take for the last that is written to it: what makes it as it was.
_LEAVE_S_MAX = 1.0


class TerminalDriver(LinuxDriver):
    """Leaves out what a terminal does not take in time; textual would wait, and hear no key.

    `has_lost` is set then: the screen has to be drawn again.
    """

    has_lost = False

    @property
    def is_behind(self) -> bool:
        """Whether the terminal has not taken all that was drawn before."""
        return not self._waiting.empty()

    @property
    def _waiting(self) -> "queue.Queue[str | None]":
        assert self._writer_thread is not None
        waiting: queue.Queue[str | None] = self._writer_thread._queue  # noqa: SLF001 - bounded
        return waiting

    def write(self, data: str) -> None:
        """See `Driver`."""
        try:
            self._waiting.put_nowait(data)
        except queue.Full:
            self.has_lost = True

    def stop_application_mode(self) -> None:
        """See `Driver`. What was drawn and not taken is not needed any more."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._waiting.get_nowait()
        super().stop_application_mode()

    def close(self) -> None:
        """See `Driver`. Ends the process if the terminal stands still."""
        writer: Any = self._writer_thread
        if writer is None:
            return
        with contextlib.suppress(queue.Full):
            self._waiting.put_nowait(None)
        writer.join(_LEAVE_S_MAX)
        if writer.is_alive():
            # An ordinary exit would flush standard error, and so wait for the terminal.
            os._exit(self._app.return_code or 0)
