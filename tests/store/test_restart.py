"""What a process leaves for the next one, by how it ended and which boot that was in."""

import asyncio
import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from logengine.disk.atomic import AtomicWriter
from logengine.disk.crash_mark import CRASH_MARK_NAME
from logengine.disk.directory import Directory
from logengine.disk.durable_mark import DurableMarks, Mark, MarkReader
from logengine.disk.durable_names import DurableNames
from logengine.disk.segment_file import list_segments
from logengine.errors import AtomicWriteError
from logengine.format.producers import Producer
from logengine.format.segment import segment_name
from logengine.store import stream
from logengine.store.settings import CommitConfig
from logengine.store.store import Store
from tests.crash.rig import oracle
from tests.crash.rig.drawn_streams import lose_one
from tests.store.test_recovery import write_compressed

BOOT, OTHER_BOOT = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"


def opened(data: Path, boot_id: str = BOOT) -> Store:
    store = Store(data, oracle.AtOnce(), CommitConfig(rewrite_limit=1), boot_id=boot_id)
    store.open()
    return store


def kill(store: Store) -> None:
    """Lets go of the lock as the kernel does, and says nothing."""
    assert store._opened is not None
    store._opened.locked.close()
    store._opened = None


def commit(store: Store, number: int, name: str = "app") -> dict[str, Exception]:
    if not store.is_ready(name):
        asyncio.run(store.recover_stream(name))
    return asyncio.run(store.commit({name: store.plan(name, oracle.addition("p", number, 9))}))


def killed_with(data: Path, count: int) -> None:
    """A process that committed so many segments of a record, and was killed."""
    store = opened(data)
    for number in range(1, count + 1):
        assert not commit(store, number)
    kill(store)


def files(data: Path) -> dict[str, tuple[int, bytes]]:
    """Inode and bytes of each segment of the stream."""
    return {path.name: (path.stat().st_ino, path.read_bytes()) for path in (data / "app").iterdir()}


def changed(before: dict[str, tuple[int, bytes]], data: Path) -> list[str]:
    """The segments that are other files now, and hold the same bytes."""
    after = files(data)
    assert {name: each[1] for name, each in after.items()} == {
        name: each[1] for name, each in before.items()
    }
    return sorted(name for name in before if before[name][0] != after[name][0])


def test_after_a_kill_in_the_same_boot_the_newest_segment_is_written_again(tmp_path: Path) -> None:
    killed_with(tmp_path, 3)
    before = files(tmp_path)
    store = opened(tmp_path)
    assert changed(before, tmp_path) == [segment_name(3)]
    assert store.last_durable("app", Producer(os.getuid(), "p")) == 3
    assert not commit(store, 4)
    store.close()
    assert not (tmp_path / CRASH_MARK_NAME).exists()


def test_a_segment_that_is_written_again_in_pieces_is_whole(tmp_path: Path) -> None:
    killed_with(tmp_path, 1)
    before = files(tmp_path)
    with patch.object(stream, "_COPIED_AT_ONCE_BYTES", 100):
        opened(tmp_path).close()
    assert changed(before, tmp_path) == [segment_name(1)]
    assert [content for _, content in before.values()] == [
        content for _, content in files(tmp_path).values()
    ]


def test_after_a_kill_every_stream_is_written_again_by_the_threads(tmp_path: Path) -> None:
    store = opened(tmp_path)
    names = [f"s{number}" for number in range(20)]
    for name in names:
        assert not commit(store, 1, name)
    kill(store)
    with patch.object(stream, "_copy_in_place", wraps=stream._copy_in_place) as copy:
        store = opened(tmp_path)
    assert copy.call_count == len(names)
    assert [store.last_durable(name, Producer(os.getuid(), "p")) for name in names] == [1] * len(
        names
    )
    store.close()


