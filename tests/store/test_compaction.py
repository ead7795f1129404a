"""Compaction of a store's streams beside its commits."""

import asyncio
import errno
import hashlib
import math
import os
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pytest
from structlog.testing import capture_logs

from logengine.disk.atomic import is_temp_name
from logengine.disk.directory import Directory
from logengine.disk.segment_file import list_segments, read_header
from logengine.errors import AtomicWriteError
from logengine.format.producers import Producer
from logengine.format.segment import segment_name
from logengine.reading.reader import StreamReader
from logengine.store import opening
from logengine.store.committer import Committer
from logengine.store.pending import Entry
from logengine.store.settings import CommitConfig, LimitsConfig
from logengine.store.store import Store
from logengine.store.stream import recover
from logengine.units import Size
from logengine.upkeep import compaction
from logengine.upkeep.compaction import Compactor
from logengine.upkeep.compaction_plan import CompactionConfig
from logengine.upkeep.retention import Retainer
from logengine.upkeep.retention_plan import Removal, RetentionRule, RetentionRules
from logengine.upkeep.rewrite import CompactionStopped, Pace, Rewriter
from logengine.upkeep.survey import Survey, survey
from logengine.upkeep.verify import verify_stream

if TYPE_CHECKING:
    from logengine.reading.problem import Problem

TIME = "2026-11-23T20:00:00.000001Z"
LIMITS = CompactionConfig(fanout=4, seal_bytes=64_000, seal_after=100, seal_small_after=1000)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


class Waiter:
    uid = 1000

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    def durable(self, number: int) -> None:
        self.reached.set()


@dataclass
class Running:
    """A store with its committer and its compactor."""

    data: Path
    store: Store
    committer: Committer
    compactor: Compactor
    clock: Clock
    executor: ThreadPoolExecutor
    number: int = 0
    lines: dict[str, list[bytes]] = field(default_factory=dict)

    async def commit(self, stream: str = "app", *, records: int = 1, size: int = 100) -> None:
        """Commits a batch of its own, of so many records."""
        lines = []
        for _ in range(records):
            self.number += 1
            lines.append(
                b'{"_ts":"%s","n":%d,"x":"%s"}' % (TIME.encode(), self.number, b"x" * size)
            )
        self.lines.setdefault(stream, []).extend(lines)
        waiter = Waiter()
        body = b"".join(line + b"\n" for line in lines)
        self.committer.add(stream, Entry(body, records, TIME, self.number, waiter, "p"))
        await waiter.reached.wait()

    async def pass_time(self, seconds: float) -> None:
        self.clock.now += seconds
        self.compactor.look()
        await self.compactor.idle()

    def stored(self, stream: str = "app") -> list[bytes]:
        problems: list[Problem] = []
        blocks = list(StreamReader(self.data, stream, problems.append).read())
        assert not problems
        return [line for block in blocks for line in block.lines()]

    def names(self, stream: str = "app") -> list[str]:
        """What is there, without the writers that are opened ahead."""
        sizes: dict[str, int] = {}
        for entry in os.scandir(self.data / stream):
            with suppress(FileNotFoundError):  # a writer ahead that was just closed
                sizes[entry.name] = entry.stat().st_size
        return sorted(name for name, size in sizes.items() if size or not is_temp_name(name))

    def check(self) -> None:
        for stream, lines in self.lines.items():
            assert self.stored(stream) == lines
            assert list(verify_stream(self.data / stream)) == []


