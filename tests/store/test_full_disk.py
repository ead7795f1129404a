"""A stream that drops its oldest segments on a full disk: what goes, and what never does."""

import asyncio
import errno
import os
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
from structlog.testing import capture_logs

from logengine.disk.segment_file import list_segments
from logengine.format.producers import Producer
from logengine.format.segment import segment_name
from logengine.store.committer import Committer
from logengine.store.drop_oldest import StoredSegment
from logengine.store.pending import Entry
from logengine.store.settings import CommitConfig
from logengine.store.store import Store
from logengine.store.stream import drop_oldest, recover
from logengine.upkeep.verify import verify_stream
from tests.store.committed import numbers_in, until
from tests.unnoted import unnoted

TIME = "2026-11-23T20:00:00.000001Z"
DROPPED = "oldest_segments_dropped"
OLD = 40  # records there before the disk is full, each a segment of its own


class Disk:
    """Full from a byte on: a temp that would take more cannot be given its name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
        self._data = data
        self._replace = os.replace
        self.capacity_bytes = 10**12
        self.refused = 0
        self.reason = errno.ENOSPC
        monkeypatch.setattr(os, "replace", self.replace)

    def taken_bytes(self) -> int:
        return sum(path.stat().st_blocks * 512 for path in self._data.rglob("*") if path.is_file())

    def replace(self, source: str, target: str, **directories: int) -> None:
        if self.taken_bytes() > self.capacity_bytes:
            self.refused += 1
            raise OSError(self.reason, os.strerror(self.reason))
        self._replace(source, target, **directories)

    def fill(self) -> None:
        self.capacity_bytes = self.taken_bytes()


class Acks:
    uid = 1000

    def __init__(self) -> None:
        self.number = 0

    def durable(self, number: int) -> None:
        self.number = number


def entry(number: int, sender: Acks, producer: str | None = None) -> Entry:
    body = b'{"_ts":"%s","n":%d}\n' % (TIME.encode(), number)
    return Entry(body, 1, TIME, number, sender, producer)


@asynccontextmanager
async def committing(
    data: Path, drops: Callable[[str], bool], **limits: Any
) -> AsyncIterator[Committer]:
    with ThreadPoolExecutor(2) as executor:
        # Every commit a segment of its own.
        store = Store(data, executor, CommitConfig(rewrite_limit=1))
        store.open()
        async with asyncio.TaskGroup() as tasks:
            config = CommitConfig(
                **{"in_loop_below": 0, "retry_min": 0.001, "retry_max": 0.01, **limits}
            )
            committer = Committer(store, config, tasks, drops_oldest=drops)
            yield committer
            await committer.close()
        store.close()


async def grow(committer: Committer, stream: str) -> Acks:
    acks = Acks()
    for number in range(1, OLD + 1):
        committer.add(stream, entry(number, acks, "p"))
        await committer.drained()
    return acks


async def let_others_go() -> None:
    """Whoever is ready goes as far as he can without a thread."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT])
async def test_the_oldest_go_and_what_comes_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    disk = Disk(monkeypatch, tmp_path)
    disk.reason = reason
    async with committing(tmp_path, lambda _: True) as committer:
        acks = await grow(committer, "app")
        disk.fill()
        for number in range(OLD + 1, 3 * OLD):
            committer.add("app", entry(number, acks, "p"))
            await committer.drained()
            assert acks.number == number
        assert disk.refused
        left = numbers_in(tmp_path, "app")
        # The newest, with no hole, and never more gone than was counted.
        assert left == list(range(left[0], 3 * OLD))
        assert committer.totals.dropped_records == left[0] - 1 > 0
        assert all(finding.harmless for finding in verify_stream(tmp_path / "app"))
    async with committing(tmp_path, lambda _: True) as committer:
        # Sequence numbers and producers are what they were.
        committer.add("app", entry(3 * OLD, Acks()))
        await committer.drained()
        assert list_segments(tmp_path / "app")[-1] == 3 * OLD
        assert committer._store.last_durable("app", Producer(1000, "p")) == 3 * OLD - 1


async def test_while_the_disk_stays_full_each_further_drop_is_followed_by_a_pause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logengine.store.committer._ROOM_MARGIN_BYTES", 1)
    disk = Disk(monkeypatch, tmp_path)
    async with committing(tmp_path, lambda _: True, retry_min=3600, retry_max=3600) as committer:
        acks = await grow(committer, "app")
        disk.capacity_bytes = 0  # another program takes what is freed
        committer.add("app", entry(OLD + 1, acks, "p"))
        pending = committer._pending["app"]
        await until(lambda: disk.refused > 1 and pending.retry is not None)
        assert pending.retry is not None
        assert pending.retry.when() > asyncio.get_running_loop().time() + 1000
        assert disk.refused == 2
        assert len(numbers_in(tmp_path, "app")) == OLD - 2
        disk.capacity_bytes = 10**12
        committer.retry_now()
        await committer.drained()


