"""Group commit: what goes into a batch, who is told when, and what a failure does."""

import asyncio
import errno
import math
import os
import threading
from collections import deque
from collections.abc import AsyncIterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from copy import copy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from logengine.disk.segment_file import read_segment
from logengine.format.producers import Producer
from logengine.store import store as store_module
from logengine.store.committer import Committer
from logengine.store.pending import Entry, Pending
from logengine.store.plan import PlannedSegment
from logengine.store.settings import CommitConfig, LimitsConfig
from logengine.store.store import Store
from logengine.store.stream import Recovery
from tests.store.committed import numbers_in, until
from tests.whole_path import whole_path

TIME = "2026-11-23T20:00:00.000001Z"


class Acks:
    """A sender that notes what it is told."""

    def __init__(self, uid: int = 1000) -> None:
        self.uid = uid
        self.numbers: list[int] = []

    def durable(self, number: int) -> None:
        self.numbers.append(number)


def entry(number: int, sender: Acks, size: int = 60, producer: str | None = None) -> Entry:
    body = b'{"_ts":"%s","n":%d}' % (TIME.encode(), number)
    return Entry(body.ljust(size) + b"\n", 1, TIME, number, sender, producer)


@asynccontextmanager
async def committing(
    data: Path, store_limits: LimitsConfig | None = None, **limits: Any
) -> AsyncIterator[tuple[Committer, Store]]:
    with ThreadPoolExecutor(4) as executor, ThreadPoolExecutor(1) as small_executor:
        store = Store(data, executor, limits=store_limits, small_executor=small_executor)
        store.open()
        async with asyncio.TaskGroup() as tasks:
            # A disk that is held would hold the loop, and so the test.
            commit_limits = CommitConfig(**{"in_loop_below": 0, "retry_min": 0.005, **limits})
            committer = Committer(store, commit_limits, tasks)
            yield committer, store
            await committer.close()
        store.close()


async def test_what_arrives_in_one_turn_of_the_loop_is_one_batch(tmp_path: Path) -> None:
    async with committing(tmp_path) as (committer, _):
        acks = Acks()
        for number in range(1, 101):
            committer.add("app", entry(number, acks))
        await committer.drained()
        # Of one batch, one ack: the latest.
        assert acks.numbers == [100]
        assert committer.totals.batches == 1
        assert numbers_in(tmp_path, "app") == list(range(1, 101))


async def test_what_arrives_during_a_commit_is_the_next_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    in_fsync, may_go_on = threading.Event(), threading.Event()

    def fsync(descriptor: int) -> None:
        in_fsync.set()
        assert may_go_on.wait(60)
        real(descriptor)

    async with committing(tmp_path) as (committer, _):
        acks = Acks()
        await committer.barrier("app")
        monkeypatch.setattr(os, "fsync", fsync)
        committer.add("app", entry(1, acks))
        await until(in_fsync.is_set)
        for number in range(2, 50):
            committer.add("app", entry(number, acks))
        may_go_on.set()
        await committer.drained()
        assert acks.numbers[-1] == 49
        assert committer.totals.batches == 2


@pytest.mark.parametrize(
    ("in_loop_below", "entries", "size", "streams", "is_awaited", "by_loop"),
    [
        (math.inf, 1, 60, ["app"], True, True),
        (math.inf, 1, 20_000, ["app"], True, False),
        (math.inf, 2, 60, ["app"], True, False),
        (math.inf, 2, 60, ["app"], False, True),
        (math.inf, 2, 10_000, ["app"], False, False),
        (math.inf, 1, 60, ["app", "web"], True, False),
        (math.inf, 1, 60, ["app", "web"], False, False),
        (1e-9, 1, 60, ["app"], True, False),  # as after a commit that was slow
        (0, 1, 60, ["app"], True, False),
    ],
)
async def test_the_loop_commits_what_arrives_alone_or_is_small_and_not_awaited_on_a_quick_disk(
    in_loop_below: float,
    entries: int,
    size: int,
    streams: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_awaited: bool,
    by_loop: bool,
) -> None:
    real = os.fsync
    threads: set[int] = set()

    def fsync(descriptor: int) -> None:
        threads.add(threading.get_ident())
        real(descriptor)

    async with committing(tmp_path, in_loop_below=in_loop_below) as (committer, _):
        acks = Acks()
        for stream in streams:
            committer.add(stream, entry(1, acks))
        await committer.drained()
        monkeypatch.setattr(os, "fsync", fsync)
        for stream in streams:
            for number in range(2, 2 + entries):
                committer.add(stream, entry(number, acks, size), is_awaited=is_awaited)
        await committer.drained()
        assert ({threading.get_ident()} == threads) is by_loop
        assert by_loop or threading.get_ident() not in threads
        for stream in streams:
            assert numbers_in(tmp_path, stream) == list(range(1, 2 + entries))


async def test_a_commit_by_the_loop_that_fails_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    failures = iter([True, True])

    def fsync(descriptor: int) -> None:
        if next(failures, False):
            raise OSError(errno.EIO, "injected")
        real(descriptor)

    async with committing(tmp_path, in_loop_below=math.inf) as (committer, _):
        acks = Acks()
        committer.add("app", entry(1, acks))
        await committer.drained()
        monkeypatch.setattr(os, "fsync", fsync)
        committer.add("app", entry(2, acks))
        await committer.drained()
        assert acks.numbers == [1, 2]
        assert committer.totals.failures == 2
        assert numbers_in(tmp_path, "app") == [1, 2]


async def test_ack_waits_for_the_directory_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def noted(*args: Any, name: str = name, real: Any = real, **directories: int) -> Any:
            result = real(*args, **directories)
            steps.append(name)
            return result

        monkeypatch.setattr(os, name, noted)
    async with committing(tmp_path) as (committer, _):
        acks = Acks()
        await committer.barrier("app")
        committer.add("app", entry(1, acks))
        await committer.drained()
        steps.clear()

        class Noting(Acks):
            def durable(self, number: int) -> None:
                steps.append("ack")

        committer.add("app", entry(2, Noting()))
        await committer.drained()
    assert steps == ["fsync", "replace", "fsync", "ack"]


