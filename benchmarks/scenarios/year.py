"""A year of a busy host and ten million records, each with and without merging."""

import statistics
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
import uvloop

from benchmarks import plot, report
from benchmarks.contest import scratch
from benchmarks.disk import Use, use_of, written_bytes
from benchmarks.engine import Engine, stopped, wait_until_sealed
from benchmarks.host_year import (
    DAY_S,
    LINES_OF,
    MONTH_STARTS_S,
    MONTHS,
    YEAR_START_NS,
    Event,
    events,
)
from benchmarks.log_lines import LogLines
from benchmarks.paced import Load, Paced
from benchmarks.scenario import Aim, Bench, Scenario, Section, say
from benchmarks.simulation import SILENCES_S, Host, simulated
from logengine.upkeep.retention_plan import RetentionRule, RetentionRules

# On a disk, a year's commits would wait for it for most of an hour.
_IN_MEMORY = Path("/dev/shm")
_WITH, _WITHOUT = "with merging", "without"
_BOUNDED = ("web", "cron")
_KEPT_DAYS = 90
_RULES = RetentionRules(
    streams={stream: RetentionRule(max_age=_KEPT_DAYS * DAY_S) for stream in _BOUNDED}
)

_RECORDS = 10_000_000
_CONNECTIONS = 8
_RECORDS_PER_S = 50_000
_RECORDS_EACH = 20
_BLOCKS = 256  # 16 MiB of records before one repeats
# To seal everything soon after the last record has arrived.
_SETTINGS = {
    _WITH: '[compaction]\nseal_after = "2s"\nseal_small_after = "2s"\n',
    _WITHOUT: "[compaction]\nenabled = false\n",
}
_SEALED_IN_S = 600.0
_ALLOWED = 1.5


class Month(msgspec.Struct, frozen=True):
    """Each stream's disk space at the end of a month, and the ack times in it."""

    uses: dict[str, Use]
    p50_us: float
    p99_us: float
    took_s: float

    @property
    def files(self) -> int:
        """All files."""
        return sum(use.files for use in self.uses.values())

    @property
    def disk_bytes(self) -> int:
        """The disk space of all files."""
        return sum(use.disk_bytes for use in self.uses.values())


class Year(msgspec.Struct):
    """A year, month by month; bytes are those of records as stored."""

    months: list[Month] = []
    commits: int = 0
    records: int = 0
    accepted_bytes: int = 0
    rewritten_bytes: int = 0
    merges: int = 0
    seals: int = 0
    removed: int = 0

    @property
    def took_s(self) -> float:
        """How long it took in real time."""
        return sum(month.took_s for month in self.months)


class Poured(msgspec.Struct):
    """The results for many records sent at a steady pace, round by round."""

    files: list[int] = []
    disk_bytes: list[int] = []
    accepted_bytes: list[int] = []
    rewritten_bytes: list[int] = []
    written_bytes: list[int] = []
    acks: list[Paced] = []
    sealed_s: list[float] = []


class Found(msgspec.Struct):
    """The results with merging and without."""

    years: dict[str, Year]
    paced_records: int
    paced: dict[str, Poured]


def measure(bench: Bench) -> Found:
    """Runs the year once, both sides in turn by the month; the rest in rounds."""
    found = Found({}, bench.scaled(_RECORDS), {})
    with scratch(_IN_MEMORY) as root:
        found.years = uvloop.run(_years(root, bench.scale))
    found.paced = {name: Poured() for name in _SETTINGS}
    for round_ in bench.each_round("year: ten million records"):
        names = list(_SETTINGS)
        for name in names[::-1] if round_ % 2 else names:
            _pace(found.paced_records, _SETTINGS[name], found.paced[name])
    return found


async def _years(root: Path, scale: float) -> dict[str, Year]:
    years = {_WITH: Year(), _WITHOUT: Year()}
    rules = {_WITH: _RULES, _WITHOUT: None}
    async with AsyncExitStack() as stack:
        hosts = {
            name: await stack.enter_async_context(
                simulated(root / name.split()[0], rules[name], YEAR_START_NS)
            )
            for name in years
        }
        coming = events(scale, SILENCES_S)
        event = next(coming, None)
        for number, (month, end_s) in enumerate(zip(MONTHS, MONTH_STARTS_S[1:], strict=True)):
            say(f"year: {month}")
            of_month: list[Event] = []
            while event is not None and event.time_s < end_s:
                of_month.append(event)
                event = next(coming, None)
            names = list(hosts)
            for name in names[::-1] if number % 2 else names:
                end_ns = YEAR_START_NS + int(end_s * 1e9)
                years[name].months.append(await _month(hosts[name], of_month, number, end_ns))
        for name, host in hosts.items():
            host.check()
            year, compacted = years[name], host.compacted
            year.commits, year.records = host.commits, host.records
            year.accepted_bytes = host.accepted_bytes
            year.rewritten_bytes = compacted.merged_bytes + compacted.sealed_bytes
            year.merges, year.seals = compacted.merges, compacted.seals
            year.removed = compacted.removed
    return years


