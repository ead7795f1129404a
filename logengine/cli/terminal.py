"""What standard output is: a terminal or not, its width, colours, and the pager on it."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import IO

_PAGER = "less"
_NOT_RUN = (126, 127)  # the shell's status for a command that it cannot run, or not find
# Ends at once if all fits on the screen, passes colours on, leaves the text on the screen.
_LESS_OPTIONS = "FRX"


def is_terminal() -> bool:
    """Returns whether standard output is a terminal."""
    return sys.stdout.isatty()


def uses_colours(choice: str, environ: Mapping[str, str], *, is_terminal: bool) -> bool:
    """Returns whether to print in colour; `choice` is `auto`, `always` or `never`.

    `auto`: not if `NO_COLOR` is set (https://no-color.org), always if `FORCE_COLOR` is set
    (https://force-color.org), never on a terminal without colours, else only on a terminal.
    """
    if choice != "auto":
        return choice == "always"
    if environ.get("NO_COLOR"):
        return False
    if (forced := environ.get("FORCE_COLOR")) is not None and forced != "":
        return forced != "0"
    return is_terminal and environ.get("TERM") != "dumb"


def width(environ: Mapping[str, str]) -> int | None:
    """Returns the columns of the terminal that standard output is; None if it is none."""
    if not is_terminal():
        return None
    given = environ.get("COLUMNS", "")
    if given.isascii() and given.isdecimal() and len(given) <= len("99999") and int(given):
        return int(given)
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except OSError:
        return None


def pager_command(environ: Mapping[str, str], *, is_terminal: bool) -> str | None:
    """Returns the shell's command of the pager; None if there should be none."""
    if not is_terminal or environ.get("TERM", "dumb") == "dumb":
        return None
    command = environ.get("PAGER")
    if command is None:
        return f"{_PAGER} -{_LESS_OPTIONS}" if shutil.which(_PAGER) else None
    return command if command.strip() not in ("", "cat") else None


class Pager:
    """A running pager: what is written to `input` appears in it."""

    def __init__(self, command: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - the user's own command
            ["/bin/sh", "-c", command],
            stdin=subprocess.PIPE,
            # For a `$PAGER` that is less, as git has it.
            env={"LESS": _LESS_OPTIONS, **os.environ},
        )
        assert self._process.stdin is not None
        self.input: IO[bytes] = self._process.stdin

    def wait(self) -> bool:
        """Ends the input, and waits until the user leaves the pager.

        Returns whether there was one: the shell may not have found it.
        """
        # ^C is for the pager, which is on the same terminal.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            with contextlib.suppress(BrokenPipeError):  # the user has left it
                self.input.close()
            return self._process.wait() not in _NOT_RUN
        finally:
            signal.signal(signal.SIGINT, before)