async def test_a_stream_that_fails_keeps_its_records_and_the_others_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace
    broken = True

    def replace(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if broken and "/bad/" in whole_path(target, dst_dir_fd):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "replace", replace)
    async with committing(tmp_path) as (committer, _):
        bad, good = Acks(), Acks()
        for number in range(1, 6):
            committer.add("bad", entry(number, bad))
            committer.add("good", entry(number, good))
            await until(lambda number=number: good.numbers[-1:] == [number])  # type: ignore[misc]
        assert bad.numbers == []
        assert not committer.has_room("bad", 10**9)
        assert committer.has_room("good", 1)
        assert committer.pending_bytes == 5 * 61
        broken = False
        await committer.drained()
        assert bad.numbers[-1] == 5
        assert numbers_in(tmp_path, "bad") == [1, 2, 3, 4, 5]
        assert committer.pending_bytes == 0


async def test_retries_rest_longer_each_time_up_to_the_maximum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts: list[float] = []
    loop = asyncio.get_running_loop()

    def fsync(_: int) -> None:
        attempts.append(loop.time())
        raise OSError(errno.EIO, "lost")

    async with committing(tmp_path, retry_max=0.04) as (committer, _):
        committer.add("app", entry(1, Acks()))
        await committer.drained()
        monkeypatch.setattr(os, "fsync", fsync)
        committer.add("app", entry(2, Acks()))
        await until(lambda: len(attempts) == 7)
        monkeypatch.undo()
        await committer.drained()
    pauses = [after - before for before, after in pairwise(attempts)]
    # Each at least its share: 5, 10, 20, 40, 40, 40 ms.
    for pause, least in zip(pauses, [0.005, 0.01, 0.02, 0.04, 0.04, 0.04], strict=True):
        assert pause >= least * 0.9


async def test_the_batch_behind_a_failed_one_comes_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    failures = 2

    def fsync(descriptor: int) -> None:
        nonlocal failures
        if failures:
            failures -= 1
            raise OSError(errno.EIO, "lost")
        real(descriptor)

    async with committing(tmp_path, max_batch=4096, pipeline_bytes=1) as (committer, _):
        acks = Acks()
        await committer.barrier("app")
        committer.add("app", entry(1, acks))
        await committer.drained()
        monkeypatch.setattr(os, "fsync", fsync)
        for number in range(2, 200):
            committer.add("app", entry(number, acks, size=500))
        await committer.drained()
        assert numbers_in(tmp_path, "app") == list(range(1, 200))
        assert acks.numbers == sorted(acks.numbers)


async def test_a_full_batch_starves_no_stream(tmp_path: Path) -> None:
    async with committing(tmp_path, max_batch=4096) as (committer, _):
        loud, quiet = Acks(), Acks()
        for number in range(1, 200):
            committer.add("loud", entry(number, loud, size=1000))
        committer.add("quiet", entry(1, quiet))
        await until(lambda: quiet.numbers == [1])
        assert loud.numbers[-1:] < [199]
        await committer.drained()


async def test_a_producers_number_is_durable_with_its_record(tmp_path: Path) -> None:
    async with committing(tmp_path) as (committer, store):
        committer.add("app", entry(7, Acks(), producer="p"))
        await committer.barrier("app")
        assert store.last_durable("app", Producer(1000, "p")) == 7
        assert store.last_durable("app", Producer(1000, "other")) == 0
        assert store.last_durable("none", Producer(1000, "p")) == 0


async def test_a_producer_with_waiting_records_or_a_connection_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = LimitsConfig(max_producers=4)
    async with committing(tmp_path, limits, max_batch=10) as (committer, store):
        for name in ("waits", "connected", "gone"):
            committer.add("app", entry(1, Acks(), producer=name))
        await committer.drained()
        committer.is_connected = lambda stream, producer: producer.name == "connected"
        states: list[PlannedSegment] = []

        def noted(*arguments: Any) -> PlannedSegment:
            states.append(planned := plan(*arguments))
            return planned

        plan = store.plan
        monkeypatch.setattr(store, "plan", noted)
        for number in range(8):  # each is a batch of its own
            committer.add("app", entry(1, Acks(), producer=f"n{number}"))
        committer.add("app", entry(2, Acks(), producer="waits"))
        await committer.drained()
        assert len(states) == 9
        assert all(Producer(1000, "waits") in each.after.producers for each in states)
        names = ["waits", "connected", "gone"]
        known = [store.last_durable("app", Producer(1000, name)) for name in names]
        assert known == [2, 1, 0]


async def test_all_streams_together_remember_a_bounded_number_of_producers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_FEW_PRODUCERS", 2)
    async with committing(tmp_path, LimitsConfig(max_producers=4)) as (committer, store):
        streams = [f"s{number}" for number in range(40)]
        for number in range(4):
            for stream in streams:
                committer.add(stream, entry(1, Acks(), producer=f"n{number}"))
            await committer.drained()
        counts = [len(store._durable[stream].producers) for stream in streams]
        assert counts == [2] * 40  # at 16 times 4, no stream gets more than the few
        assert store._producers == sum(counts)


async def test_closing_drops_and_counts_what_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    async with committing(tmp_path) as (committer, _):
        acks = Acks()
        monkeypatch.setattr(os, "fsync", fail)
        for number in range(1, 6):
            committer.add("app", entry(number, acks))
        await until(lambda: not committer.has_room("app", 10**9))
        assert await committer.close() == 5
        assert acks.numbers == []


@asynccontextmanager
async def pausing(
    data: Path, monkeypatch: pytest.MonkeyPatch, **limits: Any
) -> AsyncIterator[Committer]:
    """A committer that has just committed, and makes a pause of an hour."""
    monkeypatch.setattr("logengine.store.committer._PAUSE_PER_COMMIT", 1e12)
    async with committing(data, linger=3600, **limits) as (committer, _):
        await committer.barrier("app")
        await committer.barrier("web")
        committer.add("app", entry(1, Acks()))
        await committer.drained()
        async with asyncio.timeout(60):
            yield committer
        committer.hurry()


async def test_entries_that_nobody_waits_for_share_a_batch_after_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pausing(tmp_path, monkeypatch) as committer:
        acks = Acks()
        for number in range(2, 7):
            committer.add("app", entry(number, acks), is_awaited=False)
            committer.add("web", entry(number, acks), is_awaited=False)
            for _ in range(3):
                await asyncio.sleep(0)
        assert committer.totals.batches == 1
        assert not acks.numbers
        committer.commit_now()
        await committer.drained()
        assert committer.totals.batches == 2
        assert acks.numbers == [6, 6]


