"""Exactly once from end to end: daemon and applications are killed with -9 again and again."""

import contextlib
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

from tests.crash.rig.seed import SEED
from tests.daemon import Daemon

PRODUCERS = 8
# A process may be killed while its records are under way that others of it interrupted.
NESTED_MAX = 10
NUMBERING, INTERRUPTED = "tests.crash.rig.numbering_process", "tests.crash.rig.interrupted_process"


class Application:
    """One producer's processes, one after the other, until all is sent."""

    def __init__(
        self, daemon: Daemon, root: Path, name: str, records: int, pause_s: float, program: str
    ) -> None:
        self.name = name
        self._command = [
            *(sys.executable, "-m", program, str(daemon.socket), str(root / "spool"), name),
            *(str(records), str(pause_s)),
        ]
        self.kills = 0
        self.process = subprocess.Popen(self._command)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
            self.kills += 1
            self.process = subprocess.Popen(self._command)

    def is_through(self) -> bool:
        status = self.process.poll()
        assert status in (None, 0), f"{self.name} ended with {status}"
        return status == 0


def under_fire(
    root: Path,
    records: int,
    *,
    kill_every_s: tuple[float, float],
    client_kills: float,
    pause_s: float,
    program: str = NUMBERING,
) -> str:
    """Sends so many records; gives what was done meanwhile."""
    source = random.Random(SEED)
    daemon = Daemon(root)
    with contextlib.closing(daemon), contextlib.ExitStack() as processes:
        each = records // PRODUCERS
        began = time.monotonic()
        daemon.start()
        started_s = time.monotonic() - began
        applications = [
            Application(daemon, root, f"producer-{number}", each, pause_s, program)
            for number in range(PRODUCERS)
        ]
        for application in applications:
            processes.callback(lambda of: of.process.kill(), application)
        kills = deletions = 0
        while not all(application.is_through() for application in applications):
            # A busy machine gives applications as little as it gives the daemon.
            time.sleep(source.uniform(*kill_every_s) + started_s)
            if source.random() < 0.3:
                daemon.socket.unlink()  # nobody can come any more until it is made again
                deletions += 1
                time.sleep(source.uniform(0, kill_every_s[0]))
            daemon.kill()
            kills += 1
            for application in applications:
                if source.random() < client_kills:
                    application.kill()
            time.sleep(source.uniform(0, kill_every_s[0]))
            starts = time.monotonic()
            daemon.start()
            started_s = time.monotonic() - starts
        took_s = time.monotonic() - began
        daemon.cli("verify")
        stored: dict[str, list[int]] = defaultdict(list)
        for record in daemon.records("fire"):
            stored[record["producer"]].append(record["n"])
        for application in applications:
            assert stored[application.name] == list(range(1, each + 1)), application.name
        assert list((root / "spool").iterdir()) == []
        interruptions = ""
        if program == INTERRUPTED:
            said = "".join(path.read_text() for path in root.glob("*.children"))
            interruptions = check_interruptions(list(daemon.records("interruptions")), said)
        client_kills_done = sum(application.kills for application in applications)
        return (
            f"{each * PRODUCERS:,} records of {PRODUCERS} producers in {took_s:.0f} s, daemon "
            f"killed {kills} times, applications {client_kills_done} times, socket deleted "
            f"{deletions} times{interruptions}: each stored once, in order"
        )


def check_interruptions(records: list[dict[str, Any]], said: str) -> str:
    """Each is there once, and none is missing before another of its process; gives how many.

    Of a child that ended as it should, none is missing at all. `said` is what the children wrote
    to standard error.
    """
    by_process: dict[str, set[int]] = defaultdict(set)
    for record in records:
        assert record["n"] not in by_process[record["process"]], record
        by_process[record["process"]].add(record["n"])
    for process, numbers in by_process.items():
        # One that was interrupted by another had its number, and took its place after that.
        missing = set(range(min(numbers), max(numbers) + 1)) - numbers
        assert len(missing) <= NESTED_MAX, (process, missing)
    last_of = {record["process"] for record in records if record.get("is_last")}
    ended = [record for record in records if "child" in record]
    for record in ended:
        assert record["what"] == "ended", f"{record}\n{said}"
        child = [found["n"] for found in records if found["process"] == record["child"]]
        assert record["child"] in last_of, (record, child)
    of = Counter(record["what"] for record in records)
    ways = Counter(record["way"] for record in ended)
    return (
        f", interrupted by {of['signal']:,} signals and {of['collected']:,} collections in "
        f"{of['main']:,} more records, {ways.total():,} forked children ended in {len(ways)} ways"
    )


@pytest.mark.disk
def test_every_record_is_stored_once_whoever_is_killed(root: Path) -> None:
    print(under_fire(root, 40_000, kill_every_s=(0.05, 0.4), client_kills=0.3, pause_s=0.05))


@pytest.mark.disk
def test_every_record_is_stored_once_whatever_interrupts_it(root: Path) -> None:
    fire = under_fire(
        root,
        12_000,
        kill_every_s=(0.2, 0.8),
        client_kills=0.1,
        pause_s=0.05,
        program=INTERRUPTED,
    )
    print(fire)


@pytest.mark.campaign
@pytest.mark.disk
def test_a_million_records_are_stored_once_whatever_interrupts_them(root: Path) -> None:
    fire = under_fire(
        root,
        1_000_000,
        kill_every_s=(0.5, 3.0),
        client_kills=0.1,
        pause_s=0.05,
        program=INTERRUPTED,
    )
    print(fire)


@pytest.mark.campaign
@pytest.mark.disk
def test_a_million_records_are_stored_once_whoever_is_killed(root: Path) -> None:
    print(under_fire(root, 1_000_000, kill_every_s=(0.2, 2.0), client_kills=0.1, pause_s=0.05))
