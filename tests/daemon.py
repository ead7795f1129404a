"""A real daemon, and a producer written from the protocol's documentation alone."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.command_server import CommandServer
from tests.crash.rig.walker import decompressed

PATIENCE_S = 60
COMMANDS = CommandServer()
PROGRAM = ("-m", "logengine")  # what Python is to run


def eventually(
    condition: Callable[[], Any], what: str = "it", *, patience_s: float = PATIENCE_S
) -> Any:
    """Waits until `condition` holds; gives what it gave."""
    deadline = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {patience_s} s for {what} in vain"
        time.sleep(0.005)
    return found


def nices(stats: str) -> list[int]:
    """How far each thread steps back, from what is in /proc/PID/task/*/stat (proc(5))."""
    return sorted(int(line.rpartition(")")[2].split()[16]) for line in stats.splitlines())


class Daemon:
    """`logengine run` in a process of its own."""

    def __init__(
        self,
        root: Path,
        config: str = "",
        *,
        data: Path | None = None,
        program: Sequence[str] = PROGRAM,
        open_files_max: int | None = None,
    ) -> None:
        self.data = data or root / "data"
        self.program = program
        self.open_files_max = open_files_max
        self.socket = root / "socket"
        self.config = root / "logengine.toml"
        self.config.write_text(config)
        self.log_path = root / "daemon.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._producers: list[Producer] = []

    def start(self) -> "Daemon":
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [
                    *self._limits(),
                    *(sys.executable, *self.program, "run"),
                    *("--config", str(self.config)),
                    *("--data", str(self.data), "--socket", str(self.socket)),
                ],
                stderr=log,
            )
        eventually(self.listens, "the daemon to listen")
        return self

    def _limits(self) -> list[str]:
        if self.open_files_max is None:
            return []
        return ["prlimit", f"--nofile={self.open_files_max}"]

    def listens(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log_path.read_text()
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE_S)

    def peak_memory_bytes(self) -> int:
        """The greatest resident size of the process so far."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024

    def log(self) -> list[dict[str, Any]]:
        """The lines that are whole: it may be writing one."""
        whole, _, _ = self.log_path.read_text().rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def logged(self, event: str, count: int = 1) -> list[dict[str, Any]]:
        """The lines of an event, when there are so many: a thread writes them, after an ack too."""

        def lines() -> list[dict[str, Any]]:
            return [line for line in self.log() if line["event"] == event]

        eventually(lambda: len(lines()) >= count, f"{event} in the log")
        return lines()

    def events(self) -> list[str]:
        return [entry["event"] for entry in self.log()]

    def connect(self) -> "Producer":
        self._producers.append(Producer(self.socket))
        return self._producers[-1]

    def close(self) -> None:
        """Leaves nothing behind: no process, no connection."""
        for producer in self._producers:
            producer.close()
        if self.process is not None and self.process.poll() is None:
            self.kill()

    def cli(
        self, *arguments: str, stdin: bytes = b"", status: int = 0, **environ: str
    ) -> subprocess.CompletedProcess[bytes]:
        environment = {
            **os.environ,
            "LOGENGINE_DATA": str(self.data),
            "LOGENGINE_SOCKET": str(self.socket),
            **environ,
        }
        if COMMANDS.serves(environment):
            done = COMMANDS.run(arguments, stdin, environment, PATIENCE_S)
        else:
            done = subprocess.run(
                [sys.executable, "-m", "logengine", *arguments],
                input=stdin,
                capture_output=True,
                check=False,
                timeout=PATIENCE_S,
                env=environment,
            )
        assert done.returncode == status, (done.stdout, done.stderr)
        return done

    def status(self, code: int) -> dict[str, Any]:
        """What `logengine status` says, once it exits with `code`: 0 if all is well, else 1."""

        def answer() -> dict[str, Any] | None:
            try:
                said: dict[str, Any] = json.loads(self.cli("status", "--json", status=code).stdout)
            except AssertionError:
                return None  # a failure, or its end, is on its way
            return said

        found: dict[str, Any] = eventually(answer, f"a status with {code}")
        return found

    def records(self, stream: str = "default") -> list[dict[str, Any]]:
        """What is on disk, read without logengine's own reader; again, if it changes meanwhile."""
        while True:
            try:
                return self._records(stream)
            except FileNotFoundError:
                continue  # merged or sealed since it was listed

    def segments(self, stream: str = "default") -> list[Path]:
        """Its segments, the oldest first. A temp file may stand beside them at any moment."""
        return sorted((self.data / stream).glob("[0-9]*"))

    def _records(self, stream: str) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = []
        paths = self.segments(stream)
        for path in paths:
            sealed = path.with_name(f"{path.name}.zst")
            if sealed.exists():
                if sealed not in paths:
                    raise FileNotFoundError
                continue  # there compressed too, which counts
            lines = decompressed(path, path.read_bytes()).split(b"\n")
            assert lines.pop() == b""
            header = json.loads(lines[0])
            assert header["_segment"] == 1
            if 0 < header["first"] + header["count"] - 1 <= len(records):
                continue  # covered by the one before it
            assert header["first"] == len(records) + 1 == int(path.name[:20])
            assert header["count"] == len(lines) - 1
            records += [json.loads(line) for line in lines[1:]]
        return records

    def values(self, stream: str = "default") -> list[dict[str, Any]]:
        """The senders' own part of the records."""
        return [
            {name: value for name, value in record.items() if name not in ENVELOPE}
            for record in self.records(stream)
        ]


ENVELOPE = ("_ts", "_pid", "_uid", "_gid", "_comm", "_unit", "_user_unit", "_file")


class Producer:
    """One connection."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(PATIENCE_S)
        try:
            self.socket.connect(str(path))
        except OSError:
            self.socket.close()
            raise
        self._answers = self.socket.makefile("rb")

    def hello(self, **said: Any) -> dict[str, Any]:
        self.send(json.dumps({"_hello": 1} | said).encode() + b"\n")
        return self.answer()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self) -> dict[str, Any]:
        line = self._answers.readline()
        return json.loads(line) if line else {}

    def wait_for_ack(self, number: int) -> None:
        while self.answer()["ack"] < number:
            pass

    def end(self) -> bytes:
        """Closes the writing side; what the daemon still says until it closes its own."""
        self.socket.shutdown(socket.SHUT_WR)
        return self._answers.read()

    def close(self) -> None:
        self._answers.close()
        self.socket.close()
