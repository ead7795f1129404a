"""A segment that the disk does not give just now: no damage, and nothing is told by what is left.

Withstands: EIO on any read of a recovery, once, for a while, and for good, with a stop meanwhile.
"""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from logengine.disk.segment_file import _SegmentFile, list_segments
from logengine.errors import RepairRefused
from logengine.format.producers import Producer
from logengine.format.segment import segment_name
from logengine.store.committer import Committer
from logengine.store.settings import CommitConfig
from logengine.store.store import Store
from logengine.store.stream import recover
from logengine.upkeep.repair import Repair
from logengine.upkeep.retention import Retainer
from logengine.upkeep.retention_plan import RetentionRules
from logengine.upkeep.verify import verify_stream
from tests.crash.rig import oracle
from tests.store.committed import until
from tests.store.compacted import seal
from tests.store.test_committer import Acks, entry
from tests.unnoted import unnoted

SEGMENTS = 3
WHEN = "2026-11-28T06:00:00.000000Z"


class BadSectors:
    """Has reads of some files of a stream fail as those of a bad sector do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.names: set[str] = set()
        self.hits = 0
        real = os.pread

        def pread(descriptor: int, count: int, offset: int) -> bytes:
            name = Path(os.readlink(f"/proc/self/fd/{descriptor}")).name
            if name in self.names:
                self.hits += 1
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(descriptor, count, offset)

        monkeypatch.setattr(os, "pread", pread)


@pytest.fixture
def sectors(monkeypatch: pytest.MonkeyPatch) -> BadSectors:
    return BadSectors(monkeypatch)


def store_of(data: Path) -> Store:
    return Store(data, oracle.AtOnce(), CommitConfig(rewrite_limit=1), boot_id="boot")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with streams `app` and `web`, ended well, a segment for each record."""
    store = store_of(tmp_path)
    store.open()
    for number in range(1, SEGMENTS + 1):
        for stream in ("app", "web"):
            if not store.is_ready(stream):
                asyncio.run(store.recover_stream(stream))
            plan = store.plan(stream, oracle.addition("p", number, 9))
            assert not asyncio.run(store.commit({stream: plan}))
    store.close()
    return tmp_path


def content(data: Path) -> dict[str, tuple[int, bytes]]:
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in (data / "app").iterdir()}


@asynccontextmanager
async def started(data: Path) -> AsyncIterator[tuple[Committer, Store]]:
    """As the daemon starts: what could not be recovered is left to the committer."""
    store = store_of(data)
    store.open()
    async with asyncio.TaskGroup() as tasks:
        limits = CommitConfig(in_loop_below=0, retry_min=0.001, retry_max=0.005)
        committer = Committer(store, limits, tasks)
        committer.recover(store.not_recovered())
        yield committer, store
        await committer.close()
    store.close()


@pytest.mark.parametrize("first", range(1, SEGMENTS + 1))
def test_a_stream_with_a_segment_that_cannot_be_read_is_left_as_it_is(
    data: Path, sectors: BadSectors, first: int
) -> None:
    before = content(data)
    sectors.names = {segment_name(first)}
    store = store_of(data)
    found = store.open()
    error = found["app"]
    assert isinstance(error, OSError)
    assert (error.errno, error.filename) == (errno.EIO, str(data / "app" / segment_name(first)))
    assert not store.is_ready("app")
    assert list(store.not_recovered()) == ["app", "web"]
    store.close()
    assert content(data) == before


async def test_the_other_streams_go_on_and_this_one_as_soon_as_it_can_be_read(
    data: Path, sectors: BadSectors
) -> None:
    sectors.names = {segment_name(SEGMENTS)}
    (data / "web" / segment_name(SEGMENTS)).unlink()
    with capture_logs() as logs:
        async with started(data) as (committer, store):
            acks, of_web = Acks(), Acks()
            committer.add("web", entry(1, of_web))
            await until(lambda: of_web.numbers == [1])
            await until(lambda: committer.failing()[0].attempts > 3)
            (failing,) = committer.failing()
            assert failing.stream == "app"
            assert f"[Errno {errno.EIO}]" in failing.error
            assert str(data / "app" / segment_name(SEGMENTS)) in failing.error
            committer.add("app", entry(SEGMENTS + 1, acks, producer="p"))
            welcome = asyncio.create_task(committer.barrier("app"))
            hits = sectors.hits
            await until(lambda: sectors.hits > hits + 3)
            assert not welcome.done()
            assert not acks.numbers
            sectors.names = set()
            await welcome
            assert acks.numbers == [SEGMENTS + 1]
            assert store.last_durable("app", Producer(1000, "p")) == SEGMENTS + 1
            await committer.drained()
            assert committer.failing() == []
    told = [line["event"] for line in logs if line["log_level"] in ("error", "warning")]
    assert told == ["stream_not_recovered"]
    assert [line["event"] for line in logs].count("stream_recovered") == 1
    assert list_segments(data / "app") == list(range(1, SEGMENTS + 2))


async def test_a_stream_to_which_nobody_sends_is_recovered_too(
    data: Path, sectors: BadSectors
) -> None:
    sectors.names = {segment_name(1)}
    async with started(data) as (committer, store):
        await until(lambda: all(each.attempts > 2 for each in committer.failing()))
        sectors.names = set()
        await until(lambda: store.is_ready("app") and store.is_ready("web"))
        await until(lambda: not committer.failing())
        assert committer.has_room("app", 1)