@asynccontextmanager
async def running(
    data: Path, store_limits: LimitsConfig | None = None, *, compacts: bool = True
) -> AsyncIterator[Running]:
    clock = Clock()
    with ThreadPoolExecutor(2) as executor, ThreadPoolExecutor(1) as compacting:
        store = Store(data, executor, CommitConfig(rewrite_limit=1000), store_limits)
        store.open()
        async with asyncio.TaskGroup() as tasks:
            committer = Committer(store, CommitConfig(retry_min=0.001, retry_max=0.01), tasks)
            rewriter = Rewriter(
                data, Pace(math.inf), names=store.names, direct_above=16_000, level=1
            )
            compactor = Compactor(store, committer, rewriter, LIMITS, compacting, clock)
            if compacts:
                tasks.create_task(compactor.run())
            try:
                yield Running(data, store, committer, compactor, clock, executor)
            finally:
                if compacts:
                    await compactor.stop()
                await committer.close()
                store.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def test_small_segments_become_large_ones_and_those_are_sealed(data: Path) -> None:
    async with running(data) as at:
        for _ in range(200):
            await at.commit(records=9)
        await at.compactor.idle()
        at.check()
        headers = [read_header(data / "app", first) for first in list_segments(data / "app")]
        sealed = [header.is_sealed for header in headers]
        assert sealed == sorted(sealed, reverse=True)
        assert sum(sealed) >= 2
        assert len(headers) < 20
        assert all(64_000 <= header.bytes <= 128_000 for header in headers if header.is_sealed)
        assert headers[-1].producers_of == {1000: {"p": at.number}}


async def test_the_active_segment_is_never_touched(data: Path) -> None:
    async with running(data) as at:
        for _ in range(30):
            await at.commit(records=8)
            await at.commit()
            await at.compactor.idle()
            newest = list_segments(data / "app")[-1]
            assert read_header(data / "app", newest).last == at.number
        at.check()


async def test_a_stream_gone_quiet_is_sealed_and_goes_on(data: Path) -> None:
    async with running(data) as at:
        await at.commit(records=50)
        await at.pass_time(101)
        assert at.names() == [segment_name(1, compressed=True)]
        await at.commit()
        assert at.names() == [segment_name(1, compressed=True), segment_name(51)]
        at.check()


async def test_what_is_little_is_left_for_longer(data: Path) -> None:
    async with running(data) as at:
        await at.commit()
        await at.pass_time(101)
        await at.pass_time(800)
        assert at.names() == [segment_name(1)]
        await at.pass_time(101)
        assert at.names() == [segment_name(1, compressed=True)]


async def test_a_segment_without_records_is_left_to_the_commits(data: Path) -> None:
    async with running(data) as at:
        await at.commit(records=50)
        await at.pass_time(101)
        await at.commit(records=0)
        await at.pass_time(2000)
        assert at.names() == [segment_name(1, compressed=True), segment_name(51)]
        await at.commit()
        at.check()


async def test_a_stream_without_records_that_the_store_forgets_is_forgotten(data: Path) -> None:
    async with running(data, LimitsConfig(active_cache=Size(0))) as at:
        waiter = Waiter()
        at.committer.add("app", Entry(b"", 0, TIME, 1, waiter, "p"))
        await waiter.reached.wait()
        await at.commit("other")
        assert at.store.forget_unused("app")
        await at.pass_time(LIMITS.seal_small_after + 1)
        assert not at.compactor.totals.failures
        await at.commit("app")
        await at.pass_time(LIMITS.seal_small_after + 1)
        assert not at.compactor.totals.failures
        at.check()


async def test_a_stream_found_at_the_start_is_compacted(data: Path) -> None:
    async with running(data, compacts=False) as at:
        for _ in range(100):
            await at.commit(records=9)
        lines = at.lines
        assert len(at.names()) == 100
    async with running(data) as at:
        at.lines = lines
        await at.compactor.idle()
        assert len(at.names()) < 20
        at.check()
        at.number = 900
        await at.commit()
        at.check()
        assert at.store.last_durable("app", Producer(1000, "p")) == 901


