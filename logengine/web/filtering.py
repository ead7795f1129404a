"""Filters with regular expressions, evaluated in processes of their own.

A regular expression may take exponential time, and nothing else runs in its process meanwhile. So
each one runs where the kernel ends it: a process that filters sets a timer before it starts.
"""

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import IO

import msgspec

from logengine.errors import InvalidFilter, LogEngineError
from logengine.reading.filter import Filter, Grep, Where

# How long a process may compute for the lines of one block. This is the time of a processor: a
# busy machine does not count.
COMPUTING_S_MAX = 3.0
_IDLE_MAX = 4

_Ranges = list[tuple[int, int]]


class Asked(msgspec.Struct, frozen=True):
    """The filter that a process is to use for the lines that follow, of so many `bytes`."""

    where: tuple[str, ...]
    text: str | None
    bytes: int = 0

    def filter(self) -> Filter:
        """The filter. Raises `InvalidFilter`."""
        return Filter(*self.conditions())

    def conditions(self) -> tuple[list[Grep], list[Where]]:
        """What the filter consists of. Raises `InvalidFilter`."""
        greps = []
        if self.text is not None:
            text = self.text.encode("utf-8", "surrogateescape")
            greps.append(Grep(text, fixed=True, ignore_case=True))
        return greps, [Where(*self.where)] if self.where else []


class FilterProcesses:
    """Processes that filter, started as they are needed. Any thread may use them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[subprocess.Popen[bytes]] = []
        self._is_closed = False

    def filter(self, where: Sequence[str], text: str | None) -> Filter:
        """The filter for these expressions and this text. Raises `InvalidFilter`."""
        asked = Asked(tuple(where), text)
        # A regular expression has an operator with a tilde; nothing else takes long.
        return _Elsewhere(asked, self) if any("~" in each for each in where) else asked.filter()

    def ranges(self, asked: Asked, body: bytes) -> _Ranges:
        """See `Filter.ranges`. Raises `InvalidFilter` if it takes too long."""
        process = self._take()
        assert process.stdin is not None
        assert process.stdout is not None
        header = msgspec.structs.replace(asked, bytes=len(body))
        try:
            process.stdin.write(msgspec.json.encode(header) + b"\n" + body)
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = b""
        except BaseException:
            _end(process)
            raise
        if not answer.endswith(b"\n"):
            raise _failure(_end(process))
        self._give_back(process)
        return msgspec.json.decode(answer, type=_Ranges)

    def close(self) -> None:
        """Ends the processes; those in use end with their work."""
        with self._lock:
            idle, self._idle, self._is_closed = self._idle, [], True
        for process in idle:
            _end(process)

    def _take(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "logengine.web.filtering"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            process_group=0,  # ^C is for the server, whose end ends this
        )

    def _give_back(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            if not self._is_closed and len(self._idle) < _IDLE_MAX:
                self._idle.append(process)
                return
        _end(process)


class _Elsewhere(Filter):
    """A filter that another process evaluates."""

    def __init__(self, asked: Asked, processes: FilterProcesses) -> None:
        super().__init__(*asked.conditions())
        self._asked = asked
        self._processes = processes

    def ranges(self, body: bytes) -> Iterator[tuple[int, int]]:
        """See `Filter.ranges`."""
        return iter(self._processes.ranges(self._asked, body))


def answer_all(requests: IO[bytes], answers: IO[bytes]) -> None:
    """Filters what is requested until there is no more: the life of a process that filters."""
    asked, chosen = None, Filter()
    while header := requests.readline():
        request = msgspec.json.decode(header, type=Asked)
        body = requests.read(request.bytes)
        if (request.where, request.text) != asked:
            asked, chosen = (request.where, request.text), request.filter()
        signal.setitimer(signal.ITIMER_PROF, COMPUTING_S_MAX)  # SIGPROF ends the process
        ranges = list(chosen.ranges(body))
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(msgspec.json.encode(ranges) + b"\n")
        answers.flush()


def _end(process: subprocess.Popen[bytes]) -> int:
    """Ends a process, and returns its status."""
    process.kill()
    with contextlib.suppress(BrokenPipeError), process:  # closes its pipes, and waits
        pass
    return process.wait()


def _failure(status: int) -> LogEngineError:
    if status == -signal.SIGPROF:
        return InvalidFilter(
            f"this takes more than {COMPUTING_S_MAX:g} s for a few records: a regular expression "
            "in it takes exponential time, as (a+)+$ does; make it simpler"
        )
    return LogEngineError(f"a process that filters ended with status {status}; try again")


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the server was killed
        answer_all(sys.stdin.buffer, sys.stdout.buffer)
