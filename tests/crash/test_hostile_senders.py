"""Senders that mean harm, or are broken, and a daemon that goes on serving the others.

Withstands: any bytes in any pieces; connections that say nothing, or a byte now and then;
2,000 of them; senders that never read their answers, or are gone when those come.
"""

import contextlib
import json
import os
import random
import resource
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.crash.rig import hostile
from tests.crash.rig.seed import SEED
from tests.crash.test_kill import expected_of
from tests.daemon import Daemon, Producer, eventually

CONFIG = f"""
[limits]
max_record = "{hostile.MAX_RECORD}B"
"""
CONNECTIONS = 2000
MEMORY_MAX_BYTES = 192 * 1024 * 1024  # three times max_pending


@dataclass
class Fuzz:
    """Sends drawn input to a daemon, and knows what must become of it."""

    daemon: Daemon
    source: random.Random
    inputs: int = 0
    violations: list[str] = field(default_factory=list)
    _expected: dict[str, list[bytes]] = field(default_factory=dict)
    _good: Producer | None = None

    def lines(self) -> None:
        """Any lines, from a sender that asked for answers."""
        stream = f"fuzz{self.source.randrange(8)}"
        data = hostile.lines(self.source)
        records = hostile.records_of(data)
        with contextlib.closing(self.daemon.connect()) as sender:
            assert sender.hello(stream=stream)["next"] == 1
            said = self._say(sender, data)
        self.inputs += 1
        refused = [each["record"] for each in said if each.get("error") == "record_too_large"]
        expected = [n for n, line in enumerate(records, 1) if hostile.is_refused(line)]
        if refused != expected:
            self.violations.append(f"refused {refused}, expected {expected}: {data[:200]!r}")
        acks = [each["ack"] for each in said if "ack" in each]
        if acks != sorted(acks) or (acks or [0])[-1] != len(records):
            self.violations.append(f"acks {acks[-3:]} of {len(records)}: {data[:200]!r}")
        stored = [line for line in records if not hostile.is_refused(line)]
        self._expected.setdefault(stream, []).extend(stored)

    def first_line(self) -> None:
        """Something like a hello, and lines behind it."""
        data = hostile.first_line(self.source) + hostile.lines(self.source)
        with contextlib.closing(self.daemon.connect()) as sender:
            self._say(sender, data)
        self.inputs += 1

    def gone(self) -> None:
        """Any lines, from a sender that does not stay for an answer."""
        with contextlib.closing(self.daemon.connect()) as sender:
            if self.source.random() < 0.5:
                sender.send(b'{"_hello":1,"stream":"gone"}\n')
            with contextlib.suppress(ConnectionError):
                sender.send(hostile.lines(self.source))
        self.inputs += 1

    def good(self) -> None:
        """A sender that does everything right is served."""
        if self._good is None:
            self._good = self.daemon.connect()
            self._good.hello(stream="good")
        number = len(self._expected.setdefault("good", [])) + 1
        self._good.send(b"fine\n")
        self._good.wait_for_ack(number)
        self._expected["good"].append(b"fine")

    def check(self) -> None:
        """Holds what is stored against what was sent."""
        for stream, lines in self._expected.items():
            values = self.daemon.values(stream)
            if len(values) != len(lines):
                self.violations.append(f"{stream}: {len(values)} stored of {len(lines)}")
            self.violations += [
                f"{stream}: {line!r} became {value}"
                for line, value in zip(lines, values, strict=False)
                if hostile.is_plain(line) and value != expected_of(line)
            ]

    def _say(self, sender: Producer, data: bytes) -> list[dict[str, Any]]:
        # Whoever is refused is closed on while it still sends.
        with contextlib.suppress(ConnectionError):
            for chunk in hostile.chunks(data, self.source):
                sender.send(chunk)
            return [json.loads(line) for line in sender.end().splitlines()]
        return []


def fuzz(root: Path, source: random.Random, rounds: int) -> Fuzz:
    """So many rounds of drawn input against one daemon, and what came of it."""
    daemon = Daemon(root, CONFIG)
    with contextlib.closing(daemon):
        fuzz = Fuzz(daemon.start(), source)
        for number in range(rounds):
            source.choice([fuzz.lines, fuzz.lines, fuzz.first_line, fuzz.gone])()
            if number % 10 == 0:
                fuzz.good()
            if fuzz.violations:
                return fuzz
        assert daemon.peak_memory_bytes() < MEMORY_MAX_BYTES
        assert daemon.stop() == 0
        fuzz.check()
        daemon.cli("verify")
        strange = {"connection_failed", "commit_failed", "stop_timeout"} & set(daemon.events())
        fuzz.violations += [f"the log says {event}" for event in strange]
    return fuzz


def test_no_input_ends_the_daemon_or_is_counted_wrong(root: Path) -> None:
    done = fuzz(root, random.Random(SEED), 600)
    assert not done.violations


@pytest.mark.campaign
def test_a_hundred_thousand_inputs_end_nothing(root: Path) -> None:
    inputs = 0
    for life in range(20):
        place = root / str(life)
        place.mkdir()
        done = fuzz(place, random.Random(SEED + life), 5000)
        assert not done.violations
        inputs += done.inputs
    print(f"hostile senders: {inputs:,} inputs")