async def test_a_stream_that_blocks_loses_nothing_for_another_that_drops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, tmp_path)
    async with committing(tmp_path, lambda stream: stream == "drops") as committer:
        kept, dropping = await grow(committer, "keeps"), await grow(committer, "drops")
        disk.fill()
        committer.add("keeps", entry(OLD + 1, kept))
        await until(lambda: disk.refused > 3)
        assert kept.number == OLD
        assert committer.lacks_space()
        assert numbers_in(tmp_path, "keeps") == list(range(1, OLD + 1))
        committer.add("drops", entry(OLD + 1, dropping))
        await until(lambda: dropping.number == OLD + 1)
        disk.capacity_bytes = 10**12
        await committer.drained()
        assert numbers_in(tmp_path, "keeps") == list(range(1, OLD + 2))
        assert not committer.lacks_space()


async def test_the_newest_segment_stays_however_little_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, tmp_path)
    async with committing(tmp_path, lambda _: True) as committer:
        acks = await grow(committer, "app")
        disk.capacity_bytes = 0
        committer.add("app", entry(OLD + 1, acks))
        await until(lambda: disk.refused > 5)
        assert numbers_in(tmp_path, "app") == [OLD]
        assert acks.number == OLD
        disk.capacity_bytes = 10**12
        await committer.drained()
        assert numbers_in(tmp_path, "app") == [OLD, OLD + 1]


async def test_a_failure_that_is_no_lack_of_space_drops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, tmp_path)
    disk.reason = errno.EIO
    async with committing(tmp_path, lambda _: True) as committer:
        acks = await grow(committer, "app")
        disk.fill()
        committer.add("app", entry(OLD + 1, acks))
        await until(lambda: disk.refused > 3)
        assert not committer.lacks_space()
        disk.capacity_bytes = 10**12
        await committer.drained()
        assert numbers_in(tmp_path, "app") == list(range(1, OLD + 2))


async def test_the_directory_is_synced_after_each_that_goes_and_the_order_is_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    disk = Disk(monkeypatch, tmp_path)
    async with committing(tmp_path, lambda _: True) as committer:
        acks = await grow(committer, "app")
        disk.fill()
        unlink, fsync = os.unlink, os.fsync

        def noted_unlink(path: str, *, dir_fd: int) -> None:
            unlink(path, dir_fd=dir_fd)
            if not os.path.basename(path).startswith("."):
                steps.append(os.path.basename(path)[:20])

        def noted_fsync(descriptor: int) -> None:
            fsync(descriptor)
            if os.path.isdir(f"/proc/self/fd/{descriptor}"):
                steps.append("sync")

        monkeypatch.setattr(os, "unlink", noted_unlink)
        monkeypatch.setattr(os, "fsync", noted_fsync)
        committer.add("app", entry(OLD + 1, acks))
        await committer.drained()
        dropped = list(steps)  # a stop removes files of its own
    unlinked = [step for step in dropped if step != "sync"]
    assert unlinked == [f"{first:020d}" for first in range(1, len(unlinked) + 1)]
    for step, following in pairwise(dropped):
        assert step == "sync" or following == "sync"


async def test_a_drop_waits_for_whoever_holds_the_stream_and_he_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, tmp_path)
    async with committing(tmp_path, lambda _: True) as committer:
        acks = await grow(committer, "app")
        drop, inside, begun, go_on = committer._store.drop_oldest, 0, 0, asyncio.Event()

        async def watched(stream: str, wanted_bytes: int) -> list[StoredSegment]:
            nonlocal begun
            begun += 1
            assert not inside
            await go_on.wait()
            return await drop(stream, wanted_bytes)

        async def hold() -> None:
            nonlocal inside
            async with committer.held("app"):
                inside += 1
                await let_others_go()
                inside -= 1

        monkeypatch.setattr(committer._store, "drop_oldest", watched)
        disk.fill()
        committer.add("app", entry(OLD + 1, acks))
        # The commit is under way, and fails: he is let through before the drop begins.
        while not committer._under_way:  # noqa: ASYNC110 - what it waits for tells no event
            await asyncio.sleep(0)
        async with committer.held("app"):
            inside += 1
            assert committer.failing()
            await let_others_go()
            inside -= 1
        assert begun == 0
        await until(lambda: begun == 1)
        holding = [asyncio.create_task(hold()) for _ in range(2)]
        await let_others_go()
        assert not inside
        go_on.set()
        await asyncio.gather(*holding)
        await committer.drained()
        assert acks.number == OLD + 1
        left = numbers_in(tmp_path, "app")
        assert left == list(range(left[0], OLD + 2))