async def _month(host: Host, of_month: list[Event], number: int, end_ns: int) -> Month:
    """Delivers a month to a host. If a stream is silent for long, the clock waits for it."""
    began = time.monotonic()
    lines = LogLines(seed=number)
    acks_s = []
    for event in of_month:
        time_ns = YEAR_START_NS + int(event.time_s * 1e9)
        if event.lines:
            kind = LINES_OF[event.stream]
            chunk = b"".join(lines.line(kind, time_ns) for _ in range(event.lines))
            acks_s.append(await host.send(event.stream, chunk, time_ns))
        else:
            await host.rest(time_ns)
    await host.rest(end_ns)
    return Month(
        uses=host.uses(),
        p50_us=report.percentile(acks_s, 50) * 1e6,
        p99_us=report.percentile(acks_s, 99) * 1e6,
        took_s=time.monotonic() - began,
    )


def _pace(records: int, settings: str, found: Poured) -> None:
    with scratch() as root:
        with Engine(settings=settings).running(root) as running:
            load = Load(
                connections=_CONNECTIONS,
                records_per_s=_RECORDS_PER_S,
                duration_s=records / _RECORDS_PER_S,
                records_each=_RECORDS_EACH,
                blocks=_BLOCKS,
            )
            found.acks.append(running.pace(load))
            began = time.monotonic()
            if "enabled = false" not in settings:
                wait_until_sealed(running.data, _SEALED_IN_S)
            found.sealed_s.append(time.monotonic() - began)
            found.written_bytes.append(written_bytes(running.pid))
            (stream,) = (path for path in running.data.iterdir() if path.is_dir())
            use = use_of(stream)
        said = stopped(root)
        found.files.append(use.files)
        found.disk_bytes.append(use.disk_bytes)
        found.accepted_bytes.append(said.bytes)
        found.rewritten_bytes.append(said.rewritten_bytes)


def render(found: Found, plots: Path) -> Section:
    """One table of all, one by quarter, and the files over the year."""
    year = found.years[_WITH]
    files = plots / "year.svg"
    title = "Files at the end of each month of a year"
    plot.lines(
        files,
        title,
        "month",
        "files",
        {
            name: [(number, month.files) for number, month in enumerate(of.months, 1)]
            for name, of in found.years.items()
        },
    )
    p50 = report.ratios(*(_of_months(found, name, "p50_us") for name in found.years))
    p99 = report.ratios(*(_of_months(found, name, "p99_us") for name in found.years))
    paced_p50 = report.ratios(*(_acks(paced, "p50_ms") for paced in found.paced.values()))
    paced_p99 = report.ratios(*(_acks(paced, "p99_ms") for paced in found.paced.values()))
    ratios = {
        "the year, ack p50 with merging / without": p50,
        "the year, ack p99 with merging / without": p99,
        f"{found.paced_records:,} records, ack p50 with merging / without": paced_p50,
        f"{found.paced_records:,} records, ack p99 with merging / without": paced_p99,
    }
    text = (
        f"**A year of a busy host**, in compressed time: {year.records:,} records in "
        f"{year.commits:,} commits to six streams. *web* is sent to all day and night, *app* in "
        "working hours, *cron* in a burst every five minutes, *audit* every two hours, *backup* "
        "for two days and then not for five weeks, *mobile* from July on. It is the engine's own "
        "store, committer, compactor and retainer with the daemon's defaults, in this process; "
        "only the clocks are given to them, and the directory is in memory, for a year of syncs "
        "takes an hour. So its acks are what a commit costs without the disk. Lines are made from "
        "a seed, each with times, numbers and ids of its own. *web* and *cron* keep "
        f"{_KEPT_DAYS} days (retention is the compactor's, so without merging nothing is "
        "removed). The two hosts take turns by the month.\n\n"
        "On a real host more comes: more files of 64 KiB without merging, and larger sealed ones "
        "with it. And its commits are seconds apart. Here one follows the other at once, so that "
        f"all of the merging lies in {DAY_S * 365 / year.took_s:,.0f} times less time, and a "
        "compaction is at work beside most of them.\n\n"
        f"**{found.paced_records:,} records** of 256 bytes to one stream of the daemon, "
        f"{_RECORDS_PER_S:,} a second over {_CONNECTIONS} connections, {_RECORDS_EACH} at a time "
        "(random ids and words, 16 MiB before one comes again, which no frame of a sealed segment "
        "reaches back to), merged while they come, and sealed "
        f"{report.median(found.paced[_WITH].sealed_s)} s after the last.\n\n"
        "*Rewritten* are the records' bytes that merging and sealing wrote again; *written* is "
        "all that the daemon had written to the disk, for commits and merging, in pages. Both by "
        "the bytes of the records as stored. Files and bytes are those in the end, in blocks.\n\n"
        f"{_summary(found)}\n{report.medians(ratios)}\n"
        "The year by quarters, and by streams at its end:\n\n"
        f"{_quarters(found.years)}\n{_streams(found.years)}\n{report.image(files, title)}"
    )
    return Section(text, _aims(found, paced_p99))