Attack = Callable[[Path, threading.Event], None]


def say_nothing(path: Path, over: threading.Event) -> None:
    """Very many connections that do not say a word, half of them half closed."""
    with contextlib.ExitStack() as stack:
        for number in range(CONNECTIONS):
            connection = _connected(path, stack)
            if number % 2:
                connection.send(b'{"_hello":1,"stream":"silent"}\n')
        over.wait()


def dawdle(path: Path, over: threading.Event) -> None:
    """Many records that come a byte at a time and never end."""
    with contextlib.ExitStack() as stack:
        connections = [_connected(path, stack) for _ in range(300)]
        while not over.wait(0.05):
            for connection in connections:
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    connection.send(b"x")


def read_answers(path: Path, over: threading.Event) -> None:
    """No attack: as many records as `never_read` sends, from senders that do read."""
    never_read(path, over, reads=True)


def never_read(path: Path, over: threading.Event, *, reads: bool = False) -> None:
    """Senders that want answers and never read one."""
    with contextlib.ExitStack() as stack:
        connections = [_connected(path, stack) for _ in range(20)]
        for number, connection in enumerate(connections):
            connection.send(b'{"_hello":1,"stream":"deaf%d"}\n' % (number % 4))
        while not over.wait(0.02):
            for connection in connections:
                with contextlib.suppress(BlockingIOError, ConnectionError):
                    connection.send(b'{"event":"and on"}\n')
                    if reads:
                        connection.recv(65536)


def hang_up(path: Path, over: threading.Event) -> None:
    """Senders that are gone when their answers come."""
    while not over.wait(0.01):
        with contextlib.ExitStack() as stack:
            connection = _connected(path, stack)
            with contextlib.suppress(BlockingIOError, ConnectionError):
                connection.send(b'{"_hello":1,"stream":"gone"}\n' + b'{"event":"bye"}\n' * 20)


ATTACKS = (say_nothing, dawdle, never_read, read_answers, hang_up)


@pytest.mark.parametrize("attack", ATTACKS)
def test_others_are_served_under_attack(root: Path, attack: Attack) -> None:
    quiet, attacked = latencies(root, attack, records=200)
    print(_told(attack, quiet, attacked))


@pytest.mark.campaign
@pytest.mark.parametrize("attack", ATTACKS)
def test_others_are_served_as_fast_under_attack(root: Path, attack: Attack) -> None:
    quiet, attacked = latencies(root, attack, records=5000)
    print(_told(attack, quiet, attacked))


def latencies(root: Path, attack: Attack, records: int) -> tuple[list[float], list[float]]:
    """Seconds from a record to its ack, each record alone, before and under an attack.

    The daemon must answer all of them, keep its memory bounded, and let go of everything
    when the attack is over.
    """
    daemon = Daemon(root)
    with contextlib.closing(daemon), _many_descriptors():
        daemon.start()
        good = daemon.connect()
        good.hello(stream="good")
        quiet = [_round_trip(good, number) for number in range(1, records + 1)]
        before = _open_files(daemon)
        over = threading.Event()
        attacker = threading.Thread(target=attack, args=(daemon.socket, over))
        attacker.start()
        try:
            time.sleep(0.5)
            attacked = [_round_trip(good, records + n) for n in range(1, records + 1)]
            assert len(daemon.connect().hello(stream="new")) > 1
        finally:
            over.set()
            attacker.join()
        assert daemon.peak_memory_bytes() < MEMORY_MAX_BYTES
        eventually(lambda: _open_files(daemon) <= before + 2, "connections to be let go of")
        assert daemon.stop() == 0
        assert "stop_timeout" not in daemon.events()
        daemon.cli("verify")
        assert len(daemon.values("good")) == 2 * records
    return quiet, attacked


def _told(attack: Attack, quiet: list[float], attacked: list[float]) -> str:
    def percentiles(of: list[float]) -> tuple[float, float]:
        return statistics.median(of), statistics.quantiles(of, n=100)[98]

    (p50, p99), (p50_attacked, p99_attacked) = percentiles(quiet), percentiles(attacked)
    return (
        f"{attack.__name__}: p50 {p50 * 1e3:.2f} ms, then {p50_attacked / p50:.2f}x; "
        f"p99 {p99 * 1e3:.2f} ms, then {p99_attacked / p99:.2f}x"
    )


def _round_trip(producer: Producer, number: int) -> float:
    began = time.perf_counter()
    producer.send(b'{"event":"tick"}\n')
    producer.wait_for_ack(number)
    return time.perf_counter() - began


def _connected(path: Path, stack: contextlib.ExitStack) -> socket.socket:
    connection = stack.enter_context(socket.socket(socket.AF_UNIX))
    # Blocking: with a timeout, a full backlog would be an error at once.
    connection.connect(str(path))
    connection.setblocking(False)
    return connection


def _open_files(daemon: Daemon) -> int:
    assert daemon.process is not None
    return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))


@contextlib.contextmanager
def _many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