async def test_a_drop_tells_of_the_cursors_that_it_passes_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, tmp_path)
    async with committing(tmp_path, lambda _: True) as committer:
        acks = await grow(committer, "app")
        (tmp_path / ".cursors").mkdir()
        (tmp_path / ".cursors" / "slow").write_text("app:1\n")
        (tmp_path / ".cursors" / "quick").write_text(f"app:{OLD}\n")
        disk.fill()
        with capture_logs() as logs:
            committer.add("app", entry(OLD + 1, acks))
            await committer.drained()
            await committer.close()
    (told,) = [log for log in logs if log["event"] == "removed_before_it_was_read"]
    assert told["cursors"] == ["slow"]


async def test_streams_that_rest_can_be_tried_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch, tmp_path)
    with ThreadPoolExecutor(2) as executor:
        store = Store(tmp_path, executor)
        store.open()
        async with asyncio.TaskGroup() as tasks:
            committer = Committer(store, CommitConfig(retry_min=3600, retry_max=3600), tasks)
            acks = Acks()
            disk.capacity_bytes = -1
            committer.add("app", entry(1, acks))
            await until(lambda: bool(committer.failing()))
            disk.capacity_bytes = 10**12
            committer.retry_now()
            await committer.drained()
            assert acks.number == 1
            await committer.close()
        store.close()


async def test_what_went_before_a_failing_sync_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path, lambda _: True) as committer:
        await grow(committer, "app")
    fsync = os.fsync
    syncs = 0

    def fails_at_the_fourth(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        if syncs == 4:
            raise OSError(errno.EIO, "injected")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fails_at_the_fourth)
    names = unnoted()
    dropped = drop_oldest(tmp_path / "app", 10 * 4096, OLD + 1, names)
    # One sync before the first, and one for each. The one whose sync failed is gone as well.
    assert [segment.first for segment in dropped] == [1, 2, 3]
    assert list_segments(tmp_path / "app")[0] == 4
    assert names.unsynced == {"app"}
    syncs = 3
    with pytest.raises(OSError, match="injected"):
        drop_oldest(tmp_path / "app", 10 * 4096, OLD + 1, names)


@pytest.mark.parametrize("error", [errno.EIO, errno.EMFILE])
async def test_a_drop_ends_where_the_disk_does_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    async with committing(tmp_path, lambda _: True) as committer:
        await grow(committer, "app")
    pread = os.pread
    at = 3

    def fails(descriptor: int, count: int, offset: int) -> bytes:
        if os.readlink(f"/proc/self/fd/{descriptor}").endswith(segment_name(at)):
            raise OSError(error, "injected")
        return pread(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", fails)
    # The second stays too: nobody knows whether it is the last that is durable.
    assert [each.first for each in drop_oldest(tmp_path / "app", 10**9, OLD + 1, unnoted())] == [1]
    at = 2
    with pytest.raises(OSError, match=segment_name(2) if error == errno.EIO else "injected"):
        drop_oldest(tmp_path / "app", 10**9, OLD + 1, unnoted())


async def test_a_drop_goes_past_what_is_damaged(tmp_path: Path) -> None:
    async with committing(tmp_path, lambda _: True) as committer:
        await grow(committer, "app")
    (tmp_path / "app" / segment_name(2)).write_bytes(b"?")
    gone = [each.first for each in drop_oldest(tmp_path / "app", 10**9, OLD + 1, unnoted())]
    assert gone == [1, *range(3, OLD)]


async def test_where_a_sync_failed_nothing_more_is_dropped(tmp_path: Path) -> None:
    async with committing(tmp_path, lambda _: True) as committer:
        await grow(committer, "app")
        store = committer._store
        with pytest.MonkeyPatch.context() as patch:
            fails = OSError(errno.EIO, "injected")
            patch.setattr(os, "fsync", Mock(side_effect=fails))
            with pytest.raises(OSError, match="injected"):
                await store.drop_oldest("app", 4096)
        assert await store.drop_oldest("app", 4096) == []
        assert numbers_in(tmp_path, "app") == list(range(1, OLD + 1))


@pytest.mark.parametrize("fails_at", [2, 3, 6])
async def test_the_log_has_what_was_dropped_before_a_sync_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails_at: int
) -> None:
    async with committing(tmp_path, lambda _: True) as committer:
        await grow(committer, "app")
        fsync, syncs = os.fsync, 0

        def may_fail(descriptor: int) -> None:
            nonlocal syncs
            syncs += 1
            if syncs == fails_at:
                raise OSError(errno.EIO, "injected")
            fsync(descriptor)

        with capture_logs() as lines, monkeypatch.context() as patch:
            patch.setattr(os, "fsync", may_fail)
            await committer.make_room("app", 10 * 4096)
        last = list_segments(tmp_path / "app")[0] - 1
        # The first sync comes before the first removal.
        assert last == fails_at - 1
        assert [(line["first"], line["last"]) for line in lines if line["event"] == DROPPED] == [
            (1, last)
        ]
        assert committer.totals.dropped_records == last