async def test_streams_that_press_on_the_cache_are_compacted_too(data: Path) -> None:
    async with running(data, LimitsConfig(active_cache=300)) as at:
        for _ in range(40):
            for stream in ("app", "web", "audit"):
                await at.commit(stream)
        await at.compactor.idle()
        assert max(len(at.names(stream)) for stream in at.lines) <= 2 * LIMITS.fanout + 8
        await at.pass_time(2000)
        for stream in at.lines:
            assert at.names(stream) == [segment_name(1, compressed=True)]
        at.check()


async def test_a_damaged_segment_is_not_merged_and_nothing_is_sealed_behind_it(data: Path) -> None:
    async with running(data, compacts=False) as at:
        for _ in range(100):
            await at.commit(records=9)
    firsts = list_segments(data / "app")
    damaged = data / "app" / segment_name(firsts[20])
    content = bytearray(damaged.read_bytes())
    content[-3] ^= 1
    damaged.write_bytes(content)
    with capture_logs() as logs:
        async with running(data) as at:
            await at.pass_time(2000)
            names = at.names()
    assert damaged.read_bytes() == content
    assert [log["path"] for log in logs if log["event"] == "segment_damaged"] == [str(damaged)]
    sealed = [name for name in names if name.endswith(".zst")]
    plain = [name for name in names if not name.endswith(".zst")]
    assert max(sealed, default="") < damaged.name
    assert len(plain) < 40
    findings = [finding for finding in verify_stream(data / "app") if not finding.harmless]
    assert [finding.path for finding in findings] == [str(damaged)]


def failing(name: str, error: int, only: Callable[[Any], bool]) -> Any:
    real = getattr(os, name)

    def call(target: Any, *args: Any, **kwargs: Any) -> Any:
        if only(target):
            raise OSError(error, os.strerror(error), str(target))
        return real(target, *args, **kwargs)

    return patch.object(os, name, call)


@pytest.mark.parametrize(
    ("call", "error"),
    [("writev", errno.ENOSPC), ("fsync", errno.EIO), ("replace", errno.EIO), ("unlink", errno.EIO)],
)
async def test_a_compaction_that_fails_harms_nothing_and_is_tried_again(
    data: Path, call: str, error: int
) -> None:
    async with running(data) as at:
        await at.commit(records=50)
        with capture_logs() as logs, failing(call, error, lambda _: True):
            await at.pass_time(101)
            await at.pass_time(10)
            await at.pass_time(10)
        assert at.stored() == at.lines["app"]
        events = [log["event"] for log in logs]
        assert events.count("compaction_failed") == 1
        assert at.compactor.totals.failures == 3
        await at.pass_time(100)
        assert at.names() == [segment_name(1, compressed=True)]
        at.check()