async def test_an_entry_that_somebody_waits_for_ends_the_pause_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pausing(tmp_path, monkeypatch) as committer:
        patient, waiting = Acks(), Acks()
        committer.add("app", entry(2, patient), is_awaited=False)
        await asyncio.sleep(0)
        committer.add("web", entry(1, waiting))
        await committer.drained()
        assert committer.totals.batches == 2
        assert (patient.numbers, waiting.numbers) == ([2], [1])


async def test_a_barrier_ends_the_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with pausing(tmp_path, monkeypatch) as committer:
        acks = Acks()
        committer.add("app", entry(2, acks), is_awaited=False)
        await committer.barrier("app")
        assert acks.numbers == [2]


async def test_a_pause_ends_when_enough_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pausing(tmp_path, monkeypatch, pipeline_bytes=1000) as committer:
        acks = Acks()
        committer.add("app", entry(2, acks, size=500), is_awaited=False)
        await asyncio.sleep(0)
        assert committer.totals.batches == 1
        committer.add("app", entry(3, acks, size=500), is_awaited=False)
        await committer.drained()
        assert acks.numbers == [3]


async def test_at_a_stop_there_are_no_pauses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pausing(tmp_path, monkeypatch) as committer:
        acks = Acks()
        committer.add("app", entry(2, acks), is_awaited=False)
        committer.hurry()
        await committer.drained()
        committer.add("app", entry(3, acks), is_awaited=False)
        await committer.drained()
        assert acks.numbers == [2, 3]


async def test_a_pause_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("logengine.store.committer._PAUSE_PER_COMMIT", 1e12)
    async with committing(tmp_path, linger=0.05) as (committer, _), asyncio.timeout(60):
        acks = Acks()
        for number in (1, 2, 3):
            committer.add("app", entry(number, acks), is_awaited=False)
            await committer.drained()
        assert acks.numbers == [1, 2, 3]


async def test_a_pause_is_in_proportion_to_the_commit_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logengine.store.committer._PAUSE_PER_COMMIT", 1e-9)
    async with committing(tmp_path, linger=3600) as (committer, _), asyncio.timeout(60):
        acks = Acks()
        for number in (1, 2, 3):
            committer.add("app", entry(number, acks), is_awaited=False)
            await committer.drained()
        assert acks.numbers == [1, 2, 3]


async def test_what_arrived_during_a_commit_is_committed_after_the_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logengine.store.committer._PAUSE_PER_COMMIT", 1e12)
    async with committing(tmp_path, linger=0.05) as (committer, _), asyncio.timeout(60):
        gate = Gate(monkeypatch)
        acks = Acks()
        committer.add("app", entry(1, acks))
        await until(lambda: gate.waiting == 1)
        committer.add("app", entry(2, acks), is_awaited=False)
        gate.open()
        await committer.drained()
        assert acks.numbers == [1, 2]


async def test_what_a_full_batch_left_and_somebody_waits_for_waits_for_no_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pausing(tmp_path, monkeypatch, max_batch=100) as committer:
        acks = Acks()
        for number in range(2, 8):
            committer.add("app", entry(number, acks))
        await committer.drained()
        assert acks.numbers == [3, 5, 7]


async def test_a_retry_of_failing_streams_leaves_others_no_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pausing(tmp_path, monkeypatch, retry_min=3600, retry_max=3600) as committer:
        StreamGate(monkeypatch, tmp_path / "web", failures=1).open()
        failed, acks = Acks(), Acks()
        committer.add("web", entry(1, failed))
        await until(lambda: bool(committer.failing()))
        committer.add("app", entry(2, acks))
        committer.retry_now()
        await committer.drained()
        assert (failed.numbers, acks.numbers) == ([1], [2])


class ClockThatGoesOn:
    """An event loop whose clock passes `when_s` between the first look at it and the second."""

    def __init__(self, loop: asyncio.AbstractEventLoop, when_s: float) -> None:
        self._loop = loop
        self._times = [when_s - 1e-6]
        self._later_s = when_s + 1e-6

    def time(self) -> float:
        return self._times.pop() if self._times else self._later_s

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)


async def test_a_pause_that_ends_between_two_looks_at_the_clock_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with pausing(tmp_path, monkeypatch) as committer:
        acks = Acks()
        committer.add("app", entry(2, acks), is_awaited=False)
        loop = ClockThatGoesOn(committer._loop, committer._next_s)
        assert committer._pause is not None
        committer._pause.cancel()
        monkeypatch.setattr(committer, "_loop", loop)
        committer._end_pause()
        await until(lambda: acks.numbers == [2])


async def test_an_entry_of_no_bytes_waits_for_the_pause_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logengine.store.committer._PAUSE_PER_COMMIT", 1e12)
    async with committing(tmp_path, linger=0.05) as (committer, _):
        acks = Acks()
        committer.add("app", entry(1, acks))
        await committer.drained()
        committer.add("app", Entry(b"", 0, TIME, 2, acks, "p"), is_awaited=False)
        await committer.drained()
        assert acks.numbers == [1, 2]