def _of_months(found: Found, name: str, key: str) -> list[float]:
    return [getattr(month, key) for month in found.years[name].months]


def _acks(paced: Poured, key: str) -> list[float]:
    return [getattr(acks, key) for acks in paced.acks]


def _summary(found: Found) -> str:
    rows = []
    for name, year in found.years.items():
        last = year.months[-1]
        rows.append(
            [
                *("the year", name, f"{last.files:,}", report.number(last.disk_bytes / 1e6)),
                report.number(year.rewritten_bytes / year.accepted_bytes),
                "",
                report.number(statistics.median(_of_months(found, name, "p50_us")) / 1000),
                report.number(statistics.median(_of_months(found, name, "p99_us")) / 1000),
            ]
        )
    for name, paced in found.paced.items():
        rows.append(
            [
                *(f"{found.paced_records:,} records", name, report.median(paced.files)),
                report.number(statistics.median(paced.disk_bytes) / 1e6),
                report.median(report.ratios(paced.rewritten_bytes, paced.accepted_bytes)),
                report.median(report.ratios(paced.written_bytes, paced.accepted_bytes)),
                report.median(_acks(paced, "p50_ms")),
                report.median(_acks(paced, "p99_ms")),
            ]
        )
    head = ["", "", "files", "MB on disk", "rewritten", "written", "ack p50, ms", "ack p99, ms"]
    return report.table(head, rows)


def _quarters(years: Mapping[str, Year]) -> str:
    bounded = _BOUNDED[0]
    rows = []
    for number in range(2, len(MONTHS), 3):
        cells = [f"end of {MONTHS[number]}"]
        for year in years.values():
            month = year.months[number]
            cells += [f"{month.files:,}", report.number(month.disk_bytes / 1e6)]
        use = years[_WITH].months[number].uses[bounded]
        cells += [f"{use.files:,}", report.number(use.disk_bytes / 1e6)]
        rows.append(cells)
    head = ["", *_columns(years), f"files of *{bounded}*, {_WITH}", f"MB of *{bounded}*, {_WITH}"]
    return report.table(head, rows)


def _streams(years: Mapping[str, Year]) -> str:
    rows = []
    for stream in LINES_OF:
        cells = [stream]
        for year in years.values():
            use = year.months[-1].uses[stream]
            cells += [f"{use.files:,}", report.number(use.disk_bytes / 1e6)]
        rows.append(cells)
    return report.table(["stream", *_columns(years)], rows)


def _columns(years: Mapping[str, Year]) -> list[str]:
    return [f"{what}, {name}" for name in years for what in ("files", "MB")]


def _aims(found: Found, paced_p99: list[float]) -> list[Aim]:
    year, paced = found.years[_WITH], found.paced[_WITH]
    rewritten = report.ratios(paced.rewritten_bytes, paced.accepted_bytes)
    count = f"{found.paced_records:,} records"
    return [
        Aim.at_most(
            "a simulated year: rewritten bytes by accepted ones",
            3,
            [year.rewritten_bytes / year.accepted_bytes],
        ),
        Aim.at_most(f"{count} at a steady pace: rewritten bytes by accepted ones", 3, rewritten),
        Aim.at_most("the same: ack p99 by that without merging", _ALLOWED, paced_p99),
    ]


SCENARIO = Scenario("year", "A year, and ten million records", Found, measure, render)
