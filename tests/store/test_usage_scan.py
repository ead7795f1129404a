"""What is seen of the space that streams and users take, whatever is on the disk."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from logengine.disk.segment_file import list_segments, size_of_segments
from logengine.intake import usage_scan
from logengine.intake.quota import QuotaConfig, Quotas
from logengine.intake.usage_scan import UsageScan
from logengine.store.committer import Committer
from logengine.store.pending import Entry
from logengine.store.settings import CommitConfig
from logengine.store.store import Store

TIME = "2026-11-23T20:00:00.000001Z"
ANN, BOB = 1000, 1001
# Of everybody, so that all is counted, and so much that nobody is near.
MUCH = QuotaConfig(max_bytes=10**9)


class Sender:
    def __init__(self, uid: int) -> None:
        self.uid = uid

    def durable(self, number: int) -> None:
        """Waits for nothing."""


class Engine:
    """A store and its committer, each commit a segment of its own."""

    def __init__(self, store: Store, tasks: asyncio.TaskGroup, quotas: Quotas) -> None:
        self.data = store.path
        self.store = store
        self.quotas = quotas
        limits = CommitConfig(in_loop_below=0, retry_min=0.001, retry_max=0.01)
        self.committer = Committer(store, limits, tasks, counts_users=True)
        self.scan = UsageScan(store, self.committer, quotas, tasks, self._scanned)
        self.on_scanned: Callable[[], None] = lambda: None

    def _scanned(self) -> None:
        self.on_scanned()

    async def commit(self, stream: str, uid: int, size_bytes: int) -> None:
        self.add(stream, uid, size_bytes)
        await self.committer.drained()

    def add(self, stream: str, uid: int, size_bytes: int) -> None:
        line = b'{"_ts":"%s","x":"' % TIME.encode()
        line = line.ljust(size_bytes - 3, b"x") + b'"}\n'
        self.committer.add(stream, Entry(line, 1, TIME, 1, Sender(uid)))

    def segment(self, stream: str, place: int) -> Path:
        return sorted((self.data / stream).glob("[0-9]*"))[place]


Test = Callable[[Engine], Awaitable[None]]


def on(quotas: Callable[[], Quotas]) -> Callable[[Test], Any]:
    def decorate(test: Test) -> Any:
        async def main(data: Path) -> None:
            with ThreadPoolExecutor(2) as executor:
                store = Store(data, executor, CommitConfig(rewrite_limit=1))
                store.open()
                async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
                    engine = Engine(store, tasks, quotas())
                    await test(engine)
                    engine.scan.close()
                    await engine.committer.close()
                store.close()

        def run(tmp_path: Path) -> None:
            asyncio.run(main(tmp_path / "data"))

        run.__name__ = run.__qualname__ = test.__name__
        run.__doc__ = test.__doc__
        return run

    return decorate


def everybody() -> Quotas:
    return Quotas(MUCH, MUCH, {}, {})


@on(everybody)
async def test_all_is_seen_at_the_start(engine: Engine) -> None:
    for stream, uid, size_bytes in (("a", ANN, 100), ("a", BOB, 60), ("b", ANN, 200)):
        await engine.commit(stream, uid, size_bytes)
    await engine.scan.scan_all()
    stored = engine.quotas.stored
    assert stored.users == {ANN: 300, BOB: 60}
    assert stored.streams == {s: size_of_segments(engine.data / s) for s in "ab"}


@on(everybody)
async def test_what_was_removed_is_not_there_any_more(engine: Engine) -> None:
    for size_bytes in (100, 200, 300):
        await engine.commit("a", ANN, size_bytes)
    engine.segment("a", 0).unlink()
    await engine.scan.scan_all()
    assert engine.quotas.stored.users == {ANN: 500}
    assert engine.quotas.stored.streams == {"a": size_of_segments(engine.data / "a")}


@on(everybody)
async def test_of_damaged_segments_the_first_whole_one_tells_and_less_is_known(
    engine: Engine,
) -> None:
    for size_bytes in (100, 200, 300):
        await engine.commit("a", ANN, size_bytes)
    engine.segment("a", 0).write_bytes(b"")
    engine.segment("a", 1).write_bytes(b'{"_segment":1}\n')
    await engine.scan.scan_all()
    assert engine.quotas.stored.users == {ANN: 300}


@on(everybody)
async def test_where_no_header_can_be_read_it_stays_as_it_was(engine: Engine) -> None:
    await engine.commit("a", ANN, 100)
    await engine.scan.scan_all()
    engine.segment("a", 0).write_bytes(b"")
    await engine.scan.scan_all()
    assert engine.quotas.stored.users == {ANN: 100}


@on(everybody)
async def test_a_directory_that_cannot_be_listed_stays_as_it_was(engine: Engine) -> None:
    await engine.commit("a", ANN, 100)
    await engine.scan.scan_all()
    before = dict(engine.quotas.stored.streams)
    (engine.data / "a").rename(engine.data / "A")
    (engine.data / "a").symlink_to("nowhere")
    engine.quotas.stored.near_streams.add("a")
    scanned = asyncio.Event()
    engine.on_scanned = scanned.set
    engine.scan._may_scan_at = 0
    engine.scan.scan_soon()
    await scanned.wait()
    assert engine.quotas.stored.streams == before


@on(everybody)
async def test_what_waits_to_be_committed_counts_for_its_stream(engine: Engine) -> None:
    await engine.commit("a", ANN, 100)
    async with engine.committer.held("a"):
        engine.add("a", ANN, 1000)
        await engine.scan.scan_all()
        on_disk = size_of_segments(engine.data / "a")
        assert engine.quotas.stored.streams == {"a": on_disk + 1000}


@on(lambda: Quotas(QuotaConfig(), QuotaConfig(), {"a": MUCH}, {}))
async def test_only_streams_with_such_a_quota_are_scanned_at(engine: Engine) -> None:
    await engine.commit("a", ANN, 100)
    await engine.commit("b", ANN, 100)
    await engine.scan.scan_all()
    assert list(engine.quotas.stored.streams) == ["a"]
    assert engine.quotas.stored.users == {}


@on(lambda: Quotas(QuotaConfig(), QuotaConfig(max_bytes=1000), {}, {}))
async def test_a_look_is_taken_of_the_streams_of_whoever_is_near_and_of_no_other(
    engine: Engine,
) -> None:
    for stream, uid, size_bytes in (("a", ANN, 500), ("a", ANN, 400), ("b", BOB, 100)):
        await engine.commit(stream, uid, size_bytes)
    await engine.scan.scan_all()
    engine.segment("a", 0).unlink()
    engine.segment("b", 0).unlink()  # as if nothing of it were left; nobody looks
    engine.scan.scan_soon()
    assert engine.scan._timer is None
    assert engine.quotas.room("b", ANN, 0)[1] == 100
    scanned = asyncio.Event()
    engine.on_scanned = scanned.set
    engine.scan._may_scan_at = 0
    engine.scan.scan_soon()
    await scanned.wait()
    assert engine.quotas.stored.users == {ANN: 400, BOB: 100}


@on(lambda: Quotas(QuotaConfig(), QuotaConfig(max_bytes=1000), {}, {}))
async def test_a_look_that_fails_is_tried_again(engine: Engine) -> None:
    await engine.commit("a", ANN, 950)
    await engine.scan.scan_all()
    looks = 0
    scanned = asyncio.Event()

    def on_scanned() -> None:
        nonlocal looks
        looks += 1
        engine.quotas.wait_s("a", ANN, 0)
        engine.scan._may_scan_at = 0
        if looks < 2:
            engine.scan.scan_soon()
        else:
            scanned.set()

    engine.on_scanned = on_scanned
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(usage_scan, "_look", None)
        on_scanned()
        await scanned.wait()
    assert engine.quotas.stored.users == {ANN: 950}


@on(everybody)
async def test_looks_have_their_pause_and_none_begins_after_the_end(engine: Engine) -> None:
    await engine.commit("a", ANN, 100)
    await engine.scan.scan_all()
    engine.quotas.stored.near_streams.add("a")
    engine.scan.scan_soon()
    timer = engine.scan._timer
    assert timer is not None
    assert timer.when() - asyncio.get_running_loop().time() > 1
    engine.scan.close()
    assert timer.cancelled()
    engine.scan.scan_soon()
    assert engine.scan._timer is timer


def test_no_user_is_written_down_where_none_has_such_a_quota(tmp_path: Path) -> None:
    async def main() -> None:
        with ThreadPoolExecutor(2) as executor:
            store = Store(tmp_path, executor, CommitConfig(rewrite_limit=1))
            store.open()
            async with asyncio.TaskGroup() as tasks:
                committer = Committer(store, CommitConfig(), tasks)
                committer.add("a", Entry(b"{}\n", 1, TIME, 1, Sender(ANN)))
                await committer.drained()
                await committer.close()
            store.close()

    asyncio.run(main())
    (first,) = list_segments(tmp_path / "a")
    assert b"users" not in (tmp_path / "a" / os.listdir(tmp_path / "a")[0]).read_bytes()
    assert first == 1