async def test_the_log_has_what_was_dropped_if_nobody_waits_for_the_end_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path, lambda _: True) as committer:
        await grow(committer, "app")
        unlink, begun, go_on = os.unlink, threading.Event(), threading.Event()

        def held_up(name: str, *, dir_fd: int) -> None:
            begun.set()
            assert go_on.wait(60)
            unlink(name, dir_fd=dir_fd)

        with capture_logs() as lines, monkeypatch.context() as patch:
            patch.setattr(os, "unlink", held_up)
            drop = asyncio.create_task(committer.make_room("app", 1))
            await until(begun.is_set)
            drop.cancel()
            with pytest.raises(asyncio.CancelledError):
                await drop
            go_on.set()
            await until(lambda: DROPPED in [line["event"] for line in lines])
        assert list_segments(tmp_path / "app")[0] == 2
        assert [line["last"] for line in lines if line["event"] == DROPPED] == [1]


async def test_a_segment_that_is_there_twice_is_dropped_only_with_its_second_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with committing(tmp_path, lambda _: True) as committer:
        await grow(committer, "app")
    plain = tmp_path / "app" / segment_name(1)
    shutil.copy(plain, tmp_path / "app" / segment_name(1, compressed=True))
    chosen = [StoredSegment(1, 1, 4096)]
    monkeypatch.setattr("logengine.store.stream.oldest_to_drop", lambda *_: chosen)
    fsync, syncs = os.fsync, 0

    def fails_at_the_second(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        if syncs == 2:
            raise OSError(errno.EIO, "injected")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", fails_at_the_second)
    with pytest.raises(OSError, match="injected"):
        drop_oldest(tmp_path / "app", 1, OLD + 1, unnoted())
    assert not plain.exists()
    assert plain.with_name(segment_name(1, compressed=True)).exists()


class Killed(BaseException):
    """The process ends here."""


async def test_killed_at_any_call_what_is_left_is_the_newest_part_whole(tmp_path: Path) -> None:
    async with committing(tmp_path / "grown", lambda _: True) as committer:
        await grow(committer, "app")
    segments_before = list_segments(tmp_path / "grown" / "app")
    left = []
    calls_before_death = 0
    was_killed = True
    while was_killed:
        directory = tmp_path / str(calls_before_death) / "app"
        shutil.copytree(tmp_path / "grown" / "app", directory)
        told: list[StoredSegment] = []
        with pytest.MonkeyPatch.context() as patch:
            die_after(patch, calls_before_death)
            try:
                drop_oldest(directory, 5 * 4096, OLD + 1, unnoted(), told.extend)
                was_killed = False
            except Killed:
                calls_before_death += 1
        firsts = list_segments(directory)
        assert firsts == segments_before[-len(firsts) :]
        # Whatever is gone was reported before.
        assert {segment.first for segment in told} >= {*segments_before} - {*firsts}
        recovery = recover(directory, names=unnoted(), rewrite_limit=1, active_bytes_max=1)
        assert not recovery.gaps
        assert not recovery.damaged
        assert recovery.state.next_seq == OLD + 1
        assert recovery.state.producers == {Producer(1000, "p"): OLD}
        left.append(len(firsts))
    assert left == sorted(left, reverse=True)
    assert (left[0], left[-1]) == (OLD, OLD - 5)


def die_after(patch: pytest.MonkeyPatch, calls: int) -> None:
    """Ends the process before the unlink or sync that comes after so many."""
    left = calls

    def counted(real: Callable[..., None]) -> Callable[..., None]:
        def call(target: Any, **directory: int) -> None:
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            real(target, **directory)

        return call

    for name in ("unlink", "fsync"):
        patch.setattr(os, name, counted(getattr(os, name)))