class Gate:
    """Holds every fsync until it is opened; `failing` ones then fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = os.fsync
        self._open = threading.Event()
        self.waiting = 0
        self.failing = False
        monkeypatch.setattr(os, "fsync", self._fsync)

    def open(self) -> None:
        self._open.set()

    def _fsync(self, descriptor: int) -> None:
        self.waiting += 1
        assert self._open.wait(60)
        if self.failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._real(descriptor)


async def test_three_batches_at_most_are_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path, max_batch=1000, pipeline_bytes=1) as (committer, _):
        acks = Acks()
        committer.add("app", entry(1, acks))
        await committer.drained()
        gate = Gate(monkeypatch)
        for number in range(2, 30):
            committer.add("app", entry(number, acks, size=500))
        await until(lambda: gate.waiting == 3)
        await asyncio.sleep(0.02)
        # All in fsync, and nobody behind them; nothing is acknowledged out of turn.
        assert gate.waiting == len(committer._under_way) == 3
        assert acks.numbers == [1]
        gate.open()
        await committer.drained()
        assert acks.numbers == sorted(set(acks.numbers))
        assert numbers_in(tmp_path, "app") == list(range(1, 30))


async def test_without_enough_to_prepare_the_next_batch_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path, pipeline_bytes=10_000) as (committer, _):
        acks = Acks()
        await committer.barrier("app")
        gate = Gate(monkeypatch)
        committer.add("app", entry(1, acks))
        await until(lambda: gate.waiting == 1)
        for number in range(2, 10):
            committer.add("app", entry(number, acks))
        await asyncio.sleep(0.02)
        assert len(committer._under_way) == 1
        gate.open()
        await committer.drained()
        assert acks.numbers == [1, 9]
        assert committer.totals.batches == 2


async def test_senders_of_one_batch_are_each_told_their_own_latest(tmp_path: Path) -> None:
    async with committing(tmp_path) as (committer, _):
        senders = [Acks() for _ in range(5)]
        for number in range(1, 8):
            for sender in senders:
                committer.add("app", entry(number, sender))
        await committer.drained()
        assert [sender.numbers for sender in senders] == [[7]] * 5
        assert committer.totals.records == 35


async def test_a_barrier_waits_for_what_was_added_before_and_not_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path) as (committer, _):
        acks = Acks()
        await committer.barrier("app")
        assert not (tmp_path / "app").exists(), "a barrier writes nothing"
        gate = Gate(monkeypatch)
        committer.add("app", entry(1, acks))
        barrier = asyncio.ensure_future(committer.barrier("app"))
        await until(lambda: gate.waiting == 1)
        await asyncio.sleep(0.01)
        assert not barrier.done()
        gate.open()
        await barrier
        assert acks.numbers == [1]


async def test_a_stream_that_failed_for_a_barrier_nobody_waits_for_is_read_again(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    async with committing(data, retry_min=0.01, retry_max=0.01) as (committer, store):
        room_again = asyncio.Event()
        committer._on_room = room_again.set
        await committer.barrier("app")
        data.rename(tmp_path / "away")
        barrier = asyncio.ensure_future(committer.barrier("app"))
        await asyncio.sleep(0)
        barrier.cancel()  # the connection that asked for it is gone
        await until(lambda: committer.totals.failures > 0)
        (tmp_path / "away").rename(data)
        await store.reopen()
        # Every sender of the stream may be one that is not read while it fails.
        await until(lambda: not committer.failing())
        assert committer.has_room("app", 1)
        await room_again.wait()
        acks = Acks()
        committer.add("app", entry(1, acks))
        await committer.drained()
        assert acks.numbers == [1]


async def test_a_stream_that_fails_again_while_it_rests_has_one_retry(tmp_path: Path) -> None:
    async with committing(tmp_path) as (committer, _):
        # Also of a recovery that fails while batches are under way: one of these may fail later.
        pending = Pending()
        committer._retry_later("app", pending, 1000)
        first = pending.retry
        committer._retry_later("app", pending, 1000)
        assert first is not None
        assert first.cancelled()
        assert committer._timers == {pending.retry}


async def test_a_barrier_in_a_failing_stream_waits_until_it_recovers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path, retry_max=0.01, pipeline_bytes=0) as (committer, _):
        acks = Acks()
        committer.add("app", entry(1, acks))
        await committer.drained()
        gate = Gate(monkeypatch)
        gate.failing = True
        committer.add("app", entry(2, acks))
        await until(lambda: gate.waiting == 1)
        # Behind the one under way, in a batch of its own that writes nothing.
        barrier = asyncio.ensure_future(committer.barrier("app"))
        await asyncio.sleep(0.01)
        gate.open()
        await until(lambda: committer.totals.failures >= 2)
        assert not barrier.done()
        assert acks.numbers == [1]
        gate.failing = False
        await barrier
        assert acks.numbers == [1, 2]
        assert numbers_in(tmp_path, "app") == [1, 2]


async def test_both_batches_of_a_failing_stream_come_back_in_order_among_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.replace
    broken = True

    def replace(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        if broken and "/bad/" in whole_path(target, dst_dir_fd):
            raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        real(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    async with committing(tmp_path, max_batch=2000, pipeline_bytes=1, retry_max=0.01) as (
        committer,
        _,
    ):
        bad, good = Acks(), Acks()
        for stream, acks in [("bad", bad), ("good", good)]:
            committer.add(stream, entry(1, acks))
        await committer.drained()
        monkeypatch.setattr(os, "replace", replace)
        for number in range(2, 60):
            committer.add("bad", entry(number, bad, size=300))
            committer.add("good", entry(number, good, size=300))
        await until(lambda: good.numbers[-1:] == [59])
        await until(lambda: committer.totals.failures >= 3)
        assert bad.numbers == [1]
        broken = False
        await committer.drained()
        for stream, acks in [("bad", bad), ("good", good)]:
            assert numbers_in(tmp_path, stream) == list(range(1, 60))
            assert acks.numbers == sorted(set(acks.numbers))
            assert acks.numbers[-1] == 59
        assert committer.pending_bytes == committer._waiting_bytes == 0
        assert not committer._pending


async def test_a_failed_directory_sync_is_not_acked_and_doubles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    failures = 3

    def fsync(descriptor: int) -> None:
        nonlocal failures
        if failures and os.path.isdir(f"/proc/self/fd/{descriptor}"):
            failures -= 1
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(descriptor)

    async with committing(tmp_path, retry_max=0.01) as (committer, store):
        acks = Acks()
        committer.add("app", entry(1, acks, producer="p"))
        await committer.drained()
        monkeypatch.setattr(os, "fsync", fsync)
        committer.add("app", entry(2, acks, producer="p"))
        await until(lambda: committer.totals.failures == 1)
        # Visible, and yet neither acknowledged nor counted for a welcome.
        assert numbers_in(tmp_path, "app") == [1, 2]
        assert acks.numbers == [1]
        assert store.last_durable("app", Producer(1000, "p")) == 1
        committer.add("app", entry(3, acks, producer="p"))
        await committer.drained()
        assert failures == 0
        assert numbers_in(tmp_path, "app") == [1, 2, 3]
        assert store.last_durable("app", Producer(1000, "p")) == 3


async def test_the_pause_starts_anew_after_a_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path, retry_max=10) as (committer, _):
        acks = Acks()
        for round_number in range(1, 4):
            with monkeypatch.context() as patch:
                gate = Gate(patch)
                gate.failing = True
                gate.open()
                committer.add("app", entry(round_number, acks))
                before = committer.totals.failures
                await until(lambda before=before: committer.totals.failures == before + 2)  # type: ignore[misc]
            await committer.drained()
            assert acks.numbers == list(range(1, round_number + 1))
            assert committer.has_room("app", 10**9)


async def test_closing_waits_for_the_batch_under_way_and_tells_its_senders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path) as (committer, _):
        acks = Acks()
        await committer.barrier("app")
        gate = Gate(monkeypatch)
        committer.add("app", entry(1, acks))
        await until(lambda: gate.waiting == 1)
        committer.add("app", entry(2, acks))
        committer.add("app", entry(3, acks))
        closing = asyncio.ensure_future(committer.close())
        await asyncio.sleep(0.01)
        assert not closing.done()
        gate.open()
        assert await closing == 2
        assert acks.numbers == [1]
        assert numbers_in(tmp_path, "app") == [1]


async def test_refused_records_alone_are_durable_too(tmp_path: Path) -> None:
    async with committing(tmp_path) as (committer, store):
        acks = Acks()
        committer.add("app", Entry(b"", 0, TIME, 4, acks, "p"))
        await committer.drained()
        assert acks.numbers == [4]
        assert store.last_durable("app", Producer(1000, "p")) == 4
        committer.add("app", entry(5, acks, producer="p"))
        await committer.drained()
        assert numbers_in(tmp_path, "app") == [5]
    async with committing(tmp_path) as (_, store):
        assert store.last_durable("app", Producer(1000, "p")) == 5


async def test_a_flood_into_a_new_stream_fails_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.mkdir
    second_looked, looked = threading.Event(), os.open

    def mkdir(path: Any, *args: Any, **directory: int) -> None:
        if whole_path(path, **directory).endswith("/app"):
            second_looked.wait(0.2)
        real(path, *args, **directory)

    def open_(path: Any, *args: Any, **directory: int) -> int:
        try:
            return looked(path, *args, **directory)
        finally:
            if "/app/" in whole_path(path, **directory):
                second_looked.set()

    monkeypatch.setattr(os, "mkdir", mkdir)
    monkeypatch.setattr(os, "open", open_)
    async with committing(tmp_path, max_batch=1000, pipeline_bytes=1) as (committer, _):
        acks = Acks()
        for number in range(1, 50):
            committer.add("app", entry(number, acks, size=500))
        await committer.drained()
        totals = committer.totals
    assert numbers_in(tmp_path, "app") == list(range(1, 50))
    assert totals.failures == 0


async def test_closing_counts_also_what_fails_in_the_batch_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path) as (committer, _):
        acks = Acks()
        await committer.barrier("app")
        gate = Gate(monkeypatch)
        gate.failing = True
        for number in range(1, 6):
            committer.add("app", entry(number, acks))
        await until(lambda: gate.waiting == 1)
        closing = asyncio.ensure_future(committer.close())
        await asyncio.sleep(0.01)
        gate.open()
        dropped = await closing
    assert acks.numbers == []
    assert dropped == 5


async def test_an_entry_without_records_leaves_the_times_of_its_segment_alone(
    tmp_path: Path,
) -> None:
    async with committing(tmp_path) as (committer, _):
        acks = Acks()
        committer.add("app", Entry(b"", 0, "2026-11-23T19:00:00.000001Z", 1, acks))
        committer.add("app", entry(2, acks))
        committer.add("app", Entry(b"", 0, "2026-11-23T21:00:00.000001Z", 3, acks))
        await committer.drained()
        header, _ = read_segment(tmp_path / "app", 1)
        assert (header.since, header.until, header.latest) == (TIME, TIME, TIME)


class StreamGate:
    """Holds the fsyncs of one stream's files until it is opened; the first to come then fail."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        stream: Path,
        *,
        failures: int,
        error: int = errno.EIO,
    ) -> None:
        self._real = os.fsync
        self._stream = stream
        self._open = threading.Event()
        self._failures = failures
        self._error = error
        self.waiting = 0
        monkeypatch.setattr(os, "fsync", self._fsync)

    def open(self) -> None:
        self._open.set()

    def _fsync(self, descriptor: int) -> None:
        if not os.readlink(f"/proc/self/fd/{descriptor}").startswith(f"{self._stream}/"):
            self._real(descriptor)
            return
        # Which of them fail is settled now: they go on in any order.
        fails = self._failures > 0
        self._failures -= fails
        self.waiting += 1
        assert self._open.wait(60)
        if fails:
            raise OSError(self._error, os.strerror(self._error))
        self._real(descriptor)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
