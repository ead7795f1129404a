"""Measures an ordinary day: what a host's usual rates cost, and how long acks take."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import msgspec

from benchmarks import report
from benchmarks.contest import scratch, syncs_timed
from benchmarks.engine import BareLoop, Engine, RunningEngine, Singles, wait_until_sealed
from benchmarks.flood import peak_mib
from benchmarks.paced import Load, Paced, PacedContender
from benchmarks.peers import missing, syslogs
from benchmarks.peers.journald import IntoJournal, Journald, has_container
from benchmarks.records import real_looking
from benchmarks.scenario import Bench
from benchmarks.spent import Spent, spent

RATES = (10, 100, 1_000, 10_000, 20_000)
_CONNECTIONS = (1, 50, 200)
USUAL_CONNECTIONS = 50  # journald is measured only with these, and so is what sealing writes
_DURATION_S = 3.0
_DURATION_S_MIN = 1.5
WARM_UP_S = 0.5
_BLOCKS = 16
# A seal comes when a stream is quiet, so none while the load is on. Merging goes on as it does.
_SEALS_SOON = '[compaction]\nseal_after = "2s"\nseal_small_after = "2s"\n'
_SEALED_IN_S = 120.0

_WAITING_TURNS = 300
WAITING_BLOCK = 100  # so many turns follow each other, so that each is measured warm
_BESIDE = Load(USUAL_CONNECTIONS, 1_000, 6.0)
_ASKS, _GUESSED, BARE = "asks for a commit", "does not ask", "bare loop"

_CROWD = Load(1_000, 100_000, 5.0)
# Four programs; each writes when its buffer of 4 KiB is full.
_LINES = Load(4, 10_000_000 // 512, 6.0, records_each=8, blocks=256, record_bytes=512)
_MINUTE = Load(USUAL_CONNECTIONS, 1_000, 61.0, blocks=256)

_PATIENCE_S = 30.0


class Turn(msgspec.Struct, frozen=True):
    """What one contender spent while it was sent to, and what the load generator measured.

    `spent` begins when the generator is warm and ends when all is stored. Only the daemon's turns
    have `commits`, from the same time, `stored_bytes`, the bytes of all records with what the
    daemon added to them, and `sealed_bytes`, all that was written from before the first record
    until everything was sealed.
    """

    load: Load
    paced: Paced
    spent: Spent
    peak_mib: float
    commits: int | None = None
    stored_bytes: int | None = None
    sealed_bytes: int | None = None

    @property
    def sent_bytes(self) -> int:
        """All that was sent, as the senders wrote it."""
        return (self.load.records - self.paced.held_back) * self.load.record_bytes

    @property
    def logged_bytes(self) -> float:
        """What was sent while `spent` was measured."""
        return self.sent_bytes * self.load.measured_s / self.load.duration_s

    @property
    def written_times(self) -> float:
        """Bytes written by bytes logged."""
        return self.spent.written_bytes / self.logged_bytes

    @property
    def sealed_times(self) -> float:
        """The same until everything was sealed; 0 if that was not waited for."""
        return (self.sealed_bytes or 0) / self.sent_bytes

    @property
    def growth(self) -> float:
        """Bytes stored by bytes logged; 1 if it is not known."""
        return self.stored_bytes / self.sent_bytes if self.stored_bytes else 1.0


class Cell(msgspec.Struct):
    """One rate over one number of connections: the turns of each contender, one per round."""

    records_per_s: int
    connections: int
    turns: dict[str, list[Turn]]
    syncs_per_s: dict[str, float]  # in a run of its own, under strace


class Waiting(msgspec.Struct):
    """Senders that wait for each ack: milliseconds, round by round."""

    turns: int
    alone_p50_ms: dict[str, list[float]]
    alone_p99_ms: dict[str, list[float]]
    beside_p50_ms: dict[str, list[float]]
    beside_p99_ms: dict[str, list[float]]


class Found(msgspec.Struct):
    """All cells, and beside them, unless cells were chosen, the daemon's turns of other loads."""

    cells: list[Cell]
    waiting: Waiting
    crowd: list[Turn]
    lines: list[Turn]
    minute: list[Turn]
    missing: list[str]


def measure(bench: Bench) -> Found:
    """All contenders in turns with each load; then the daemon with some others."""
    cells = [
        Cell(rate, connections, {}, {})
        for rate in bench.rates or RATES
        for connections in bench.connections or _CONNECTIONS
    ]
    waiting = Waiting(bench.scaled(_WAITING_TURNS), *({} for _ in range(4)))
    found = Found(cells, waiting, [], [], [], missing(bench.software))
    if not has_container():
        found.missing.append(Journald.name)
    is_whole = not (bench.rates or bench.connections)
    for round_ in bench.each_round("everyday", bench.everyday_rounds):
        for cell in cells:
            _take_turns(cell, bench, backwards=round_ % 2 == 1)
        if is_whole:
            _wait(found.waiting)
            found.crowd.append(_turn(Engine(), _shortened(_CROWD, bench)))
            found.lines.append(_turn(Engine(), _shortened(_LINES, bench)))
    if is_whole:
        found.minute.append(_turn(_settling(), _shortened(_MINUTE, bench)))
    for cell in cells:
        _count_syncs(cell, bench)
    return found


