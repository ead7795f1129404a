"""Many streams in one batch: together, one after another, and with `syncfs` instead."""

import asyncio
import ctypes
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import msgspec
import uvloop

from benchmarks import plot, report
from benchmarks.contest import scratch
from benchmarks.engine import ENVELOPE_BYTES
from benchmarks.records import real_looking
from benchmarks.scenario import Aim, Bench, Scenario, Section
from logengine.store.committer import Committer
from logengine.store.pending import Entry
from logengine.store.settings import CommitConfig
from logengine.store.store import Store

_STREAMS = 100
_TURNS = 20  # of each way in each round
_GROWTH = (1, 10, 100, 1000)
_GROWTH_TURNS = 5
_TOGETHER, _IN_TURN, _SYNCFS = "one batch", "one after another", "syncfs"
_HEADER_BYTES = 300  # the approximate size of a segment's header
_TIMESTAMP = "2026-11-23T20:00:00.000123Z"
_STORED = real_looking(blocks=1).record + b" " * ENVELOPE_BYTES


class Found(msgspec.Struct):
    """Milliseconds for a record in each stream, and microseconds per record, by streams."""

    ms: dict[str, list[float]]
    growth_us: dict[int, list[float]]


class _Engine:
    """The engine's own store and committer, in this process."""

    uid = 1000

    def __init__(self, store: Store, tasks: asyncio.TaskGroup) -> None:
        self._committer = Committer(store, CommitConfig(), tasks)
        self._number = 0

    def durable(self, number: int) -> None:
        """Receives the committer's notification for a sender."""

    async def commit_s(self, streams: Sequence[str]) -> float:
        """Seconds to commit one record in each of `streams`, in one batch."""
        began = time.perf_counter()
        self._number += 1
        for stream in streams:
            self._committer.add(stream, Entry(_STORED, 1, _TIMESTAMP, self._number, self))
        await self._committer.drained()
        return time.perf_counter() - began


class _SyncFs:
    """The same files, made durable by two syncs of the whole file system. Only for comparison."""

    def __init__(self, root: Path, streams: Sequence[str]) -> None:
        self._directories = [root / stream for stream in streams]
        for directory in self._directories:
            directory.mkdir(parents=True)
        self._root = os.open(root, os.O_RDONLY)
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._content = b" " * _HEADER_BYTES

    def commit_s(self) -> float:
        """Seconds to commit one more record in each stream."""
        self._content += _STORED
        began = time.perf_counter()
        for directory in self._directories:
            (directory / ".temp").write_bytes(self._content)
        self._sync()
        for directory in self._directories:
            os.replace(directory / ".temp", directory / "file")
        self._sync()
        return time.perf_counter() - began

    def _sync(self) -> None:
        if self._libc.syncfs(self._root):
            raise OSError(ctypes.get_errno(), "syncfs failed")

    def close(self) -> None:
        os.close(self._root)


def measure(bench: Bench) -> Found:
    """All ways in turns, each on its own streams."""
    found = Found(defaultdict(list), {count: [] for count in _GROWTH})
    for _ in bench.each_round("streams"):
        with scratch() as root, ThreadPoolExecutor(CommitConfig().threads) as executor:
            store = Store(root / "data", executor)
            store.open()
            with closing(store):
                uvloop.run(_round(store, root / "syncfs", bench, found))
    return found


async def _round(store: Store, syncfs_root: Path, bench: Bench, found: Found) -> None:
    together, in_turn = (
        [f"{way}-{number}" for number in range(_STREAMS)] for way in ("together", "in-turn")
    )
    took_s: dict[str, list[float]] = {_TOGETHER: [], _IN_TURN: [], _SYNCFS: []}
    async with asyncio.TaskGroup() as tasks:
        engine = _Engine(store, tasks)
        await engine.commit_s(together + in_turn)  # makes their directories
        with closing(_SyncFs(syncfs_root, together)) as syncfs:
            for _ in range(bench.scaled(_TURNS)):
                took_s[_TOGETHER].append(await engine.commit_s(together))
                took_s[_IN_TURN].append(sum([await engine.commit_s([one]) for one in in_turn]))
                took_s[_SYNCFS].append(syncfs.commit_s())
        for count, of_record_us in found.growth_us.items():
            streams = [f"of-{count}-{number}" for number in range(count)]
            await engine.commit_s(streams)
            turns_s = [await engine.commit_s(streams) for _ in range(bench.scaled(_GROWTH_TURNS))]
            of_record_us.append(statistics.median(turns_s) / count * 1e6)
    for way, turns_s in took_s.items():
        found.ms[way].append(statistics.median(turns_s) * 1000)


def render(found: Found, plots: Path) -> Section:
    """A table of the ways, one of the growth, and its plot."""
    in_turn = found.ms[_IN_TURN]
    rows = []
    for way, ms in found.ms.items():
        times = report.ratios(ms, in_turn)
        rows.append([way, report.median(ms, "ms"), report.spread(ms), f"{report.median(times)}x"])
        if way == _TOGETHER:
            work = f"{_STREAMS} streams in one batch, by one after another"
            aim = Aim.at_most(work, 0.6, times)
    path = plots / "streams.svg"
    title = "Cost of a record, one in each stream of a batch"
    medians = [(count, statistics.median(us)) for count, us in found.growth_us.items()]
    plot.lines(path, title, "streams", "microseconds a record", {"logengine": medians}, log_x=True)
    growth = {f"{count:,} streams, us a record": us for count, us in found.growth_us.items()}
    parts = [
        (
            f"One record in each of {_STREAMS} streams, by the engine's own committer and store in "
            "this process, with as many threads as the daemon has by default. *syncfs* writes all "
            "temps, syncs the file system, renames all, and syncs it again; it waits for "
            "whatever else is being written on that file system.\n"
        ),
        report.table(["", "median", "spread", f"by {_IN_TURN}"], rows),
        report.medians(growth),
        report.image(path, title),
    ]
    fewest, most = min(found.growth_us), max(found.growth_us)
    work = f"cost of a record, {most:,} streams in a batch, by {fewest}"
    flat = Aim.flat(work, found.growth_us[most], found.growth_us[fewest])
    return Section("\n".join(parts), [aim, flat])


SCENARIO = Scenario("streams", "Many streams in one batch", Found, measure, render)
