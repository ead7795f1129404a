"""What is asked of every contender, and how its answer is timed."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from benchmarks.records import RECORD_BYTES, RECORDS_PER_BLOCK

T = TypeVar("T")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_POLL_S = 0.0005
_PATIENCE_S = 300


@dataclass(frozen=True)
class Flood:
    """So many records, as fast as they are taken, over so many connections at once."""

    clients: int
    records: int
    blocks: Sequence[bytes]

    @property
    def blocks_each(self) -> int:
        """How many blocks each client sends."""
        return max(1, self.records // RECORDS_PER_BLOCK // self.clients)

    @property
    def total(self) -> int:
        """How many records are sent in all."""
        return self.clients * self.blocks_each * RECORDS_PER_BLOCK

    def in_turn(self, pieces: Sequence[T]) -> Iterator[T]:
        """One client's part: as many of `pieces`, one for each block, as it is to send."""
        for number in range(self.blocks_each):
            yield pieces[number % len(pieces)]

    def of(self, records: int) -> "Flood":
        """The same with fewer records, for those who would take too long."""
        return Flood(self.clients, min(records, self.records), self.blocks)


class Running(Protocol):
    """A contender that has been started."""

    @property
    def pid(self) -> int:
        """Its process."""
        ...

    def take(self, flood: Flood) -> float:
        """Seconds until every record of `flood` is safe, as far as this one tells."""
        ...


class Contender(Protocol):
    """Something that stores records.

    The slow ones are given at most `records_max` at once, over at most `clients_max`
    connections.
    """

    @property
    def name(self) -> str:
        """What the report calls it."""
        ...

    @property
    def records_max(self) -> int:
        """How many records it is given at most."""
        ...

    @property
    def clients_max(self) -> int:
        """From how many clients at once, at most."""
        ...

    def running(self, root: Path, wrapper: Sequence[str] = ()) -> AbstractContextManager[Running]:
        """Starts it on an empty directory, its command behind `wrapper`."""
        ...


def timed(work: Callable[[], None], threads: int) -> float:
    """Seconds until `work` is done in so many threads at once."""
    started = [threading.Thread(target=work) for _ in range(threads)]
    began = time.perf_counter()
    for thread in started:
        thread.start()
    for thread in started:
        thread.join()
    return time.perf_counter() - began


def pour(path: Path, flood: Flood) -> None:
    """One client's part of a flood into a Unix socket that answers nothing."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(path))
        for block in flood.in_turn(flood.blocks):
            connection.sendall(block)


def send_and_wait(
    send: Callable[[bytes], object], pieces: Iterable[bytes], wait: Callable[[], None]
) -> None:
    """Sends in a thread of its own, while `wait` reads what is answered."""

    def send_all() -> None:
        for piece in pieces:
            send(piece)

    sending = threading.Thread(target=send_all)
    sending.start()
    wait()
    sending.join()


@contextmanager
def started(
    command: Sequence[str], ready: Callable[[], bool], environ: Mapping[str, str] | None = None
) -> Iterator[int]:
    """Runs `command` until the block ends; its pid, once it is `ready`."""
    process = subprocess.Popen(
        command, env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        until(ready, command[0])
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def seconds_until_in_file(path: Path, file: Path, flood: Flood) -> float:
    """Pours a flood and waits until as many bytes are in `file`; seconds."""
    before = file.stat().st_size if file.exists() else 0
    wanted = before + flood.total * RECORD_BYTES
    began = time.perf_counter()
    timed(lambda: pour(path, flood), flood.clients)
    while not file.exists() or file.stat().st_size < wanted:
        if time.perf_counter() - began > _PATIENCE_S:
            raise TimeoutError(f"{file} does not grow to {wanted} bytes")
        time.sleep(_POLL_S)
    return time.perf_counter() - began


def until(condition: Callable[[], bool], what: str) -> None:
    """Waits for `condition`."""
    deadline = time.monotonic() + 20
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited in vain for {what}")
        time.sleep(0.01)


def is_listening(path: Path) -> bool:
    """Whether somebody accepts at a Unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def cpu_s(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_S


def peak_mib(pid: int) -> float:
    """The most resident memory that a process has had, in MiB."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
