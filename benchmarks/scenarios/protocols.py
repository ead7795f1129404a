"""The protocols that programs already speak: the report of `benchmarks.protocols`."""

import statistics
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.protocol_sender import DATAGRAMS, FILE, NDJSON, RECORD_BYTES, STREAM
from benchmarks.protocols import EVERYDAY_PER_S, OURS, Found, Turn, Way, measure
from benchmarks.scenario import Aim, Scenario, Section

# How many times the records/s of the better of rsyslog and syslog-ng.
_AIMS = {DATAGRAMS: 0.5, STREAM: 1.0, FILE: 1.0}

_NOTE = (
    "Messages of about {record_bytes} bytes as a program sends them, from one process. First "
    "{everyday} records/s for some seconds, one by one; Forward and OTLP in ten batches a second. "
    "Then {records} as fast as they are taken, or {datagrams} datagrams, until all are stored. "
    "Datagrams come over one socket, lines and files in blocks of 64 KiB; Forward (PackedForward "
    "with `chunk`) and OTLP (protobuf) in batches of 512 records over four connections, each of "
    "which waits for its answer. logengine adds who sent a record, and stores its fields as JSON. "
    "rsyslog (`imuxsock`, `imptcp`, `imfile`) and syslog-ng (`unix-dgram`, `unix-stream`, `file`) "
    "parse the messages too, write a line of text for each, and sync. How many datagrams a wake-up "
    "finds is decided by `net.unix.max_dgram_qlen`. A ratio is of the same round.{missing}\n"
)


def render(found: Found, plots: Path) -> Section:
    """One table of rates and CPU per record, one of the cost of everyday rates, the aims."""
    absent = f" Could not be had here: {', '.join(found.missing)}." if found.missing else ""
    counts = [way.records for way in found.ways]
    parts = [
        _NOTE.format(
            record_bytes=RECORD_BYTES,
            records=f"{max(counts):,}",
            datagrams=f"{min(counts):,}",
            everyday=f"{EVERYDAY_PER_S:,}",
            missing=absent,
        ),
        "### As fast as they are taken\n",
        report.table(
            ["", "", "records/s", "logengine is", "CPU per record", "logengine takes", "of NDJSON"],
            [row for way in found.ways for row in _fast_rows(way, _ndjson(found))],
        ),
        f"### At {EVERYDAY_PER_S:,} records/s\n",
        report.table(
            ["", "", "CPU, share of a core", "logengine takes"],
            [row for way in found.ways for row in _everyday_rows(way)],
        ),
    ]
    return Section("\n".join(parts), [aim for way in found.ways for aim in _aims(way)])


def _ndjson(found: Found) -> list[Turn]:
    return next((way.turns[OURS] for way in found.ways if way.name == NDJSON), [])


def _fast_rows(way: Way, ndjson: Sequence[Turn]) -> Iterator[list[str]]:
    for name, turns in way.turns.items():
        is_ours = name == OURS
        cpu = [turn.cpu_us_per_record for turn in turns]
        by_ndjson = report.ratios(cpu, [turn.cpu_us_per_record for turn in ndjson] or cpu)
        yield [
            way.name if is_ours else "",
            name,
            f"{statistics.median(turn.records_per_s for turn in turns):,.0f}",
            "" if is_ours else _ratio(way, name, _rate),
            report.median(cpu, "us"),
            "" if is_ours else _ratio(way, name, _cpu),
            f"{report.median(by_ndjson)}x" if is_ours and ndjson else "",
        ]


def _everyday_rows(way: Way) -> Iterator[list[str]]:
    for name, turns in way.turns.items():
        share = statistics.median(turn.everyday_cores for turn in turns) * 100
        ratio = "" if name == OURS else _ratio(way, name, _everyday)
        yield [way.name if name == OURS else "", name, f"{report.number(share)} %", ratio]


def _rate(turn: Turn) -> float:
    return turn.records_per_s


def _cpu(turn: Turn) -> float:
    return turn.cpu_us_per_record


def _everyday(turn: Turn) -> float:
    return turn.everyday_cores


def _ratio(way: Way, theirs: str, value: Callable[[Turn], float]) -> str:
    times = report.ratios(*(list(map(value, way.turns[name])) for name in (OURS, theirs)))
    return f"**{report.median(times)}x** ({report.spread(times)})"


def _aims(way: Way) -> Iterator[Aim]:
    rivals = [turns for name, turns in way.turns.items() if name != OURS]
    if not rivals:
        return
    ours, rounds = way.turns[OURS], list(zip(*rivals, strict=True))
    least = _AIMS[way.name]
    better = [max(map(_rate, turns)) for turns in rounds]
    yield Aim.at_least(
        f"{way.name}: records/s by the better of rsyslog and syslog-ng",
        least,
        report.ratios(list(map(_rate, ours)), better),
    )
    cheaper = [min(map(_everyday, turns)) for turns in rounds]
    yield Aim.at_most(
        f"{way.name}: CPU at {EVERYDAY_PER_S:,}/s by the cheaper of the two",
        1,
        report.ratios(list(map(_everyday, ours)), cheaper),
    )


SCENARIO = Scenario(
    "protocols", "The protocols that programs speak already", Found, measure, render
)
