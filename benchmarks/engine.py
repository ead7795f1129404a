"""The daemon under load, and what it is held to: a bare loop, a server that only reads."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.flood import Flood, Running, is_listening, pour, send_and_wait, started, timed
from benchmarks.records import RECORDS_PER_BLOCK


class Client:
    """One producer that reads its acks."""

    def __init__(self, path: Path, stream: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self._answers = self.socket.makefile("rb")
        self.socket.sendall(b'{"_hello":1,"stream":"%s"}\n' % stream.encode())
        self._answers.readline()

    def wait_for_ack(self, number: int) -> None:
        while json.loads(self._answers.readline())["ack"] < number:
            pass

    def close(self) -> None:
        self._answers.close()
        self.socket.close()


@dataclass
class RunningEngine:
    """A daemon that has been started; `path` is its socket."""

    pid: int
    path: Path

    def take(self, flood: Flood) -> float:
        """Seconds until every record is acknowledged."""

        def work() -> None:
            client = Client(self.path, "flood")

            send_and_wait(
                client.socket.sendall,
                flood.in_turn(flood.blocks),
                lambda: client.wait_for_ack(flood.blocks_each * RECORDS_PER_BLOCK),
            )
            client.close()

        return timed(work, flood.clients)


@dataclass(frozen=True)
class Engine:
    """The daemon as it is installed. Every record is counted at its ack."""

    name: str = "logengine"
    records_max: int = 10**9
    clients_max: int = 10**9

    @contextmanager
    def running(self, root: Path, wrapper: Sequence[str] = ()) -> Iterator[RunningEngine]:
        """Starts it in the foreground."""
        path = root / "socket"
        command = [
            *(*wrapper, sys.executable, "-m", "logengine", "run"),
            *("--data", str(root / "data"), "--socket", str(path)),
        ]
        with started(command, lambda: is_listening(path)) as pid:
            yield RunningEngine(pid, path)


@dataclass
class _Swallowing:
    pid: int
    path: Path

    def take(self, flood: Flood) -> float:
        return timed(lambda: pour(self.path, flood), flood.clients)


@dataclass(frozen=True)
class Null:
    """A server that only reads: how much the load generator can send at all."""

    name: str = "null"
    records_max: int = 10**9
    clients_max: int = 10**9

    @contextmanager
    def running(self, root: Path, wrapper: Sequence[str] = ()) -> Iterator[Running]:
        """Starts it in a process of its own."""
        path = root / "socket"
        command = [*wrapper, sys.executable, "-m", "benchmarks.null", str(path)]
        with started(command, lambda: is_listening(path)) as pid:
            yield _Swallowing(pid, path)


def latencies(path: Path, root: Path, record: bytes, count: int) -> tuple[list[float], list[float]]:
    """Seconds for one ack and for the bare loop, in turns, `count` times each."""
    client = Client(path, "single")
    bare = root / "bare"
    bare.mkdir(exist_ok=True)
    directory = os.open(bare, os.O_RDONLY)
    acks, commits = [], []
    line = record + b" " * 80  # about what the envelope adds
    per_file = 64 * 1024 // len(line)
    for number in range(count):
        began = time.perf_counter()
        _bare_commit(bare, directory, line * (number % per_file + 1))
        between = time.perf_counter()
        client.socket.sendall(record)
        client.wait_for_ack(number + 1)
        acks.append(time.perf_counter() - between)
        commits.append(between - began)
    os.close(directory)
    client.close()
    return acks, commits


def _bare_commit(directory_path: Path, directory: int, content: bytes) -> None:
    temp = directory_path / ".temp"
    descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
    os.write(descriptor, content)
    os.fsync(descriptor)
    os.close(descriptor)
    os.replace(temp, directory_path / "file")
    os.fsync(directory)