async def test_nothing_is_acknowledged_over_a_hole_that_a_batch_further_back_left(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path, pipeline_bytes=1000) as (committer, _):
        app, web = Acks(), Acks()
        committer.add("app", entry(1, app))
        committer.add("web", entry(1, web))
        await committer.drained()
        gate = StreamGate(monkeypatch, tmp_path / "app", failures=1, error=error)
        committer.add("app", entry(2, app, size=2000))
        await until(lambda: gate.waiting == 1)
        committer.add("web", entry(2, web, size=2000))  # a batch without "app" in between
        await until(lambda: web.numbers[-1] == 2)
        committer.add("app", entry(3, app, size=2000))
        barrier = asyncio.ensure_future(committer.barrier("app"))
        committer.add("web", entry(3, web, size=2000))
        await until(lambda: gate.waiting == 2)
        assert app.numbers == [1]
        assert not barrier.done()
        gate.open()
        await committer.drained()
        await barrier
        assert app.numbers[-1] == 3
        assert numbers_in(tmp_path, "app") == [1, 2, 3]
        assert numbers_in(tmp_path, "web") == [1, 2, 3]
        # The batch that only depended on the failed one did not fail itself.
        assert committer.totals.failures == 1


async def test_a_barrier_alone_waits_for_the_batch_far_back_that_holds_its_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path, pipeline_bytes=1000) as (committer, _):
        app, web = Acks(), Acks()
        committer.add("app", entry(1, app))
        committer.add("web", entry(1, web))
        await committer.drained()
        gate = StreamGate(monkeypatch, tmp_path / "app", failures=1)
        committer.add("app", entry(2, app, size=2000))
        await until(lambda: gate.waiting == 1)
        barrier = asyncio.ensure_future(committer.barrier("app"))
        committer.add("web", entry(2, web, size=2000))
        await until(lambda: len(committer._under_way) == 2)
        await asyncio.sleep(0)
        assert not barrier.done()
        gate.open()
        await barrier
        assert app.numbers == [1, 2], "the barrier was reached before what was added before it"
        await committer.drained()


