"""What a host's usual rates cost, and how long acks take: the report of `benchmarks.everyday`."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.engine import Engine
from benchmarks.everyday import (
    BARE,
    RATES,
    USUAL_CONNECTIONS,
    WAITING_BLOCK,
    WARM_UP_S,
    Cell,
    Found,
    Turn,
    measure,
)
from benchmarks.peers.journald import Journald
from benchmarks.peers.syslogs import Rsyslog, SyslogNg
from benchmarks.records import RECORD_BYTES
from benchmarks.scenario import Aim, Scenario, Section

_CROWD_WORK = "1,000 connections, 100 records/s each"
_LINES_WORK = "10 MB/s of 512-byte lines"
_MINUTE_WORK = "a minute of 1,000/s"
_PROPORTIONAL_FROM = 1_000  # records/s; below, a page for each record is more than is logged

_OURS, _RSYSLOG = Engine.name, Rsyslog.name
_NAMES = (_OURS, _RSYSLOG, SyslogNg.name, Journald.name)

_BYTES_NOTE = (
    "Each by what was logged: the bytes that the senders wrote. They are those of `/proc/PID/io`: "
    "the pages that a process made dirty, again after each sync, and what it wrote past the page "
    "cache. All of them write to files, so this is the same for each, and leaves out what others "
    "wrote to the disk meanwhile. It also leaves out the file system's journal, so *disk* shows "
    "all that the block device got; that is fair only on a quiet machine. journald is not synced "
    "while it is measured, so each of its pages counts once. *Until sealed* is all that the daemon "
    "wrote from its first record until everything was merged and sealed. The daemon adds time and "
    "sender to each record, as journald does: what it stores is {growth} times what was logged, "
    "and the aims of 4 are by that.\n"
)
_SYNCS_NOTE = (
    "*Syncs* are fsync, fdatasync and the like, counted by strace in a run of its own; *flushes* "
    "are those of the block device in the measured runs, whoever caused them; *commits* are the "
    "daemon's batches.\n"
)
_ACKS_NOTE = (
    "A latency is from the moment a record was written to the moment its ack was read. No sender "
    "waits for one. *Late* is by how much a record was sent after it was due. What a socket did "
    "not take at once is held back, and never sent. *Cores* is the generator's CPU.\n"
)


def render(found: Found, plots: Path) -> Section:
    """Tables of CPU, bytes, syncs and acks for each cell; other loads; a table for the README."""
    usual = [cell for cell in found.cells if cell.connections == USUAL_CONNECTIONS]
    names = [name for name in _NAMES if any(name in cell.turns for cell in found.cells)]
    parts = [_introduction(found)]
    parts += ["### Processor time\n", _cpu_table(found.cells, names)]
    parts += [
        "### Bytes written to the disk\n",
        _bytes_note(found),
        _bytes_table(found.cells, names),
    ]
    parts += ["### Syncs a second\n", _SYNCS_NOTE, _syncs_table(found.cells, names)]
    parts += ["### Acks, and the load generator\n", _ACKS_NOTE, _acks_table(found.cells, names)]
    if found.crowd:
        parts += ["### Other loads\n", _others(found)]
    return Section("\n".join(parts), _aims(found), _readme(usual, names))


def _bytes_note(found: Found) -> str:
    growth = [turn.growth for cell in found.cells for turn in cell.turns[_OURS]]
    return _BYTES_NOTE.format(growth=report.median(growth))


def _introduction(found: Found) -> str:
    absent = f" Could not be had here: {', '.join(found.missing)}." if found.missing else ""
    loads = [turn.load for cell in found.cells for turn in cell.turns[_OURS]]
    return (
        f"{RECORD_BYTES}-byte records at usual rates, evenly spread over some connections to one "
        "stream, sent whether or not acks come; logengine sends acks for all of them, to "
        "connections with the hello of the library's clients. rsyslog is `imptcp` and `omfile` "
        'with `sync="on"`, syslog-ng a file with `fsync(yes)`, journald its stdout socket, not '
        f"synced, with {USUAL_CONNECTIONS} connections only. Each turn takes "
        f"{max(load.duration_s for load in loads):g} s on an empty directory, the first "
        f"{WARM_UP_S:g} s not measured; the medians of {_rounds(found)}.{absent}\n"
    )


def _rounds(found: Found) -> str:
    count = max(len(cell.turns[_OURS]) for cell in found.cells)
    return f"{count} round{'s' * (count > 1)}"


def _median_of(turns: Sequence[Turn], value: Callable[[Turn], float]) -> float:
    return statistics.median(map(value, turns))


def _ratios(cell: Cell, theirs: str, value: Callable[[Turn], float]) -> list[float]:
    """Ours by theirs, round by round; empty if it was not measured."""
    if theirs not in cell.turns:
        return []
    return report.ratios(*(list(map(value, cell.turns[name])) for name in (_OURS, theirs)))


def _cores(turn: Turn) -> float:
    return turn.spent.cores


def _written(turn: Turn) -> float:
    return turn.written_times


def _written_stored(turn: Turn) -> float:
    return turn.written_times / turn.growth


def _sealed_stored(turn: Turn) -> float:
    return turn.sealed_times / turn.growth


def _place(cell: Cell) -> list[str]:
    return [f"{cell.records_per_s:,}/s", f"{cell.connections:,}"]


def _shown(cell: Cell, name: str, show: Callable[[list[Turn]], str]) -> str:
    return show(cell.turns[name]) if name in cell.turns else ""


def _times(ratios: Sequence[float]) -> str:
    return f"**{report.median(ratios)}x** ({report.spread(ratios)})" if ratios else ""


def _percent(turns: Sequence[Turn]) -> str:
    return f"{report.number(_median_of(turns, _cores) * 100)} %"


def _written_times(turns: Sequence[Turn]) -> str:
    return f"{report.number(_median_of(turns, _written))}x"


def _cpu_table(cells: Sequence[Cell], names: Sequence[str]) -> str:
    rows = [
        [
            *_place(cell),
            *(_shown(cell, name, _percent) for name in names),
            _times(_ratios(cell, _RSYSLOG, _cores)),
        ]
        for cell in cells
    ]
    head = ["rate", "connections", *names, f"{_OURS} by {_RSYSLOG}"]
    note = "User and system time of all processes of each, as a share of a core.\n\n"
    return note + report.table(head, rows)


def _bytes_table(cells: Sequence[Cell], names: Sequence[str]) -> str:
    def sealed(turns: Sequence[Turn]) -> str:
        times = _median_of(turns, lambda turn: turn.sealed_times)
        return f"{report.number(times)}x" if times else ""

    def disk(turns: Sequence[Turn]) -> str:
        times = _median_of(turns, lambda turn: turn.spent.disk_bytes / turn.logged_bytes)
        return f"{report.number(times)}x"

    rows = [
        [
            *_place(cell),
            *(_shown(cell, name, _written_times) for name in names),
            _times(_ratios(cell, _RSYSLOG, _written)),
            _shown(cell, _OURS, sealed),
            *(_shown(cell, name, disk) for name in names),
        ]
        for cell in cells
    ]
    by = f"{_OURS} by {_RSYSLOG}"
    disks = [f"disk, {name}" for name in names]
    return report.table(["rate", "connections", *names, by, f"{_OURS} until sealed", *disks], rows)


def _syncs_table(cells: Sequence[Cell], names: Sequence[str]) -> str:
    def flushes(turns: Sequence[Turn]) -> str:
        return report.number(
            _median_of(turns, lambda turn: turn.spent.disk_flushes / turn.spent.at_s)
        )

    def commits(turns: Sequence[Turn]) -> str:
        return report.number(_median_of(turns, lambda turn: (turn.commits or 0) / turn.spent.at_s))

    synced = [name for name in names if any(name in cell.syncs_per_s for cell in cells)]
    rows = [
        [
            *_place(cell),
            _shown(cell, _OURS, commits),
            *(
                report.number(cell.syncs_per_s[name]) if name in cell.syncs_per_s else ""
                for name in synced
            ),
            *(_shown(cell, name, flushes) for name in names),
        ]
        for cell in cells
    ]
    head = ["rate", "connections", f"commits, {_OURS}", *(f"syncs, {name}" for name in synced)]
    return report.table([*head, *(f"flushes, {name}" for name in names)], rows)


def _acks_table(cells: Sequence[Cell], names: Sequence[str]) -> str:
    rows = []
    for cell in cells:
        every = [turn.paced for turns in cell.turns.values() for turn in turns]
        ours = [turn.paced for turn in cell.turns[_OURS]]
        rows.append(
            [
                *_place(cell),
                report.median([paced.p50_ms for paced in ours]),
                report.median([paced.p99_ms for paced in ours]),
                report.median([paced.greatest_ms for paced in ours]),
                report.number(sum(paced.unacked for paced in ours)),
                report.median([paced.late_p99_ms for paced in ours]),
                report.median([paced.late_p99_ms for paced in every]),
                report.median([paced.cpu_share for paced in every]),
                report.number(sum(paced.held_back for paced in ours)),
                report.number(sum(paced.held_back for paced in every)),
            ]
        )
    head = ["rate", "connections", "p50, ms", "p99, ms", "greatest, ms", "never acked"]
    head += [f"late p99 to {_OURS}, ms", "to all, ms", "generator's cores"]
    head += [f"held back from {_OURS}", "from all"]
    return report.table(head, rows)


def _others(found: Found) -> str:
    def cost(load: str, turns: Sequence[Turn]) -> list[str]:
        return [
            load,
            _percent(turns),
            report.median([turn.peak_mib for turn in turns], "MiB"),
            _written_times(turns),
            report.median([turn.paced.p50_ms for turn in turns], "ms"),
            report.median([turn.paced.p99_ms for turn in turns], "ms"),
            report.median([turn.paced.late_p99_ms for turn in turns], "ms"),
        ]

    rows = [cost(_CROWD_WORK, found.crowd), cost(_LINES_WORK, found.lines)]
    rows.append(cost(f"{_MINUTE_WORK}, in one round", found.minute))
    head = ["load", "CPU", "peak memory", "written", "ack p50", "ack p99", "late p99"]
    sealed = report.number(_median_of(found.minute, lambda turn: turn.sealed_times))
    waiting = found.waiting
    shown = {}
    for name, alone in waiting.alone_p50_ms.items():
        shown[f"{name}: p50, ms"] = alone
        shown[f"{name}: p99, ms"] = waiting.alone_p99_ms[name]
    for name, beside in waiting.beside_p50_ms.items():
        shown[f"{name}, p50 by the {BARE}'s"] = report.ratios(
            waiting.alone_p50_ms[name], waiting.alone_p50_ms[BARE]
        )
        shown[f"{name}, p99 by the {BARE}'s"] = report.ratios(
            waiting.alone_p99_ms[name], waiting.alone_p99_ms[BARE]
        )
        shown[f"{name}, beside 1,000/s: p50, ms"] = beside
        shown[f"{name}, beside 1,000/s: p99, ms"] = waiting.beside_p99_ms[name]
        shown[f"{name}, beside 1,000/s, p50 by alone"] = report.ratios(
            beside, waiting.alone_p50_ms[name]
        )
    return (
        f"{report.table(head, rows)}\nWith all of the minute sealed, {sealed} times what was "
        "logged had been written.\n\n"
        "**A sender that waits for each ack** before it sends the next record, alone and beside "
        f"1,000 records/s of others on {USUAL_CONNECTIONS} connections. One asks for a commit by "
        "an empty line, as the library's clients do where they wait, and the other leaves it to "
        f"the daemon to notice. {waiting.turns} turns of each in each round, "
        f"{WAITING_BLOCK} after each other, alone in turn with those of the {BARE}.\n\n"
        f"{report.medians(shown)}"
    )


def _aims(found: Found) -> list[Aim]:
    aims: list[Aim] = []
    for rate in dict.fromkeys(cell.records_per_s for cell in found.cells):
        if rate == min(RATES):
            continue  # shown, but nobody notices its cost
        cells = [cell for cell in found.cells if cell.records_per_s == rate]
        at = f"{rate:,}/s"
        worst = _worst([_ratios(cell, _RSYSLOG, _cores) for cell in cells])
        if worst:
            aims.append(Aim.at_most(f"{at}: CPU by rsyslog's, worst by connections", 1, worst))
        worst = _worst([_ratios(cell, _RSYSLOG, _written) for cell in cells])
        if worst:
            aims.append(Aim.at_most(f"{at}: bytes written by rsyslog's, worst", 1, worst))
        aims += _sealed_aims(at, [c for c in cells if c.connections == USUAL_CONNECTIONS])
        if rate >= _PROPORTIONAL_FROM:
            times = _worst([list(map(_written_stored, cell.turns[_OURS])) for cell in cells])
            aims.append(Aim.at_most(f"{at}: bytes written by bytes stored, worst", 4, times))
        p50 = _worst([[turn.paced.p50_ms for turn in cell.turns[_OURS]] for cell in cells])
        aims.append(Aim.at_most(f"{at}: ack p50 where nobody waits, worst", 20, p50, " ms"))
    if found.crowd:
        aims += _other_aims(found)
    return aims


def _worst(of_cells: Sequence[list[float]]) -> list[float]:
    """The values of the cell with the highest median; empty without any."""
    return max((values for values in of_cells if values), key=statistics.median, default=[])


def _sealed_aims(at: str, cells: Sequence[Cell]) -> Iterator[Aim]:
    for cell in cells:
        ours = [turn.sealed_times for turn in cell.turns[_OURS]]
        work = f"{at}, {cell.connections} connections, until sealed: bytes written by"
        if _RSYSLOG in cell.turns:
            theirs = list(map(_written, cell.turns[_RSYSLOG]))
            yield Aim.at_most(f"{work} rsyslog's", 1, report.ratios(ours, theirs))
        if cell.records_per_s >= _PROPORTIONAL_FROM:
            yield Aim.at_most(
                f"{work} bytes stored", 4, list(map(_sealed_stored, cell.turns[_OURS]))
            )


def _other_aims(found: Found) -> Iterator[Aim]:
    waiting = found.waiting
    for name, beside in waiting.beside_p50_ms.items():
        alone, bare = waiting.alone_p50_ms, waiting.alone_p99_ms
        p50 = report.ratios(alone[name], alone[BARE])
        p99 = report.ratios(bare[name], bare[BARE])
        work = f"a sender that waits and {name}"
        yield Aim.at_most(f"{work}: ack p50 by the bare loop's", 1.35, p50)
        yield Aim.at_most(f"{work}: ack p99 by the bare loop's", 2, p99)
        times = report.ratios(beside, alone[name])
        yield Aim.at_most(f"{work}: ack p50 beside 1,000/s of others, by alone", 2, times)
    p99 = [turn.paced.p99_ms for turn in found.crowd]
    yield Aim.at_most(f"{_CROWD_WORK}: ack p99", 25, p99, " ms")
    cpu = [turn.spent.cores * 100 for turn in found.lines]
    yield Aim.at_most(f"{_LINES_WORK}: CPU", 15, cpu, " %")
    peak = [turn.peak_mib for turn in found.lines]
    yield Aim.at_most(f"{_LINES_WORK}: peak memory", 64, peak, " MiB")
    minute = list(map(_sealed_stored, found.minute))
    yield Aim.at_most(f"{_MINUTE_WORK}, until sealed: bytes written by bytes stored", 4, minute)


def _readme(cells: Sequence[Cell], names: Sequence[str]) -> str:
    """One row for each rate; empty if the usual connections were not measured."""
    if not cells:
        return ""
    rows = []
    for cell in cells:
        cpu = [_shown(cell, name, _percent) for name in names]
        written = [_shown(cell, name, _written_times) for name in names]
        ours = [turn.paced for turn in cell.turns[_OURS]]
        acks = [report.median([getattr(one, key) for one in ours]) for key in ("p50_ms", "p99_ms")]
        rows.append([f"{cell.records_per_s:,}/s", " / ".join(cpu), " / ".join(written), *acks])
    each = " / ".join(names)
    head = ["", "CPU, share of a core", "bytes written by bytes logged"]
    return (
        f"At the usual rates of a host, over {USUAL_CONNECTIONS} connections "
        f"({each}; journald does not sync):\n\n"
        f"{report.table([*head, 'ack p50, ms', 'p99, ms'], rows)}"
    )


SCENARIO = Scenario("everyday", "An ordinary day", Found, measure, render)
