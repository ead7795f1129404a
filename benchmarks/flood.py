"""The load for every contender, and how to time it."""

import os
import resource
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeVar

from benchmarks.records import Sample

T = TypeVar("T")
Seen = Callable[[int], None]  # called from time to time with the number of safe records
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_POLL_S = 0.0005
_PATIENCE_S = 300


def unseen(safe: int) -> None:
    """Ignores progress."""


@dataclass(frozen=True)
class Flood:
    """A number of records, sent as fast as they are accepted over concurrent connections."""

    clients: int
    records: int
    sample: Sample

    @property
    def blocks_each(self) -> int:
        """How many blocks each client sends."""
        return max(1, self.records // self.sample.per_block // self.clients)

    @property
    def records_each(self) -> int:
        """How many records each client sends."""
        return self.blocks_each * self.sample.per_block

    @property
    def total(self) -> int:
        """How many records are sent in total."""
        return self.clients * self.records_each

    def in_turn(self, pieces: Sequence[T]) -> Iterator[T]:
        """One client's part: as many of `pieces`, one for each block, as it has to send."""
        for number in range(self.blocks_each):
            yield pieces[number % len(pieces)]

    def of(self, records: int) -> "Flood":
        """The same with fewer records, for contenders that would take too long."""
        return replace(self, records=min(records, self.records))


class Running(Protocol):
    """A running contender."""

    @property
    def pid(self) -> int:
        """Its process."""
        ...

    def take(self, flood: Flood, seen: Seen = unseen) -> float:
        """Seconds until every record of `flood` is safe, as far as this one reports it.

        With a single client, contenders that can report progress call `seen`.
        """
        ...


class Contender(Protocol):
    """Something that stores records.

    Slow ones get at most `records_max` at a time, over at most `clients_max`
    connections.
    """

    @property
    def name(self) -> str:
        """Its name in the report."""
        ...

    @property
    def records_max(self) -> int:
        """How many records it gets at most."""
        ...

    @property
    def clients_max(self) -> int:
        """From how many concurrent clients, at most."""
        ...

    def running(self, root: Path, wrapper: Sequence[str] = ()) -> AbstractContextManager[Running]:
        """Starts it on an empty directory, with `wrapper` before its command."""
        ...


@contextmanager
def at_once(work: Callable[[], None], threads: int = 1) -> Iterator[None]:
    """Runs `work` in some threads during the block, which ends when they have finished."""
    started = [threading.Thread(target=work) for _ in range(threads)]
    for thread in started:
        thread.start()
    yield
    for thread in started:
        thread.join()


def timed(work: Callable[[], None], threads: int) -> float:
    """Seconds until `work` is done in some concurrent threads."""
    began = time.perf_counter()
    with at_once(work, threads):
        pass
    return time.perf_counter() - began


def send_and_wait(
    send: Callable[[bytes], object], pieces: Iterable[bytes], wait: Callable[[], None]
) -> None:
    """Sends in a separate thread, while `wait` reads the answers."""

    def send_all() -> None:
        for piece in pieces:
            send(piece)

    with at_once(send_all):
        wait()


@contextmanager
def started(
    command: Sequence[str],
    ready: Callable[[], bool],
    environ: Mapping[str, str] | None = None,
    errors: Path = Path(os.devnull),
) -> Iterator[int]:
    """Runs `command` until the block ends; its pid, once it is `ready`."""
    with errors.open("wb") as file:
        process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL, stderr=file)
    try:
        until(ready, command[0])
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def seconds_until_in_file(path: Path, file: Path, flood: Flood, seen: Seen) -> float:
    """Sends a flood to a Unix socket; seconds until as many bytes are in `file`."""

    def pour() -> None:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(path))
            for block in flood.in_turn(flood.sample.blocks):
                connection.sendall(block)

    record_bytes = flood.sample.record_bytes
    before = size_of(file)
    began = time.perf_counter()
    with at_once(pour, flood.clients):
        while (safe := (size_of(file) - before) // record_bytes) < flood.total:
            seen(safe)
            if time.perf_counter() - began > _PATIENCE_S:
                raise TimeoutError(f"{file} holds {safe} records and not {flood.total}")
            time.sleep(_POLL_S)
    seen(safe)
    return time.perf_counter() - began


def size_of(file: Path) -> int:
    """The length of a file; 0 if there is none."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def until(
    condition: Callable[[], bool], what: str, poll_s: float = 0.01, patience_s: float = 20
) -> None:
    """Waits for `condition`."""
    deadline = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(poll_s)


def is_listening(path: Path) -> bool:
    """Whether a process accepts connections at a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def peak_mib(pid: int) -> float:
    """The peak resident memory of a process, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def allow_descriptors() -> None:
    """Raises this process's limit of open files as far as allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