def test_after_a_clean_stop_nothing_is_written_again(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert not commit(store, 1)
    assert (tmp_path / CRASH_MARK_NAME).exists()
    store.close()
    before = files(tmp_path)
    opened(tmp_path).close()
    assert changed(before, tmp_path) == []


def test_after_a_boot_nothing_is_written_again(tmp_path: Path) -> None:
    killed_with(tmp_path, 1)
    before = files(tmp_path)
    store = opened(tmp_path, OTHER_BOOT)
    assert changed(before, tmp_path) == []
    kill(store)
    # It left a mark of its own.
    store = opened(tmp_path, OTHER_BOOT)
    assert changed(before, tmp_path) == [segment_name(1)]
    store.close()


@pytest.mark.parametrize("text", ["", "boot\n", "\0" * 42])
def test_a_mark_that_names_no_boot_counts_as_one_of_this_boot(tmp_path: Path, text: str) -> None:
    killed_with(tmp_path, 1)
    (tmp_path / CRASH_MARK_NAME).write_text(text)
    before = files(tmp_path)
    store = opened(tmp_path)
    assert changed(before, tmp_path) == [segment_name(1)]
    kill(store)
    before = files(tmp_path)
    opened(tmp_path, OTHER_BOOT).close()
    assert changed(before, tmp_path) == []


def test_where_nobody_knows_the_boot_a_mark_counts_as_one_of_this_boot(tmp_path: Path) -> None:
    killed_with(tmp_path, 1)
    before = files(tmp_path)
    opened(tmp_path, "").close()
    assert changed(before, tmp_path) == [segment_name(1)]


def test_a_sealed_newest_segment_is_written_again(tmp_path: Path) -> None:
    killed_with(tmp_path, 1)
    os.unlink(tmp_path / "app" / segment_name(1))
    write_compressed(tmp_path / "app", 1, 6)
    before = files(tmp_path)
    opened(tmp_path).close()
    assert changed(before, tmp_path) == [segment_name(1, compressed=True)]


def test_a_newest_segment_that_is_a_recorded_gap_is_written_again(tmp_path: Path) -> None:
    killed_with(tmp_path, 2)
    path = tmp_path / "app" / segment_name(2)
    path.write_bytes(b"{" + path.read_bytes())
    lose_one(tmp_path)
    before = files(tmp_path)
    opened(tmp_path).close()
    assert changed(before, tmp_path) == [segment_name(2)]


def test_what_covers_others_is_written_again_before_those_are_removed(tmp_path: Path) -> None:
    killed_with(tmp_path, 6)
    write_compressed(tmp_path / "app", 1, 4)
    order: list[str] = []
    copy, unlink = stream._copy_in_place, os.unlink

    def noted_copy(directory: Directory, name: str, names: DurableNames) -> None:
        order.append(f"copy {name}")
        copy(directory, name, names)

    def noted_unlink(name: str, *, dir_fd: int) -> None:
        order.append(f"unlink {name}")
        unlink(name, dir_fd=dir_fd)

    with (
        patch.object(stream, "_copy_in_place", noted_copy),
        patch.object(os, "unlink", noted_unlink),
    ):
        store = opened(tmp_path)
    assert order[0] == f"copy {segment_name(1, compressed=True)}"
    assert order[1] == f"copy {segment_name(6)}"
    assert order[2:] == [f"unlink {segment_name(first)}" for first in (4, 3, 2)]
    store.close()


def test_where_writing_again_fails_the_stream_is_tried_again_later(tmp_path: Path) -> None:
    killed_with(tmp_path, 1)
    before = files(tmp_path)
    with patch.object(DurableNames, "sync", side_effect=AtomicWriteError(errno.EIO, "injected")):
        store = opened(tmp_path)
    assert not store.is_ready("app")
    # Whoever starts next in this boot must do it as well.
    store.close()
    assert (tmp_path / CRASH_MARK_NAME).exists()
    with patch.object(AtomicWriter, "publish", side_effect=AtomicWriteError(errno.EIO, "injected")):
        store = opened(tmp_path)
    assert not store.is_ready("app")
    asyncio.run(store.recover_stream("app"))
    assert changed(before, tmp_path) == [segment_name(1)]
    assert store.last_durable("app", Producer(os.getuid(), "p")) == 1


def test_on_a_full_disk_a_stream_goes_on_where_no_sync_is_noted_to_have_failed(
    tmp_path: Path,
) -> None:
    killed_with(tmp_path, 6)
    write_compressed(tmp_path / "app", 1, 4)
    full = AtomicWriteError(errno.ENOSPC, "injected")
    with patch.object(AtomicWriter, "prepare", side_effect=full):
        store = opened(tmp_path)
    assert store.last_durable("app", Producer(os.getuid(), "p")) == 6
    # What may cover them may be lost.
    assert list_segments(tmp_path / "app") == [1, 2, 3, 4, 5, 6]
    store.names.note_failed_sync("app")
    kill(store)
    with patch.object(AtomicWriter, "prepare", side_effect=full):
        store = opened(tmp_path)
    assert not store.is_ready("app")
    store.close()


def test_on_a_full_disk_what_was_never_marked_as_durable_waits_for_room(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert not commit(store, 1)
    # Killed in the moment between a failed sync and the note of it.
    with patch.object(DurableNames, "note_failed_sync"):
        fail_a_directory_sync(store, 2)
    kill(store)
    assert list_segments(tmp_path / "app") == [1, 2]
    before = files(tmp_path)
    with patch.object(AtomicWriter, "prepare", side_effect=AtomicWriteError(errno.ENOSPC, "full")):
        store = opened(tmp_path)
        assert not store.is_ready("app")
        with pytest.raises(AtomicWriteError):
            asyncio.run(store.recover_stream("app"))
    assert MarkReader(tmp_path, BOOT).read("app") == Mark(1, 1)
    asyncio.run(store.recover_stream("app"))
    assert changed(before, tmp_path) == [segment_name(2)]
    assert store.last_durable("app", Producer(os.getuid(), "p")) == 2
    assert MarkReader(tmp_path, BOOT).read("app") == Mark(2, 3)
    store.close()


def test_a_newest_segment_that_cannot_be_read_to_be_written_again_is_waited_for(
    tmp_path: Path,
) -> None:
    killed_with(tmp_path, 2)
    real = os.pread

    def fails(descriptor: int, count: int, offset: int) -> bytes:
        is_segment = os.readlink(f"/proc/self/fd/{descriptor}").endswith(".ndjson")
        if is_segment and count == stream._COPIED_AT_ONCE_BYTES:
            raise OSError(errno.EIO, "injected")
        return real(descriptor, count, offset)

    before = files(tmp_path)
    store = Store(tmp_path, oracle.AtOnce(), boot_id=BOOT)
    with patch.object(os, "pread", fails):
        error = store.open()["app"]
    assert isinstance(error, OSError)
    assert Path(error.filename).name == segment_name(2)
    assert not store.is_ready("app")
    assert changed(before, tmp_path) == []
    state = asyncio.run(store.recover_stream("app")).state
    assert (state.next_seq, state.producers) == (3, {Producer(os.getuid(), "p"): 2})
    assert changed(before, tmp_path) == [segment_name(2)]
    store.close()


def fail_a_directory_sync(store: Store, number: int) -> None:
    error = AtomicWriteError(errno.EIO, "injected")
    with patch.object(Directory, "sync", side_effect=error):
        assert commit(store, number)


def test_a_stream_whose_last_commit_failed_keeps_the_mark_at_a_stop(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert not commit(store, 1)
    fail_a_directory_sync(store, 2)
    store.close()
    before = files(tmp_path)
    store = opened(tmp_path)
    assert changed(before, tmp_path) == [segment_name(2)]
    store.close()


def test_nothing_is_removed_after_a_failed_sync_until_the_next_boot(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert not commit(store, 1)
    fail_a_directory_sync(store, 2)
    for number in (2, 3):
        assert not commit(store, number)
    kill(store)
    for _ in range(2):
        store = opened(tmp_path)
        assert store.unsynced == {"app"}
        assert asyncio.run(store.drop_oldest("app", 10**9)) == []
        store.close()
    store = opened(tmp_path, OTHER_BOOT)
    assert store.unsynced == set()
    assert len(asyncio.run(store.drop_oldest("app", 10**9))) == 2
    assert list_segments(tmp_path / "app") == [3]
    store.close()


def test_a_note_that_cannot_be_written_goes_with_the_next(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for name in ("app", "web"):
        assert not commit(store, 1, name)
    with patch.object(os, "writev", side_effect=OSError(errno.ENOSPC, "injected")):
        store.names.note_failed_sync("app")
    store.names.note_failed_sync("web")
    kill(store)
    store = opened(tmp_path)
    assert store.unsynced == {"app", "web"}
    store.close()


def test_a_note_that_is_written_in_pieces_is_whole(tmp_path: Path) -> None:
    killed_with(tmp_path / "data", 1)
    store = opened(tmp_path / "data")
    real_writev = os.writev
    with patch.object(os, "writev", lambda file, parts: real_writev(file, [parts[0][:3]])):
        store.names.note_failed_sync("app")
    kill(store)
    assert opened(tmp_path / "data").unsynced == {"app"}


def test_followers_hear_of_all_that_is_durable_also_where_the_end_is_in_doubt(
    tmp_path: Path,
) -> None:
    store = opened(tmp_path)
    assert not commit(store, 1)
    store.names.note_failed_sync("app")
    with patch.object(os, "pwrite", side_effect=OSError(errno.ENOSPC, "injected")):
        assert not commit(store, 2)
    store.close()
    mark = MarkReader(tmp_path, BOOT).read("app")
    assert mark is not None
    assert mark.last == 2


def test_what_a_failed_commit_left_is_not_taken_for_durable_by_the_same_process(
    tmp_path: Path,
) -> None:
    store = opened(tmp_path)
    assert not commit(store, 1)
    with patch.object(AtomicWriter, "sync_directory", side_effect=OSError(errno.EIO, "injected")):
        assert commit(store, 2)
    assert list_segments(tmp_path / "app") == [1, 2]
    # As the committer does where the data directory could not be used for a moment.
    asyncio.run(store.recover_stream("app"))
    assert store.last_durable("app", Producer(os.getuid(), "p")) == 1
    assert not commit(store, 2)
    assert list_segments(tmp_path / "app") == [1, 2]
    store.close()


def test_nothing_is_committed_by_whom_the_next_process_would_not_know_of(tmp_path: Path) -> None:
    real = os.open

    def full(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if Path(path).name == CRASH_MARK_NAME and flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "injected")
        return real(path, flags, mode, dir_fd=dir_fd)

    with patch.object(os, "open", full):
        store = opened(tmp_path)
        assert commit(store, 1)
    assert not any((tmp_path / "app").glob("*"))
    assert not commit(store, 1)
    kill(store)
    before = files(tmp_path)
    opened(tmp_path).close()
    assert changed(before, tmp_path) == [segment_name(1)]


async def test_a_mark_that_a_start_could_not_take_over_is_moved_without_a_commit(
    tmp_path: Path,
) -> None:
    store = Store(tmp_path, oracle.AtOnce(), CommitConfig(rewrite_limit=1), boot_id=BOOT)
    store.open()
    await store.recover_stream("app")
    for number in (1, 2):
        # What is told of the second one is lost with this process.
        with patch.object(os, "pwrite", fails_if(number == 2)):
            plan = store.plan("app", oracle.addition("p", number, 9))
            assert not await store.commit({"app": plan})
    kill(store)
    with patch.object(DurableMarks, "_begin", side_effect=OSError(errno.EIO, "injected")):
        store = Store(tmp_path, oracle.AtOnce(), boot_id=BOOT)
        store.open()
    reader = MarkReader(tmp_path, BOOT)
    assert reader.read("app") == Mark(1, 1)
    store.tell_followers()
    async with asyncio.timeout(60):
        while reader.read("app") != Mark(2, 3):  # noqa: ASYNC110 - nothing tells of it but the file
            await asyncio.sleep(0.01)
    store.close()


def fails_if(is_failing: bool) -> Callable[..., int]:
    real = os.pwrite

    def pwrite(*args: Any) -> int:
        if is_failing:
            raise OSError(errno.EIO, "injected")
        return real(*args)

    return pwrite