async def test_one_users_record_waits_for_nothing_of_another_users_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path, max_batch=64_000, pipeline_bytes=1000) as (committer, _):
        loud, quiet = Acks(uid=1001), Acks(uid=1002)
        committer.add("loud", entry(1, loud))
        committer.add("quiet", entry(1, quiet))
        await committer.drained()
        gate = StreamGate(monkeypatch, tmp_path / "loud", failures=0)
        for number in range(2, 200):  # three batches are under way, and more waits
            committer.add("loud", entry(number, loud, size=3000))
        await until(lambda: gate.waiting == 3)
        for number in range(2, 6):
            committer.add("quiet", entry(number, quiet))
            committer.add("loud", entry(198 + number, loud, size=3000))
            await until(lambda number=number: quiet.numbers[-1:] == [number])  # type: ignore[misc]
        assert loud.numbers == [1]
        gate.open()
        await committer.drained()
        assert numbers_in(tmp_path, "loud") == list(range(1, 204))
        assert numbers_in(tmp_path, "quiet") == [1, 2, 3, 4, 5]


async def test_one_users_record_has_a_thread_while_the_many_streams_of_another_take_all_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path) as (committer, _):
        loud, quiet = Acks(uid=1001), Acks(uid=1002)
        streams = [f"loud-{number}" for number in range(20)]
        for stream in streams:
            committer.add(stream, entry(1, loud))
        committer.add("quiet", entry(1, quiet))
        await committer.drained()
        gates = [StreamGate(monkeypatch, tmp_path / stream, failures=0) for stream in streams]
        for stream in streams:
            committer.add(stream, entry(2, loud))
        await until(lambda: sum(gate.waiting for gate in gates) == 4)  # of as many threads
        committer.add("quiet", entry(2, quiet))
        await until(lambda: quiet.numbers == [1, 2])
        assert 2 not in loud.numbers
        for gate in gates:
            gate.open()
        await committer.drained()


async def test_only_a_batch_of_users_with_little_pending_is_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path, max_batch=64_000) as (committer, _):
        loud, quiet = Acks(uid=1001), Acks(uid=1002)
        gates = [StreamGate(monkeypatch, tmp_path / name, failures=0) for name in ("loud", "quiet")]
        assert not committer.commits_small
        committer.add("loud", entry(1, loud, size=30_000))
        await until(lambda: gates[0].waiting == 1)
        assert not committer.commits_small
        committer.add("quiet", entry(1, quiet))
        await until(lambda: gates[1].waiting == 1)
        assert committer.commits_small
        for gate in gates:
            gate.open()
        await committer.drained()
        assert not committer.commits_small


@pytest.mark.parametrize(("is_shared", "largest"), [(True, 3), (False, 10)])
async def test_beside_others_a_user_with_many_streams_has_only_so_many_in_a_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_shared: bool, largest: int
) -> None:
    monkeypatch.setattr("logengine.store.lanes._SHARED_STREAMS_MAX", 3)
    monkeypatch.setattr("logengine.store.lanes._SMALL_STREAMS", 3)
    async with committing(tmp_path) as (committer, _):
        batches: list[int] = []
        start = committer._start

        def noted(taken: Any, *arguments: Any, **options: Any) -> None:
            batches.append(len(taken))
            start(taken, *arguments, **options)

        monkeypatch.setattr(committer, "_start", noted)
        loud, quiet = Acks(uid=1001), Acks(uid=1002)
        streams = [f"loud-{number}" for number in range(10)]
        for stream in streams:
            committer.add(stream, entry(1, loud))
        committer.add("quiet", entry(1, quiet))
        await committer.drained()
        batches.clear()
        gate = StreamGate(monkeypatch, tmp_path / "quiet", failures=0)
        if is_shared:
            committer.add("quiet", entry(2, quiet))
            await until(lambda: gate.waiting == 1)
        for stream in streams:
            committer.add(stream, entry(2, loud))
        await until(lambda: len(loud.numbers) >= 15)  # with fewer streams left it is not large
        gate.open()
        await committer.drained()
        assert max(batches) == largest


async def test_what_waits_after_much_of_another_user_in_its_stream_keeps_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path, max_batch=64_000) as (committer, _):
        loud, quiet = Acks(uid=1001), Acks(uid=1002)
        for stream in ("shared", "apart"):
            await committer.barrier(stream)
        gate = StreamGate(monkeypatch, tmp_path / "shared", failures=0)
        committer.add("shared", entry(1, loud, size=10_000))
        await until(lambda: gate.waiting == 1)
        committer.add("shared", entry(2, quiet))
        committer.add("apart", entry(3, quiet))
        await until(lambda: quiet.numbers == [3])  # not held up by what waits in the other stream
        gate.open()
        await committer.drained()
        assert quiet.numbers == [3, 2]
        assert numbers_in(tmp_path, "shared") == [1, 2]


async def test_one_user_alone_has_one_batch_at_a_time_until_enough_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path, max_batch=64_000, pipeline_bytes=50_000) as (committer, _):
        acks = Acks()
        await committer.barrier("app")
        gate = Gate(monkeypatch)
        committer.add("app", entry(1, acks))
        await until(lambda: gate.waiting == 1)
        for number in range(2, 10):  # more than belongs into a small batch
            committer.add("app", entry(number, acks, size=1000))
        await asyncio.sleep(0.02)
        assert len(committer._under_way) == 1
        gate.open()
        await committer.drained()
        assert committer.totals.batches == 2


