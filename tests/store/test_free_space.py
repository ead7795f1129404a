"""What is seen of the free space of a file system, and noted for the next process."""

import asyncio
import errno
import json
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import patch

import pytest

from logengine.daemon.config import parse_config
from logengine.daemon.upkeep import keeps_free
from logengine.intake.free_space import SHARES_NAME, FreeSpace
from logengine.intake.space_shares import SpaceShares
from logengine.store.committer import Committer
from logengine.store.settings import CommitConfig
from logengine.store.store import Store

MIB = 1024 * 1024
KEPT = 100 * MIB
ANN = 1000
NEW_STREAM = 16 * 1024  # which may not be on disk yet


class Disk:
    """What the kernel says of the file system."""

    def __init__(self) -> None:
        self.free = 2 * KEPT
        self.error: OSError | None = None
        self.looks = 0
        self.during_look: Callable[[], None] = lambda: None

    def fstatvfs(self, _descriptor: int) -> SimpleNamespace:
        if self.error is not None:
            raise self.error
        self.looks += 1
        self.during_look()
        return SimpleNamespace(f_bavail=self.free, f_frsize=1, f_blocks=20 * KEPT, f_flag=0)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk()
    monkeypatch.setattr("logengine.intake.free_space.os.fstatvfs", disk.fstatvfs)
    return disk


@asynccontextmanager
async def looking(
    data: Path, on_looked: Callable[[], None] = lambda: None, *, drops_oldest: bool = False
) -> AsyncIterator[FreeSpace]:
    with ThreadPoolExecutor(2) as executor:
        store = Store(data, executor, CommitConfig())
        store.open()
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            committer = Committer(store, CommitConfig(), tasks)
            space = FreeSpace(
                store,
                committer,
                SpaceShares({0}),
                lambda size: size // 20,
                tasks,
                drops_oldest=lambda _: drops_oldest,
                on_looked=on_looked,
            )
            await space.begin()
            yield space
            space.close()
            await committer.close()
        store.close()


async def test_a_look_follows_what_arrived_and_resumes_who_waits(
    tmp_path: Path, disk: Disk
) -> None:
    looked = asyncio.Event()
    async with looking(tmp_path / "data", looked.set) as space:
        assert not space.is_scarce
        disk.free = KEPT // 2
        space.add("app", ANN, 60 * MIB)
        await looked.wait()
        assert space.limits("app", ANN)
        assert not space.limits("app", 0)
        assert space.left(ANN) == KEPT // 2 - KEPT // 4 - NEW_STREAM
        looked.clear()
        disk.free = 2 * KEPT
        space.look_soon()
        await looked.wait()
        assert not space.limits("app", ANN)


async def test_a_look_that_fails_leaves_what_is_known(tmp_path: Path, disk: Disk) -> None:
    looked = asyncio.Event()
    async with looking(tmp_path / "data", looked.set) as space:
        disk.error = OSError(errno.EIO, "injected")
        space.add("app", ANN, 60 * MIB)
        await looked.wait()
        assert not space.is_scarce
        assert space.shares.free < 2 * KEPT - 60 * MIB
        space.add("app", ANN, 60 * MIB)
        assert space.is_scarce