async def test_whoever_gave_up_waiting_for_such_a_stream_is_forgotten(
    data: Path, sectors: BadSectors
) -> None:
    sectors.names = {segment_name(1)}
    async with started(data) as (committer, _):
        welcome = asyncio.create_task(committer.barrier("app"))
        await asyncio.sleep(0)
        welcome.cancel()
        # A stop waits for nobody then, though the stream is as it was.
        async with asyncio.timeout(60):
            await committer.drained()
        assert [each.stream for each in committer.failing()] == ["app", "web"]


async def test_a_stop_does_not_wait_for_a_stream_that_cannot_be_read(
    data: Path, sectors: BadSectors
) -> None:
    before = content(data)
    sectors.names = {segment_name(SEGMENTS)}
    async with started(data) as (committer, _):
        assert committer.is_idle
    assert content(data) == before


async def test_nothing_is_taken_from_a_stream_that_was_not_read(
    data: Path, sectors: BadSectors
) -> None:
    for number in range(1, SEGMENTS):
        seal(data, number, number)
    before = content(data)
    sectors.names = {segment_name(SEGMENTS)}
    async with started(data) as (_, store):
        assert await store.drop_oldest("app", 10**9) == []
        retainer = Retainer(
            data, RetentionRules(max_bytes=1), names=store.names, is_known=store.may_be_trimmed
        )
        retainer.look()
        assert retainer.next_removal() is None
        assert content(data) == before
        sectors.names = set()
        await until(lambda: store.is_ready("app"))
        removal = retainer.next_removal()
        assert removal is not None
        assert removal.stream == "app"


async def test_what_was_not_read_of_another_directory_is_not_tried_any_more(
    data: Path, sectors: BadSectors
) -> None:
    sectors.names = {segment_name(1)}
    async with started(data) as (committer, store):
        await until(lambda: len(committer.failing()) == 2)
        committer.recover({"web": store.not_recovered()["web"]})
        assert [each.stream for each in committer.failing()] == ["web"]


def test_where_only_the_records_cannot_be_read_the_stream_goes_on_in_a_new_segment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, oracle.AtOnce(), boot_id="boot")
    store.open()
    asyncio.run(store.recover_stream("app"))
    assert not asyncio.run(store.commit({"app": store.plan("app", oracle.addition("p", 1, 9))}))
    store.close()
    before = content(tmp_path)
    monkeypatch.setattr(_SegmentFile, "read_body", _failing)
    recovery = recover(
        tmp_path / "app", names=unnoted(), rewrite_limit=65536, active_bytes_max=65536
    )
    assert (recovery.state.next_seq, recovery.state.producers) == (
        2,
        {Producer(os.getuid(), "p"): 1},
    )
    assert recovery.state.active is None
    assert [each.path for each in recovery.unread] == [str(tmp_path / "app" / segment_name(1))]
    assert recovery.damaged == []
    assert content(tmp_path) == before


def _failing(*_: object, **__: object) -> bytes:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("at", [0, 1], ids=["header", "records"])
@pytest.mark.parametrize("first", range(1, SEGMENTS + 1))
def test_after_a_repair_a_stream_whose_disk_never_gives_a_segment_goes_on(
    data: Path, monkeypatch: pytest.MonkeyPatch, first: int, at: int
) -> None:
    kept = (data / "app" / segment_name(first)).read_bytes()
    inode = (data / "app" / segment_name(first)).stat().st_ino
    _fail_reads_of(monkeypatch, inode, at)
    before = {path: path.read_bytes() for path in (data / "app").iterdir()}
    with pytest.raises(RepairRefused, match="may be whole"):
        Repair(data, "app", WHEN, pytest.fail, names=unnoted()).run()
    assert {path: path.read_bytes() for path in (data / "app").iterdir()} == before
    Repair(data, "app", WHEN, lambda _: None, names=unnoted(), unreadable_is_damaged=True).run()
    assert [finding for finding in verify_stream(data / "app") if not finding.harmless] == []
    store = store_of(data)
    found = store.open()
    assert not isinstance(found["app"], OSError)
    assert store.plan("app", oracle.addition("p", 9, 9)).before.next_seq > SEGMENTS
    monkeypatch.undo()
    copies = [path for path in (data / ".damaged").iterdir() if path.suffix == ".ndjson"]
    assert [path.read_bytes() for path in copies] == [kept]


def _fail_reads_of(monkeypatch: pytest.MonkeyPatch, inode: int, at: int) -> None:
    """Has the disk never give a file, from its header or from its records on."""

    def failing(method: str) -> Callable[..., object]:
        real = getattr(_SegmentFile, method)

        def call(self: _SegmentFile, *args: object, **kwargs: object) -> object:
            if os.fstat(self.descriptor).st_ino == inode:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(self, *args, **kwargs)

        return call

    for method in ["read_body"] if at else ["header_line", "read_body"]:
        monkeypatch.setattr(_SegmentFile, method, failing(method))
    real_pread = os.pread

    def pread(descriptor: int, count: int, offset: int) -> bytes:
        if os.fstat(descriptor).st_ino == inode and (not at or count != 4096):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real_pread(descriptor, count, offset)

    monkeypatch.setattr(os, "pread", pread)