async def test_a_stream_whose_disk_hangs_and_fails_again_holds_up_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path, retry_max=0.001) as (committer, _):
        bad, good = Acks(), Acks()
        committer.add("bad", entry(1, bad))
        committer.add("good", entry(1, good))
        await committer.drained()
        first = StreamGate(monkeypatch, tmp_path / "bad", failures=1)
        committer.add("bad", entry(2, bad))
        await until(lambda: first.waiting == 1)
        second = StreamGate(monkeypatch, tmp_path / "bad", failures=0)
        first.open()
        await until(lambda: second.waiting == 1)  # the second attempt hangs
        for number in range(2, 6):
            committer.add("bad", entry(number + 1, bad))
            committer.add("good", entry(number, good))
            await until(lambda number=number: good.numbers[-1:] == [number])  # type: ignore[misc]
        assert bad.numbers == [1]
        second.open()
        await committer.drained()
        assert numbers_in(tmp_path, "bad") == [1, 2, 3, 4, 5, 6]


async def test_a_stream_that_goes_again_fails_no_longer_though_more_of_it_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path, retry_max=0.001) as (committer, _):
        failing: list[list[str]] = []

        class Looking(Acks):
            def durable(self, number: int) -> None:
                super().durable(number)
                failing.append([each.stream for each in committer.failing()])

        acks = Looking()
        committer.add("app", entry(1, acks))
        await committer.drained()
        first = StreamGate(monkeypatch, tmp_path / "app", failures=1)
        committer.add("app", entry(2, acks))
        await until(lambda: first.waiting == 1)
        second = StreamGate(monkeypatch, tmp_path / "app", failures=0)
        first.open()
        await until(lambda: second.waiting == 1)
        assert [each.stream for each in committer.failing()] == ["app"]
        committer.add("app", entry(3, acks))
        second.open()
        await committer.drained()
        assert acks.numbers == [1, 2, 3]
        assert failing == [[], [], []]


async def test_each_batch_that_fails_by_itself_is_counted_and_each_reason_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path, pipeline_bytes=1000, max_batch=1000) as (committer, _):
        acks = Acks()
        committer.add("app", entry(1, acks))
        await committer.drained()
        gate = StreamGate(monkeypatch, tmp_path / "app", failures=3)
        with capture_logs() as logs:
            for number in (2, 3, 4):
                committer.add("app", entry(number, acks, size=2000))
            await until(lambda: gate.waiting == 3)
            gate.open()
            await committer.drained()
        assert committer.totals.failures == 3
        failures = [line for line in logs if line["event"] == "commit_failed"]
        assert [line["log_level"] for line in failures] == ["error", "debug", "debug"]
        recovered = [line for line in logs if line["event"] == "stream_recovered"]
        assert [line["failed_attempts"] for line in recovered] == [1]
        assert numbers_in(tmp_path, "app") == [1, 2, 3, 4]


async def test_many_who_wait_at_one_place_make_the_queue_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path) as (committer, _):
        acks = Acks()
        committer.add("app", entry(1, acks))
        await committer.drained()
        gate = StreamGate(monkeypatch, tmp_path / "app", failures=0)
        committer.add("app", entry(2, acks))
        await until(lambda: gate.waiting == 1)
        barriers = [asyncio.ensure_future(committer.barrier("app")) for _ in range(100)]
        await asyncio.sleep(0)
        barriers[0].cancel()
        assert len(committer._pending["app"].entries) == 1
        gate.open()
        await asyncio.gather(*barriers[1:])
        assert acks.numbers == [1, 2]


async def test_a_barrier_waits_for_all_that_was_added_before_it_also_after_another_barrier(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path, max_batch=1) as (committer, _):
        acks = Acks()
        committer.add("app", entry(1, acks))
        await committer.drained()
        first_batch = StreamGate(monkeypatch, tmp_path / "app", failures=0)

        async def add_and_wait() -> None:
            committer.add("app", entry(2, acks))
            committer.add("app", entry(3, acks))
            await committer.barrier("app")

        # All in one turn of the loop: the first barrier goes with record 2, and 3 after them.
        first = asyncio.ensure_future(committer.barrier("app"))
        second = asyncio.ensure_future(add_and_wait())
        await until(lambda: first_batch.waiting == 1)
        second_batch = StreamGate(monkeypatch, tmp_path / "app", failures=0)
        first_batch.open()
        await until(lambda: second_batch.waiting == 1)
        await first
        assert acks.numbers == [1, 2]
        assert not second.done()
        second_batch.open()
        await second
        assert acks.numbers == [1, 2, 3]


async def test_the_number_of_a_refused_record_is_durable_after_a_failed_commit_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path) as (committer, store):
        acks, others = Acks(), Acks()
        committer.add("app", entry(1, others))
        await committer.drained()
        gate = StreamGate(monkeypatch, tmp_path / "app", failures=1)
        committer.add("app", Entry(b"", 0, TIME, 4, acks, "p"))
        await until(lambda: gate.waiting == 1)
        committer.add("app", entry(2, others))
        gate.open()
        await committer.drained()
        assert committer.totals.failures == 1
        assert acks.numbers == [4]
        assert store.last_durable("app", Producer(1000, "p")) == 4
        assert numbers_in(tmp_path, "app") == [1, 2]


async def test_what_is_held_waits_while_others_are_committed(tmp_path: Path) -> None:
    async with committing(tmp_path) as (committer, _):
        app, web = Acks(), Acks()
        committer.add("app", entry(1, app))
        committer.add("web", entry(1, web))
        await committer.drained()
        async with committer.held("app"):
            committer.add("app", entry(2, app))
            committer.add("web", entry(2, web))
            await until(lambda: web.numbers == [1, 2])
            assert app.numbers == [1]
        await committer.drained()
        assert app.numbers == [1, 2]


async def test_whoever_asks_for_a_stream_while_it_is_recovered_has_it_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path) as (committer, store):
        real = store.recover_stream
        recovering, may_go_on = asyncio.Event(), asyncio.Event()
        held: list[str] = []

        async def recover_stream(stream: str) -> Recovery:
            recovering.set()
            await may_go_on.wait()
            return await real(stream)

        async def hold() -> None:
            async with committer.held("app"):
                held.append("app")

        monkeypatch.setattr(store, "recover_stream", recover_stream)
        acks = Acks()
        committer.add("app", entry(1, acks))
        await recovering.wait()
        holding = asyncio.create_task(hold())
        await asyncio.sleep(0)
        assert held == []
        may_go_on.set()
        try:
            await until(lambda: held == ["app"])
        finally:
            holding.cancel()
        await committer.drained()
        assert acks.numbers == [1]


