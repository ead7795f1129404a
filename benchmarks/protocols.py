"""Measures the protocols that programs speak already: rate, and processor time per record."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from benchmarks.contest import scratch
from benchmarks.engine import LOGENGINE, RunningEngine
from benchmarks.flood import is_listening, started
from benchmarks.peers import missing
from benchmarks.peers.syslog_inputs import Receiving, inputs
from benchmarks.protocol_sender import (
    DATAGRAMS,
    FILE,
    FORWARD,
    JOURNAL,
    NDJSON,
    OTLP,
    STREAM,
    WAYS,
    Work,
    is_available,
    sending,
)
from benchmarks.scenario import Bench
from benchmarks.spent import spent

OURS = "logengine"
EVERYDAY_PER_S = 1_000
_EVERYDAY_S = 2.0
_RECORDS = 150_000
_DATAGRAMS = 50_000  # each of them wakes a sender that waits for room in the queue
_WARM_UP_RECORDS = 100  # the first ones load modules, and make the stream
_STATUS_POLL_S = 0.02  # an answer takes the daemon about half a millisecond
_LISTEN = '[[listen]]\npath = "{root}/input"\nprotocol = "{protocol}"\ntype = "{kind}"\n'
_FOLLOW = '[[file]]\npath = "{root}/input"\nstream = "followed"\n'
_CONFIGS = {
    DATAGRAMS: _LISTEN.replace("{protocol}", "syslog").replace("{kind}", "datagram"),
    STREAM: _LISTEN.replace("{protocol}", "syslog").replace("{kind}", "stream"),
    FORWARD: _LISTEN.replace("{protocol}", "forward").replace("{kind}", "stream"),
    OTLP: _LISTEN.replace("{protocol}", "otlp").replace("{kind}", "stream"),
    FILE: _FOLLOW,
    JOURNAL: _LISTEN.replace("{protocol}", "journal").replace("{kind}", "datagram"),
    NDJSON: "",
}


class Turn(msgspec.Struct, frozen=True):
    """One contender's turn: at 1,000 records/s, and as fast as it takes them."""

    everyday_cores: float
    records_per_s: float
    cpu_us_per_record: float


class Way(msgspec.Struct):
    """One protocol: the turns of each contender, one per round."""

    name: str
    records: int
    turns: dict[str, list[Turn]] = {}


class Found(msgspec.Struct):
    """All protocols, and what could not be had here."""

    ways: list[Way]
    missing: list[str]


class Contender(Protocol):
    """Something that takes records of a protocol."""

    @property
    def name(self) -> str:
        """Its name in the report."""
        ...

    def receiving(self, root: Path, way: str) -> AbstractContextManager[Receiving]:
        """Starts it on an empty directory."""
        ...


@dataclass(frozen=True)
class EngineInput:
    """The daemon, with its defaults and one socket or file of the protocol."""

    name: str = OURS

    @contextmanager
    def receiving(self, root: Path, way: str) -> Iterator[Receiving]:
        """Starts it in the foreground."""
        socket, data, config = root / "socket", root / "data", root / "logengine.toml"
        config.write_text(_CONFIGS[way].format(root=root))
        path = root / "input" if way != NDJSON else socket
        if way == FILE:
            path.touch()
        command = [*LOGENGINE, "run", "--config", str(config)]
        command += ["--data", str(data), "--socket", str(socket)]

        def is_ready() -> bool:
            return path.exists() and is_listening(socket)

        with started(command, is_ready, errors=root / "errors") as pid:
            engine = RunningEngine(pid, socket, data)
            yield Receiving(pid, path, lambda: engine.totals().records, _STATUS_POLL_S)


def measure(bench: Bench) -> Found:
    """All contenders in turns, protocol by protocol."""
    ways = [
        Way(name, bench.scaled(_DATAGRAMS if name in (DATAGRAMS, JOURNAL) else _RECORDS))
        for name in WAYS
        if is_available(name)
    ]
    for round_ in bench.each_round("protocols", bench.everyday_rounds):
        for way in ways:
            contenders: list[Contender] = [EngineInput(), *inputs(bench.software, way.name)]
            for contender in contenders[::-1] if round_ % 2 else contenders:
                turn = take_turn(contender, way, _EVERYDAY_S * min(1.0, bench.scale))
                way.turns.setdefault(contender.name, []).append(turn)
    absent = [name for name in missing(bench.software) if name in ("rsyslog", "syslog-ng")]
    return Found(ways, [*absent, *(name for name in WAYS if not is_available(name))])


def take_turn(contender: Contender, way: Way, everyday_s: float) -> Turn:
    """Sends at an everyday pace, and then as fast as it can be taken."""
    everyday = max(1, int(EVERYDAY_PER_S * everyday_s))
    with scratch() as root, contender.receiving(root, way.name) as receiving:
        path = str(receiving.path)
        with sending(Work(way.name, path, _WARM_UP_RECORDS)):
            receiving.wait_for(_WARM_UP_RECORDS)
        before = spent(receiving.pid, root)
        with sending(Work(way.name, path, everyday, EVERYDAY_PER_S)):
            pass
        receiving.wait_for(_WARM_UP_RECORDS + everyday)
        paced = spent(receiving.pid, root).since(before)
        with sending(Work(way.name, path, way.records)):
            before = spent(receiving.pid, root)
            receiving.wait_for(_WARM_UP_RECORDS + everyday + way.records)
            flooded = spent(receiving.pid, root).since(before)
    return Turn(
        everyday_cores=paced.cpu_s / everyday_s,
        records_per_s=way.records / flooded.at_s,
        cpu_us_per_record=flooded.cpu_s / way.records * 1e6,
    )