def _take_turns(cell: Cell, bench: Bench, *, backwards: bool) -> None:
    contenders = _contenders(cell, bench)
    for contender in contenders[::-1] if backwards else contenders:
        turn = _turn(contender, _load(cell, bench))
        cell.turns.setdefault(contender.name, []).append(turn)


def _count_syncs(cell: Cell, bench: Bench) -> None:
    if cell.connections != USUAL_CONNECTIONS or not (bench.software / "usr/bin/strace").exists():
        return
    contenders: list[PacedContender] = [Engine(), *syslogs(bench.software)]
    for contender in contenders:
        per_s = _syncs_per_s(contender, _load(cell, bench), bench.software)
        cell.syncs_per_s[contender.name] = per_s


def _contenders(cell: Cell, bench: Bench) -> list[PacedContender]:
    if cell.connections != USUAL_CONNECTIONS:
        return [Engine(), *syslogs(bench.software)]
    others: list[PacedContender] = [*syslogs(bench.software)]
    if has_container():
        others.append(Journald())
    return [_settling(), *others]


def _settling() -> Engine:
    return Engine(settings=_SEALS_SOON)


def _load(cell: Cell, bench: Bench) -> Load:
    return Load(
        connections=cell.connections,
        records_per_s=cell.records_per_s,
        duration_s=max(_DURATION_S_MIN, _DURATION_S * bench.scale),
        blocks=_BLOCKS,
        warm_up_s=WARM_UP_S,
    )


def _shortened(load: Load, bench: Bench) -> Load:
    duration_s = max(load.warm_up_s + 1, load.duration_s * min(1.0, bench.scale))
    return msgspec.structs.replace(load, duration_s=duration_s)


def _turn(contender: PacedContender, load: Load) -> Turn:
    with scratch() as root, contender.running(root) as running:
        ours = running if isinstance(running, RunningEngine) else None
        started = spent(running.pid, root)
        began, commits = started, 0

        def warm() -> None:
            nonlocal began, commits
            commits = ours.totals().batches if ours else 0
            began = spent(running.pid, root)

        paced = running.pace(load, warm)
        ended = spent(running.pid, root)
        totals = ours.totals() if ours else None
        sealed_bytes = None
        if isinstance(running, IntoJournal):
            running.wait_for(load.records - paced.held_back)
        if ours and contender == _settling():
            wait_until_sealed(ours.data, _SEALED_IN_S)
            sealed_bytes = spent(running.pid, root).since(started).written_bytes
        return Turn(
            load=load,
            paced=paced,
            spent=ended.since(began),
            peak_mib=peak_mib(running.pid),
            commits=totals.batches - commits if totals else None,
            stored_bytes=totals.bytes if totals else None,
            sealed_bytes=sealed_bytes,
        )


def _syncs_per_s(contender: PacedContender, load: Load, software: Path) -> float:
    """How often it syncs while it is sent to."""
    began: list[float] = []
    with scratch() as root, syncs_timed(contender.running, root, software) as (running, times):
        running.pace(load, lambda: began.append(time.time()))
        ended = time.time()
        return sum(began[0] <= sync <= ended for sync in times()) / (ended - began[0])


def _wait(found: Waiting) -> None:
    """Times senders that wait, in turn with the bare loop, and then beside others."""
    record = real_looking(blocks=1).record
    with scratch() as root, Engine().running(root) as running, ExitStack() as stack:
        turns: dict[str, Callable[[], float]] = {}
        for name, asks in ((_ASKS, True), (_GUESSED, False)):
            singles = Singles(running.path, record, stream=name.replace(" ", "-"), asks=asks)
            turns[name] = stack.enter_context(closing(singles)).turn_s
        bare = stack.enter_context(closing(BareLoop(root, record)))
        alone = _in_turn({**turns, BARE: bare.turn_s}, found.turns)
        _note(alone, found.alone_p50_ms, found.alone_p99_ms)
        is_warm = threading.Event()
        others = threading.Thread(target=running.pace, args=(_BESIDE, is_warm.set))
        others.start()
        if not is_warm.wait(_PATIENCE_S):
            raise TimeoutError("the others did not begin")
        beside = _in_turn(turns, found.turns, others.is_alive)
        others.join()
        _note(beside, found.beside_p50_ms, found.beside_p99_ms)


def _in_turn(
    turns: Mapping[str, Callable[[], float]], count: int, is_on: Callable[[], bool] = lambda: True
) -> dict[str, list[float]]:
    """Seconds of each turn: up to `count` of each while `is_on`, after as many as warm it."""
    found_s: dict[str, list[float]] = {name: [] for name in turns}
    blocks = [min(WAITING_BLOCK, count - begin) for begin in range(0, count, WAITING_BLOCK)]
    for number, block in enumerate([blocks[0], *blocks]):
        for name, turn_s in turns.items():
            block_s = [turn_s() for _ in range(block) if is_on()]
            if number > 0:
                found_s[name] += block_s
    return found_s


def _note(
    found_s: Mapping[str, Sequence[float]],
    p50_ms: dict[str, list[float]],
    p99_ms: dict[str, list[float]],
) -> None:
    for name, values_s in found_s.items():
        p50_ms.setdefault(name, []).append(report.percentile(values_s, 50) * 1000)
        p99_ms.setdefault(name, []).append(report.percentile(values_s, 99) * 1000)