async def test_what_was_shared_out_is_noted_and_the_next_process_continues(
    tmp_path: Path, disk: Disk
) -> None:
    note = tmp_path / "data" / SHARES_NAME
    async with looking(tmp_path / "data") as space:
        disk.free = KEPT // 2
        space.add("app", ANN, 2 * KEPT)
        await space._look()
        noted = json.loads(note.read_bytes())
        assert noted == {"bytes": KEPT, "used": {str(ANN): KEPT // 2 + NEW_STREAM}}
    async with looking(tmp_path / "data") as space:
        assert space.shares.users_without() == [ANN]
        disk.free = 2 * KEPT
        await space._look()
        assert not note.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"bytes":"x"}', '{"bytes":1,"used":{"ann":1}}'])
async def test_a_note_that_makes_no_sense_is_not_followed(
    tmp_path: Path, disk: Disk, text: str
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / SHARES_NAME).write_text(text)
    async with looking(tmp_path / "data") as space:
        assert not space.is_scarce
    (tmp_path / "data" / SHARES_NAME).unlink(missing_ok=True)
    (tmp_path / "data" / SHARES_NAME).symlink_to("/dev/zero")
    async with looking(tmp_path / "data") as space:
        assert not space.is_scarce


async def test_where_the_directory_was_replaced_nothing_is_known(
    tmp_path: Path, disk: Disk
) -> None:
    async with looking(tmp_path / "data") as space:
        space.add("app", ANN, 2 * KEPT)
        assert space.is_scarce
        space.forget()
        assert not space.limits("app", ANN)


async def test_a_shorter_note_replaces_a_longer_one(tmp_path: Path, disk: Disk) -> None:
    note = tmp_path / "data" / SHARES_NAME
    async with looking(tmp_path / "data") as space:
        disk.free = KEPT // 2
        space.add("app", ANN, 2 * KEPT)
        await space._look()
        before = len(note.read_bytes())
        disk.free = KEPT - 10
        await space._look()
        assert json.loads(note.read_bytes()) == {"bytes": KEPT, "used": {str(ANN): 10}}
        assert len(note.read_bytes()) < before


async def test_what_waits_to_be_committed_is_not_free(tmp_path: Path, disk: Disk) -> None:
    async with looking(tmp_path / "data") as space:
        space._committer.pending_bytes = 10 * MIB
        await space._look()
        space._committer.pending_bytes = 0
        assert space.shares.free == 2 * KEPT - 10 * MIB


async def test_a_look_at_a_directory_that_is_replaced_meanwhile_counts_for_nothing(
    tmp_path: Path, disk: Disk
) -> None:
    async with looking(tmp_path / "data") as space:

        def replace() -> None:
            space._store.generation += 1

        disk.during_look = replace
        disk.free = 1
        await space._look()
        assert space.shares.free == 2 * KEPT


async def test_while_there_is_enough_a_chunk_is_no_reason_to_look(
    tmp_path: Path, disk: Disk
) -> None:
    async with looking(tmp_path / "data") as space:
        looks = disk.looks
        for _ in range(20):
            space.add("app", ANN, 10)
            await asyncio.sleep(0.001)
        assert disk.looks == looks


async def test_a_stream_that_drops_its_oldest_goes_on_as_long_as_it_can_drop(
    tmp_path: Path, disk: Disk
) -> None:
    async with looking(tmp_path / "data", drops_oldest=True) as space:
        disk.free = KEPT // 2
        space.add("app", ANN, 2 * KEPT)
        await space._look()
        assert space.left(ANN) <= 0
        may_drop, freed = asyncio.Event(), 2 * MIB

        async def make_room(_stream: str, _wanted: int) -> int:
            await may_drop.wait()
            return freed

        with patch.object(space._committer, "make_room", make_room):
            assert not space.limits("app", ANN)
            for _ in range(4):
                space.add("app", ANN, MIB // 4)
            assert space.limits("app", ANN), "as much as may be taken before it drops is taken"
            may_drop.set()
            async with asyncio.timeout(60):
                while space.limits("app", ANN):  # noqa: ASYNC110 - nothing tells when it has dropped
                    await asyncio.sleep(0)
            freed = 0
            space.add("app", ANN, 2 * MIB)
            async with asyncio.timeout(60):
                while "app" in space._to_drop:  # noqa: ASYNC110
                    await asyncio.sleep(0)
        assert space.limits("app", ANN), "it has nothing left to drop"


@pytest.mark.parametrize(
    ("config", "kept"),
    [
        ("", 50),
        ("[quota]\nkeep_free = '0B'\n", 0),
        ("[quota]\nkeep_free = '10%'\n", 100),
        # Where retention keeps space free, it comes first.
        ("[retention]\nkeep_free = '5%'\n", 25),
        ("[retention]\nkeep_free = '50%'\n", 50),
        ("[quota]\nkeep_free = '10%'\n[retention]\nkeep_free = '60B'\n", 30),
    ],
)
def test_what_is_kept_free_by_default_and_beside_retention(config: str, kept: int) -> None:
    assert keeps_free(parse_config(config, "test"), 1000) == kept