async def test_what_an_interrupted_seal_left_is_cleared_up(data: Path) -> None:
    async with running(data) as at:
        await at.commit(records=50)
        plain = (data / "app" / segment_name(1)).read_bytes()
        await at.pass_time(101)
        lines = at.lines
    (data / "app" / segment_name(1)).write_bytes(plain)
    before = hashlib.sha256((data / "app" / segment_name(1, compressed=True)).read_bytes())
    async with running(data) as at:
        at.lines = lines
        await at.compactor.idle()
        assert at.names() == [segment_name(1, compressed=True)]
        sealed = (data / "app" / segment_name(1, compressed=True)).read_bytes()
        assert hashlib.sha256(sealed).digest() == before.digest()
        at.check()


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The directories that the compactor looked at, each as often as it did."""
    directories: list[Path] = []

    def noted(directory: Directory, *arguments: Any) -> Survey:
        directories.append(Path(directory.path))
        return survey(directory, *arguments)

    monkeypatch.setattr(compaction, "survey", noted)
    return directories


@pytest.mark.parametrize("records", [1, 90], ids=["appended to", "full at once"])
async def test_a_stream_that_is_sent_to_is_listed_once(
    data: Path, listed: list[Path], records: int
) -> None:
    async with running(data) as at:
        for _ in range(200):
            await at.commit(records=records)
            await at.compactor.idle()
        assert at.compactor.totals.merges
        assert len(listed) == 1
        at.check()


@pytest.mark.parametrize("records", [1, 90], ids=["appended to", "full at once"])
async def test_a_stream_with_too_many_segments_to_be_looked_at_is_listed_seldom(
    data: Path, monkeypatch: pytest.MonkeyPatch, listed: list[Path], records: int
) -> None:
    async with running(data, compacts=False) as at:
        for _ in range(300):
            await at.commit(records=9)
        lines = at.lines
    monkeypatch.setattr("logengine.upkeep.survey._SEGMENTS_MAX", 60)
    async with running(data) as at:
        at.lines, at.number = lines, len(lines["app"])
        for _ in range(50):
            await at.commit(records=records)
        await at.compactor.idle()
        assert len(at.names()) < 60
        assert len(listed) < 20
        at.check()


async def test_commits_of_a_held_stream_wait_and_others_go_on(data: Path) -> None:
    async with running(data) as at:
        await at.commit()
        async with at.committer.held("app"):
            waiting = asyncio.ensure_future(at.commit())
            await at.commit("web")
            assert not waiting.done()
            assert len(at.stored()) == 1
        await waiting
        at.check()


async def test_what_is_compacted_takes_its_name_while_no_commit_touches_the_stream(
    data: Path,
) -> None:
    async with running(data) as at:
        publish = compaction._publish_in_place_of
        held: list[bool] = []

        def publish_and_note(*arguments: Any) -> None:
            held.append(at.committer._stream_locks.is_held("app"))
            publish(*arguments)

        with patch.object(compaction, "_publish_in_place_of", publish_and_note):
            for _ in range(2):
                await at.commit(records=90)
            await at.pass_time(2000)
        assert held
        assert all(held)
        at.check()


async def test_a_stop_ends_a_rewriting_at_once(data: Path) -> None:
    async with running(data) as at:
        at.compactor._rewriter.pace = Pace(1)  # a byte a second
        await at.commit(records=50)
        at.clock.now += 101
        at.compactor.look()
        await at.compactor.stop()
        assert not [name for name in at.names() if name.startswith(".")]
        at.check()


async def test_a_stop_ends_a_writing_and_leaves_no_temp(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(data) as at:
        await at.commit(records=400)
        monkeypatch.setattr(at.compactor._rewriter, "_direct_above", 0)
        pace = at.compactor._rewriter.pace
        real = pace.rest

        def stop_or_rest(count: int) -> None:
            if any((data / "app").glob(".*")):  # the temp of what is written
                pace.stop()
            real(count)

        monkeypatch.setattr(pace, "rest", stop_or_rest)
        at.clock.now += 101
        at.compactor.look()
        assert await asyncio.to_thread(pace._stopping.wait, 20)
        await at.compactor.stop()
        assert not [name for name in at.names() if name.startswith(".")]
        at.check()


def test_a_pace_that_was_stopped_waits_no_longer() -> None:
    pace = Pace(1, clock=lambda: 0.0)  # a byte a second
    pace.stop()
    pace.rest_or_hurry(1_000_000)
    with pytest.raises(CompactionStopped):
        pace.rest(1_000_000)


@pytest.mark.parametrize("kind", ["merge", "seal"])
@pytest.mark.parametrize("is_gone_when", ["read", "prepared"])
async def test_what_was_made_of_dropped_segments_is_given_up(
    data: Path, monkeypatch: pytest.MonkeyPatch, kind: str, is_gone_when: str
) -> None:
    async with running(data) as at:
        made, go_on = asyncio.Event(), threading.Event()
        loop = asyncio.get_running_loop()
        rewrite = getattr(at.compactor._rewriter, kind)

        def stop_there() -> None:
            if not made.is_set():
                loop.call_soon_threadsafe(made.set)
                assert go_on.wait(60)

        def rewritten(*arguments: Any) -> Any:
            if is_gone_when == "read":
                stop_there()
                return rewrite(*arguments)
            result = rewrite(*arguments)
            stop_there()
            return result

        monkeypatch.setattr(at.compactor._rewriter, kind, rewritten)
        with capture_logs() as logs:
            while not made.is_set():
                await at.commit(records=9)
            async with at.committer.held("app"):
                dropped = await at.store.drop_oldest("app", 1)
            assert [segment.first for segment in dropped] == [1]
            at.lines["app"] = at.lines["app"][dropped[-1].last :]
            go_on.set()
            await at.compactor.idle()
            at.check()
            await at.pass_time(2000)
        at.check()
        assert all(name.endswith(".zst") for name in at.names())
        assert not at.compactor.totals.failures
        assert not [log for log in logs if log["event"] == "segment_damaged"]


async def test_a_seal_does_not_name_one_that_was_dropped(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(data) as at:
        await at.commit(records=9)
        await at.pass_time(2000)
        for _ in range(3):
            await at.commit(records=9)
        async with at.committer.held("app"):
            (dropped,) = await at.store.drop_oldest("app", 1)
        assert dropped.last == 9
        at.lines["app"] = at.lines["app"][dropped.last :]
        await at.pass_time(2000)
        assert read_header(data / "app", 10).prev == ""
        at.check()


async def test_drops_beside_compactions_leave_a_whole_end_of_the_stream(data: Path) -> None:
    async with running(data) as at:
        dropped_to = 0
        for turn in range(400):
            await at.commit(records=1 + turn % 9)
            if turn % 7 == 6:
                async with at.committer.held("app"):
                    dropped = await at.store.drop_oldest("app", 4096)
                dropped_to = max([dropped_to, *(segment.last for segment in dropped)])
            if turn % 50 == 49:
                await at.pass_time(2000)
        await at.compactor.idle()
        assert dropped_to
        assert at.compactor.totals.seals
        assert not at.compactor.totals.failures
        at.lines["app"] = at.lines["app"][dropped_to:]
        at.check()


async def test_retention_passes_over_what_a_drop_took(data: Path) -> None:
    async with running(data) as at:
        for _ in range(3):
            await at.commit(records=9)
            await at.pass_time(2000)
        retainer = Retainer(
            data, RetentionRules(default=RetentionRule(max_age=1.0)), names=at.store.names
        )
        retainer.look()
        removal = retainer.next_removal()
        assert removal is not None
        async with at.committer.held("app"):
            (dropped,) = await at.store.drop_oldest("app", 1)
        assert dropped.last == removal.oldest.last
        assert not retainer.remove(removal)
        following = retainer.next_removal()
        assert following is not None
        assert following.oldest.last > removal.oldest.last


async def test_retention_leaves_what_is_not_sealed(data: Path) -> None:
    async with running(data) as at:
        await at.commit(records=50)
        plain = (data / "app" / segment_name(1)).read_bytes()
        await at.pass_time(101)
        for _ in range(2):
            await at.commit(records=50)
            await at.pass_time(101)
        retainer = Retainer(
            data, RetentionRules(default=RetentionRule(max_age=1.0)), names=at.store.names
        )
        retainer.look()
        assert retainer.next_removal() is not None
        # As somebody left it who unsealed it.
        (data / "app" / segment_name(1)).write_bytes(plain)
        (data / "app" / segment_name(1, compressed=True)).unlink()
        retainer.look()
        assert retainer.next_removal() is None


async def test_retention_removes_while_no_commit_touches_the_stream(data: Path) -> None:
    async with running(data) as at:
        for _ in range(3):
            await at.commit(records=9)
            await at.pass_time(2000)
        retainer = Retainer(
            data, RetentionRules(default=RetentionRule(max_age=1.0)), names=at.store.names
        )
        remove = retainer.remove
        held: list[bool] = []

        def remove_and_note(removal: Removal, on_removed: Callable[[], None]) -> bool:
            held.append(at.committer._stream_locks.is_held("app"))
            return remove(removal, on_removed)

        with patch.object(retainer, "remove", remove_and_note):
            await at.compactor._retain(retainer)
        assert held
        assert all(held)


async def test_the_log_has_what_retention_removed_before_a_sync_failed(data: Path) -> None:
    async with running(data) as at:
        for _ in range(3):
            await at.commit(records=9)
            await at.pass_time(2000)
        retainer = Retainer(
            data, RetentionRules(default=RetentionRule(max_age=1.0)), names=at.store.names
        )
        before = at.names()
        failed = AtomicWriteError(errno.EIO, "injected", "app")
        with (
            capture_logs() as lines,
            # One sync before the removal, and one after it.
            patch.object(Directory, "sync", side_effect=[None, failed]),
        ):
            await at.compactor._retain(retainer)
        assert at.names() == before[1:]
        assert [line.get("segment") for line in lines if line["event"] == "segment_removed"] == [
            before[0]
        ]
        assert at.compactor.totals.removed == 1
        assert "retention_failed" in [line["event"] for line in lines]


async def test_nothing_is_sealed_after_a_seal_that_is_damaged(data: Path) -> None:
    async with running(data) as at:
        for _ in range(2):
            await at.commit(records=50)
            await at.pass_time(101)
        await at.commit(records=50)
    names = [segment_name(1, compressed=True), segment_name(51, compressed=True), segment_name(101)]
    assert at.names() == names
    damaged = data / "app" / names[1]
    damaged.write_bytes(b"{" + damaged.read_bytes()[1:].replace(b'"', b"'", 1))
    async with running(data) as at:
        await at.commit(records=5)
        for _ in range(3):
            await at.pass_time(2000)
        assert not [name for name in at.names() if name.endswith(".zst") and name > names[1]]


async def test_a_compaction_whose_sync_fails_keeps_what_it_covers_from_being_dropped(
    data: Path,
) -> None:
    async with running(data) as at:
        await at.commit(records=9)
        await at.commit(records=90)
        failed = AtomicWriteError(errno.EIO, "Input/output error", "app")
        with patch("logengine.disk.atomic.AtomicWriter.sync_directory", side_effect=failed):
            await at.pass_time(2000)
        assert at.compactor.totals.failures
        assert at.store.unsynced == {"app"}
        assert await at.store.drop_oldest("app", 1) == []
        await at.pass_time(2000)
        at.check()


async def test_a_stream_that_was_recovered_late_is_sealed_without_a_commit(data: Path) -> None:
    async with running(data, compacts=False) as at:
        await at.commit()
    with patch.object(opening, "recover", side_effect=OSError(errno.EIO, "injected")) as recovering:
        async with running(data) as at:
            assert not at.store.is_ready("app")
            recovering.side_effect = recover
            await at.store.recover_stream("app")
            # One that nobody has written to yet has no directory to be looked at.
            await at.store.recover_stream("new")
            await at.pass_time(1)
            await at.pass_time(2000)
            assert at.names() == [segment_name(1, compressed=True)]
            assert at.compactor.totals.failures == 0


async def test_a_rewrite_leaves_the_reserve_free_and_nothing_behind(data: Path) -> None:
    async with running(data, compacts=False) as at:
        for _ in range(3):
            await at.commit(records=9)
        names = at.names()

        def rewriter(reserve: int) -> Rewriter:
            return Rewriter(
                data,
                Pace(math.inf),
                names=at.store.names,
                direct_above=16_000,
                level=1,
                reserve=lambda: reserve,
            )

        with pytest.raises(OSError, match="the rest is left to records") as caught:
            rewriter(2**60).copy("app", 1)
        assert caught.value.errno == errno.ENOSPC
        assert at.names() == names
        rewriter(1).copy("app", 1).abort()
        at.check()
