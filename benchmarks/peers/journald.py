"""systemd-journald, in a booted container with a root made by `tests/systemd/prepare`.

It syncs when it likes (every five minutes, or at a record of level `crit`), so its rate is not
comparable: it shows the cost of a record there.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.flood import Flood, Seen, started, unseen, until
from benchmarks.paced import Load, Paced, Target, pace, unheard

_BASE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "logengine", "bookworm")
_CONFIG = """[Journal]
Storage=persistent
RateLimitIntervalSec=0
SystemMaxUse=20G
ForwardToSyslog=no
"""
_IDENTIFIER = "bench"
# Unit, level, whether lines begin with a level, and where they are forwarded to: nowhere.
_HEADER = f"{_IDENTIFIER}\n\n6\n0\n0\n0\n0\n".encode()
_LAST = b"that was the last\n"
_POLL_S = 0.05
_SOCKET = "run/systemd/journal/stdout"
# Runs inside: journald hangs up on processes that it cannot see.
_SENDER = f"""
import os, socket
with socket.socket(socket.AF_UNIX) as connection:
    connection.connect("/{_SOCKET}")
    while block := os.read(0, 65536):
        connection.sendall(block)
"""


@dataclass
class IntoJournal:
    """A running journald; its files are somewhere below `journal`."""

    init: int
    pid: int
    journal: Path

    def take(self, flood: Flood, seen: Seen = unseen) -> float:
        """Seconds until every record is in the journal."""
        began = time.perf_counter()
        self.store(flood.in_turn(flood.sample.blocks))
        took_s = time.perf_counter() - began
        self._check(flood.total)
        return took_s

    def pace(self, load: Load, warm: Callable[[], None] = unheard) -> Paced:
        """Sends at a steady pace. Returns when every record is sent; it says no more."""
        path = f"/proc/{self.init}/root/{_SOCKET}"
        target = Target(path, opening=_HEADER.decode(), acknowledges=False)
        # In its namespace of processes, for it hangs up on those that it cannot see.
        return pace(load, target, warm, ["nsenter", "-t", str(self.init), "--pid"])

    def wait_for(self, count: int) -> None:
        """Returns when `count` records are in the journal."""
        until(lambda: self._journal().count(b"\n") >= count, "the journal", _POLL_S)

    def archive(self, blocks: Iterable[bytes], count: int) -> list[Path]:
        """Has `count` records stored, and returns the closed files that contain them."""
        self._rotate()
        others = set(self._archived())
        self.store(blocks)
        self._rotate()
        self._check(count)
        return sorted(set(self._archived()) - others)

    def store(self, blocks: Iterable[bytes]) -> None:
        """Returns when all records are in the journal."""
        command = [*_entering(self.init), "python3", "-c", _SENDER]
        with subprocess.Popen(command, stdin=subprocess.PIPE) as sender:
            assert sender.stdin is not None
            sender.stdin.write(_HEADER)
            for block in blocks:
                sender.stdin.write(block)
            sender.stdin.write(_LAST)
        until(lambda: self._journal("-n", "1") == _LAST, "the journal", _POLL_S)

    def _check(self, count: int) -> None:
        stored = self._journal().count(b"\n")
        if stored != count + 1:
            raise ValueError(f"{stored - 1} of {count} records are in the journal")

    def _rotate(self) -> None:
        # A rotation syncs the files that it closes, and truncates them to their needed length.
        _in_container(self.init, "journalctl", "--sync")
        _in_container(self.init, "journalctl", "--rotate")

    def _archived(self) -> Iterator[Path]:
        return self.journal.glob("*/system@*.journal")

    def _journal(self, *options: str) -> bytes:
        command = ["journalctl", "-q", "-t", _IDENTIFIER, "-o", "cat", *options]
        return _in_container(self.init, *command)


def _in_container(init: int, *command: str) -> bytes:
    return subprocess.run([*_entering(init), *command], capture_output=True, check=False).stdout


def _entering(init: int) -> list[str]:
    return ["nsenter", "-t", str(init), "-a"]


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _is_up(nspawn: int) -> bool:
    # Searched each time: the first child is not yet the container's init.
    return any(
        _in_container(child, "systemctl", "is-system-running").strip() in {b"running", b"degraded"}
        for child in _children(nspawn)
    )


@dataclass(frozen=True)
class Journald:
    """The stdout socket, one connection, rate limit off. journald decides when to sync."""

    name: str = "journald"
    records_max: int = 10**9
    clients_max: int = 1

    @contextmanager
    def running(self, root: Path, wrapper: Sequence[str] = ()) -> Iterator[IntoJournal]:
        """Boots the container; only its journal is on the disk."""
        config, journal = root / "bench.conf", root / "journal"
        config.write_text(_CONFIG)
        journal.mkdir()
        command = [
            *(*wrapper, "systemd-nspawn", "--register=no", "--keep-unit", "-D", str(_BASE), "-b"),
            *("--volatile=state", "--console=pipe", f"--bind={journal}:/var/log/journal"),
            f"--bind-ro={config}:/run/systemd/journald.conf.d/bench.conf",
        ]
        with started(command, lambda: True) as nspawn:
            until(lambda: _is_up(nspawn), "the container")
            (init,) = _children(nspawn)
            (journald,) = (pid for pid in _children(init) if _name(pid) == "systemd-journal")
            yield IntoJournal(init, journald, journal)


def has_container() -> bool:
    """Whether a container can be booted here."""
    return os.getuid() == 0 and _BASE.exists() and shutil.which("systemd-nspawn") is not None
