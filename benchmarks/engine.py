"""The daemon under load, the null server, and the bare loop as the baseline of latency."""

import json
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from benchmarks.flood import Flood, Seen, is_listening, send_and_wait, started, timed, unseen, until
from benchmarks.paced import Load, Paced, Target, pace, unheard
from logengine.cli.status import ask_status
from logengine.disk.segment_file import list_streams
from logengine.format.segment import COMPRESSED_SUFFIX
from logengine.protocols.status import Status, TotalsStatus

LOGENGINE = (sys.executable, "-m", "logengine")
ENVELOPE_BYTES = 80  # approximately what the engine adds to a record
_REWRITE_LIMIT = 64 * 1024
_LOG_NAME = "log"


class Client:
    """One producer that reads its acks."""

    def __init__(self, path: Path, stream: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(str(path))
        self._answers = self.socket.makefile("rb")
        self.socket.sendall(b'{"_hello":1,"stream":"%s"}\n' % stream.encode())
        self._answers.readline()

    def wait_for_ack(self, number: int, seen: Seen = unseen) -> None:
        """Returns when the record `number` is durable; calls `seen` with each ack."""
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
    """A running server of the engine's protocol; `path` is its socket."""

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

    def pace(self, load: Load, warm: Callable[[], None] = unheard) -> Paced:
        """Sends at a steady pace until every record is acknowledged."""
        return pace(load, Target(str(self.path)), warm)

    def totals(self) -> TotalsStatus:
        """What it has done so far."""
        return msgspec.json.decode(ask_status(self.path), type=Status).totals


class Stopped(msgspec.Struct, frozen=True):
    """What a daemon reports about its run when it stops. Bytes are those of records as stored."""

    records: int
    bytes: int
    merges: int
    seals: int
    rewritten_bytes: int


@dataclass(frozen=True)
class Engine:
    """The daemon, with the lines of `settings` as its configuration, or with its defaults.

    Every record is counted at its ack.
    """

    name: str = "logengine"
    records_max: int = 10**9
    clients_max: int = 10**9
    settings: str = ""

    @contextmanager
    def running(self, root: Path, wrapper: Sequence[str] = ()) -> Iterator[RunningEngine]:
        """Starts it in the foreground, on its data in `root`."""
        path, data = root / "socket", root / "data"
        config = root / "logengine.toml"
        config.write_text(self.settings)
        command = [*wrapper, *LOGENGINE, "run", "--config", str(config)]
        command += ["--data", str(data), "--socket", str(path)]
        with started(command, lambda: is_listening(path), errors=root / _LOG_NAME) as pid:
            yield RunningEngine(pid, path, data)


def stopped(root: Path) -> Stopped:
    """What the daemon that ran in `root` reported when it stopped."""
    for line in reversed((root / _LOG_NAME).read_bytes().splitlines()):
        if b'"stopped"' in line:
            return msgspec.json.decode(line, type=Stopped)
    raise ValueError(f"{root / _LOG_NAME} does not say that the daemon stopped")


def wait_until_sealed(data: Path, patience_s: float) -> None:
    """Returns when a daemon has sealed everything in its streams."""

    def is_sealed() -> bool:
        return all(
            name.endswith(COMPRESSED_SUFFIX)
            for stream in list_streams(data)
            for name in os.listdir(data / stream)
        )

    until(is_sealed, "the last seal", 0.1, patience_s)


@dataclass(frozen=True)
class Null:
    """A server that acknowledges immediately: the most that the load generator can send."""

    name: str = "null"
    records_max: int = 10**9
    clients_max: int = 10**9

    @contextmanager
    def running(self, root: Path, wrapper: Sequence[str] = ()) -> Iterator[RunningEngine]:
        """Starts it in a separate process."""
        path = root / "socket"
        command = [*wrapper, sys.executable, "-m", "benchmarks.null", str(path)]
        with started(command, lambda: is_listening(path)) as pid:
            yield RunningEngine(pid, path, root)


class BareLoop:
    """*Temp, fsync, replace, fsync of the directory*, and nothing else.

    Each turn writes one more record, as the engine does to its active segment.
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
        """Closes the directory."""
        os.close(self._directory)


class Singles:
    """One client that sends a record when the previous one is acknowledged.

    With `asks`, it asks for a commit after each record, as the library's clients do.
    """

    def __init__(
        self, path: Path, record: bytes, stream: str = "single", *, asks: bool = False
    ) -> None:
        self._client = Client(path, stream)
        self._record = record + b"\n" * asks
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
