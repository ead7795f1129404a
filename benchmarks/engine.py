"""The daemon under load, the null server, and the bare loop that latency is held to."""

import json
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.flood import Flood, Seen, is_listening, send_and_wait, started, timed, unseen

LOGENGINE = (sys.executable, "-m", "logengine")
ENVELOPE_BYTES = 80  # about what the engine adds to a record
_REWRITE_LIMIT = 64 * 1024


class Client:
    """One producer that reads its acks."""

    def __init__(self, path: Path, stream: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self._answers = self.socket.makefile("rb")
        self.socket.sendall(b'{"_hello":1,"stream":"%s"}\n' % stream.encode())
        self._answers.readline()

    def wait_for_ack(self, number: int, seen: Seen = unseen) -> None:
        """Returns when the record `number` is durable; `seen` is told of each ack."""
        acked = 0
        while acked < number:
            acked = json.loads(self._answers.readline())["ack"]
            seen(acked)

    def close(self) -> None:
        """Ends the connection."""
        self._answers.close()
        self.socket.close()


@dataclass
class RunningEngine:
    """A server of the engine's protocol that has been started; `path` is its socket."""

    pid: int
    path: Path
    data: Path

    def take(self, flood: Flood, seen: Seen = unseen, stream: str = "flood") -> float:
        """Seconds until every record is acknowledged."""

        def work() -> None:
            client = Client(self.path, stream)
            send_and_wait(
                client.socket.sendall,
                flood.in_turn(flood.sample.blocks),
                lambda: client.wait_for_ack(flood.records_each, seen),
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
        """Starts it in the foreground, on what `root` holds of it."""
        path, data = root / "socket", root / "data"
        command = [*wrapper, *LOGENGINE, "run", "--data", str(data), "--socket", str(path)]
        with started(command, lambda: is_listening(path)) as pid:
            yield RunningEngine(pid, path, data)


@dataclass(frozen=True)
class Null:
    """A server that acknowledges at once: how much the load generator can send at all."""

    name: str = "null"
    records_max: int = 10**9
    clients_max: int = 10**9

    @contextmanager
    def running(self, root: Path, wrapper: Sequence[str] = ()) -> Iterator[RunningEngine]:
        """Starts it in a process of its own."""
        path = root / "socket"
        command = [*wrapper, sys.executable, "-m", "benchmarks.null", str(path)]
        with started(command, lambda: is_listening(path)) as pid:
            yield RunningEngine(pid, path, root)


class BareLoop:
    """*Temp, fsync, replace, fsync of the directory*, and nothing else.

    Each turn writes one record more, as the engine does to its active segment.
    """

    def __init__(self, root: Path, record: bytes) -> None:
        self._path = root / "bare"
        self._path.mkdir()
        self._directory = os.open(self._path, os.O_RDONLY)
        self._line = record + b" " * ENVELOPE_BYTES
        self._lines = 0

    def turn_s(self) -> float:
        """Seconds that one more record takes."""
        self._lines = self._lines % (_REWRITE_LIMIT // len(self._line)) + 1
        content = self._line * self._lines
        began = time.perf_counter()
        temp = self._path / ".temp"
        descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        os.write(descriptor, content)
        os.fsync(descriptor)
        os.close(descriptor)
        os.replace(temp, self._path / "file")
        os.fsync(self._directory)
        return time.perf_counter() - began

    def close(self) -> None:
        """Lets go of the directory."""
        os.close(self._directory)


class Singles:
    """One client that sends a record when the one before is acknowledged."""

    def __init__(self, path: Path, record: bytes, stream: str = "single") -> None:
        self._client = Client(path, stream)
        self._record = record
        self._sent = 0

    def turn_s(self) -> float:
        """Seconds from one more record to its ack."""
        self._sent += 1
        began = time.perf_counter()
        self._client.socket.sendall(self._record)
        self._client.wait_for_ack(self._sent)
        return time.perf_counter() - began

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()
