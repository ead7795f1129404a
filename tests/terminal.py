"""A program on a terminal of its own, with a person at it."""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.daemon import PATIENCE_S, eventually

_ROWS, _COLUMNS = 50, 200  # so that no row is wrapped


def _without_size(environ: Mapping[str, str]) -> dict[str, str]:
    """The terminal says how large it is; pytest's workers have variables of another one."""
    return {name: each for name, each in environ.items() if name not in ("COLUMNS", "LINES")}


class Terminal:
    """What `shown` has is what the program wrote, as a terminal gets it."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], cwd: Path) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
        self.shown = b""
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env=_without_size({"TERM": "xterm", **environ}),
            cwd=cwd,
        )
        os.close(slave)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def wait_for(self, text: bytes) -> None:
        """Reads until this was shown."""
        eventually(lambda: self._read() and text in self.shown, f"{text!r} after {self.shown!r}")

    def read_to_end(self) -> bytes:
        """Everything that the program shows until it ends."""
        eventually(lambda: not self._read(), "the end")
        self.process.wait(PATIENCE_S)
        return self.shown

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._master)

    def _read(self) -> bool:
        """Reads what is there by now. False once no program has the terminal open."""
        readable, _, _ = select.select([self._master], [], [], 0.05)
        if not readable:
            return True
        try:
            received = os.read(self._master, 65536)
        except OSError:
            return False
        self.shown += received
        return bool(received)