async def test_what_is_durable_waits_in_its_stream_no_more_while_the_next_batch_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path) as (committer, _):
        acks = Acks()
        committer.add("app", entry(1, acks))
        await committer.drained()
        first_batch = StreamGate(monkeypatch, tmp_path / "app", failures=0)
        committer.add("app", entry(2, acks, size=500))
        await until(lambda: first_batch.waiting == 1)
        second_batch = StreamGate(monkeypatch, tmp_path / "app", failures=0)
        committer.add("app", entry(3, acks, size=60))
        assert committer.bytes_waiting("app") == 501 + 61
        first_batch.open()
        await until(lambda: second_batch.waiting == 1)
        assert committer.bytes_waiting("app") == 61
        second_batch.open()
        await committer.drained()


async def test_a_stream_has_room_below_its_limit_only(tmp_path: Path) -> None:
    async with committing(tmp_path) as (committer, _):
        committer.add("app", entry(1, Acks(), size=60))
        assert not committer.has_room("app", 61)
        assert committer.has_room("app", 62)
        assert committer.has_room("web", 1)
        await committer.drained()
        assert committer.has_room("app", 1)


async def test_the_pause_between_attempts_grows_no_further_than_retry_max(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path, retry_min=0.001, retry_max=0.005) as (committer, _):
        acks = Acks()
        committer.add("app", entry(1, acks))
        await committer.drained()
        gate = StreamGate(monkeypatch, tmp_path / "app", failures=6)
        gate.open()
        with capture_logs() as logs:
            committer.add("app", entry(2, acks))
            await committer.drained()
        pauses_s = [line["retry_in_s"] for line in logs if line["event"] == "commit_failed"]
        assert pauses_s == [0.001, 0.002, 0.004, 0.005, 0.005, 0.005]


async def test_an_outdated_plan_that_no_failure_explains_is_counted_and_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path) as (committer, store):
        acks = Acks()
        committer.add("app", entry(1, acks))
        await committer.drained()
        real = store.commit
        first = iter([True])

        async def commit(
            planned: Mapping[str, PlannedSegment], *args: Any, **kwargs: Any
        ) -> dict[str, Exception]:
            if next(first, False):
                # As if it had been planned on what nobody knows to be durable.
                planned = {
                    stream: segment._replace(before=copy(segment.before))
                    for stream, segment in planned.items()
                }
            return await real(planned, *args, **kwargs)

        monkeypatch.setattr(store, "commit", commit)
        with capture_logs() as logs:
            committer.add("app", entry(2, acks))
            await committer.drained()
        assert committer.totals.failures == 1
        assert [line["log_level"] for line in logs if line["event"] == "commit_failed"] == ["error"]
        assert acks.numbers == [1, 2]
        assert numbers_in(tmp_path, "app") == [1, 2]


async def test_nothing_is_committed_after_the_close(tmp_path: Path) -> None:
    acks = Acks()
    async with committing(tmp_path) as (committer, _):
        committer.add("app", entry(1, acks))
        await committer.drained()
        await committer.close()
        committer.add("app", entry(2, acks))
        for _turn in range(5):
            await asyncio.sleep(0)
    assert acks.numbers == [1]
    assert numbers_in(tmp_path, "app") == [1]


async def test_the_loop_commits_nothing_while_another_batch_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path, in_loop_below=math.inf, pipeline_bytes=1) as (committer, _):
        app, web = Acks(), Acks()
        for stream, acks in [("app", app), ("web", web)]:
            committer.add(stream, entry(1, acks))
        await committer.drained()
        gate = StreamGate(monkeypatch, tmp_path / "app", failures=0)
        for number in (2, 3):  # two entries are nothing that the loop commits
            committer.add("app", entry(number, app))
        await until(lambda: gate.waiting == 1)
        real = os.fsync
        threads: set[int] = set()

        def fsync(descriptor: int) -> None:
            threads.add(threading.get_ident())
            real(descriptor)

        monkeypatch.setattr(os, "fsync", fsync)
        committer.add("web", entry(2, web))
        await until(lambda: web.numbers == [1, 2])
        assert threads
        assert threading.get_ident() not in threads
        gate.open()
        await committer.drained()


async def test_the_loop_commits_nothing_while_more_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.fsync
    by_loop: list[bool] = []

    def fsync(descriptor: int) -> None:
        by_loop.append(threading.get_ident() == loop_thread)
        real(descriptor)

    loop_thread = threading.get_ident()
    async with committing(tmp_path, in_loop_below=1e9, max_batch=1) as (committer, _):
        acks = Acks()
        committer.add("app", entry(1, acks))
        await committer.drained()
        monkeypatch.setattr(os, "fsync", fsync)
        committer.add("app", entry(2, acks))
        committer.add("app", entry(3, acks))
        await committer.drained()
        assert acks.numbers == [1, 2, 3]
        assert not by_loop[0]


@pytest.mark.parametrize(
    ("uid", "name", "has_records"),
    [(1000, "p", True), (None, "p", True), (1001, "p", False), (None, "other", False)],
)
def test_a_producer_of_an_old_file_with_waiting_records_is_not_forgotten(
    uid: int | None, name: str, has_records: bool
) -> None:
    pending = Pending(entries=deque([entry(1, Acks(), producer="p")]))
    assert pending.has_records_of(Producer(uid, name)) is has_records
    pending = Pending(returned=[entry(1, Acks(), producer="p")])
    assert pending.has_records_of(Producer(uid, name)) is has_records


async def test_a_segment_says_when_its_first_and_its_last_record_came(tmp_path: Path) -> None:
    earlier, later = "2026-11-23T19:00:00.000001Z", "2026-11-23T21:00:00.000001Z"
    async with committing(tmp_path) as (committer, _):
        acks = Acks()
        for number, time in enumerate([TIME, earlier, later, TIME], start=1):
            body = b'{"_ts":"%s","n":%d}\n' % (time.encode(), number)
            committer.add("app", Entry(body, 1, time, number, acks))
        await committer.drained()
        header, _ = read_segment(tmp_path / "app", 1)
        assert (header.since, header.until) == (earlier, later)
