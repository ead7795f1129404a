"""A program on a terminal of its own, with a person at it."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.daemon import PATIENCE_S, eventually

_SEQUENCE = re.compile(
    rb"\x1b(\[[0-9;:?<>=]*[a-zA-Z~]|[()][A-Z0-9]|[=>78]|\][^\x07]*\x07|P[^\\]*\\)"
)


def environ_of_a_person(**environ: str) -> dict[str, str]:
    """The variables of these tests on a terminal with colours, whatever runs the tests."""
    inherited = {name: each for name, each in os.environ.items() if "COLOR" not in name}
    return inherited | {"TERM": "xterm-256color"} | environ


class Terminal:
    """A command with a controlling terminal. `shown` is all that it wrote, `text` what one reads.

    The terminal is read all the time, so that no command waits for it. By default it is so large
    that no row is wrapped. One that `stands_still` takes what fits into the kernel's buffer.
    """

    def __init__(
        self,
        command: Sequence[str],
        environ: Mapping[str, str],
        cwd: Path | None = None,
        *,
        rows: int = 50,
        columns: int = 200,
        stands_still: bool = False,
    ) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        # The terminal says how large it is; whatever runs the tests may have another one.
        sized = {name: each for name, each in environ.items() if name not in ("COLUMNS", "LINES")}
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
            env={"TERM": "xterm", **sized},
            cwd=cwd,
        )
        os.close(slave)
        self.shown = b""
        self._is_over = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        if not stands_still:
            self._reader.start()

    @property
    def text(self) -> str:
        """Everything that was shown so far, without what moves the cursor or sets colours."""
        return _SEQUENCE.sub(b"", self.shown).decode(errors="replace")

    def type(self, keys: str) -> int:
        """Types; returns how long `text` was before."""
        length = len(self.text)
        os.write(self._master, keys.encode())
        return length

    def wait_for_anything(self) -> None:
        """Waits until a terminal that stands still has got something."""
        eventually(lambda: select.select([self._master], [], [], 0)[0], "any output")

    def wait_for(self, expected: str | bytes, after: int = 0) -> None:
        """Waits until this is in `text`, after its first so many characters; bytes, in `shown`."""

        def shown() -> str | bytes:
            return self.shown if isinstance(expected, bytes) else self.text[after:]

        try:
            eventually(lambda: expected in shown(), repr(expected))  # type: ignore[operator]
        except AssertionError as error:
            raise AssertionError(f"{error}; it showed {shown()[-3000:]!r}") from None

    def read_to_end(self) -> bytes:
        """Everything that was shown until no program had the terminal open any more."""
        eventually(lambda: not self._reader.is_alive(), "the end")
        self.end()
        self.hang_up()
        return self.shown

    def end(self) -> int:
        """Waits until the command has ended, and returns its status."""
        return self.process.wait(PATIENCE_S)

    def hang_up(self) -> None:
        """Closes the terminal, as when its window is closed."""
        if not self._is_over.is_set():
            self._is_over.set()
            if self._reader.ident is not None:  # it was started
                self._reader.join()
            os.close(self._master)

    def close(self) -> None:
        """Ends the command and whatever is in its process group."""
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.hang_up()

    def _read(self) -> None:
        while not self._is_over.is_set():
            # A read that waits would keep the terminal open.
            if not select.select([self._master], [], [], 0.02)[0]:
                continue
            try:
                received = os.read(self._master, 65536)
            except OSError:
                return  # no program has the terminal open any more
            self.shown += received
