"""The engine with one thing done wrong, to see that the rig finds it.

Each mutant is a context manager beneath which the engine works, and passes for sound as
long as nothing fails.
"""

import asyncio
import contextlib
import io
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any
from unittest.mock import patch

from logengine.disk.atomic import AtomicWriter
from logengine.disk.directory import Directory
from logengine.disk.durable_mark import MarkReader
from logengine.disk.durable_names import DurableNames, remove_covered
from logengine.disk.one_flush import OneFlushWriter
from logengine.disk.segment_file import list_segments, read_header
from logengine.errors import AtomicWriteError, OutdatedPlan
from logengine.reading import follower
from logengine.store import plan, store, stream
from logengine.store.committer import Committer
from logengine.store.drop_oldest import StoredSegment
from logengine.store.plan import PlannedSegment
from logengine.store.publication import StreamCommit
from logengine.store.store import Store
from logengine.store.stream import SegmentWriter
from logengine.upkeep import retention
from logengine.upkeep.compaction import Compactor
from logengine.upkeep.retention import Retainer
from logengine.upkeep.retention_plan import Oldest
from logengine.upkeep.survey import Leftover

Mutant = Callable[[], contextlib.AbstractContextManager[Any]]


def nothing(*_arguments: Any) -> None:
    """Does nothing, in place of what should be done."""


def _files_synced_by(sync: Callable[[int], None]) -> Any:
    def prepare(self: AtomicWriter) -> None:
        sync(self.file.fileno())
        self.file.close()
        self._prepared = True

    return patch.object(AtomicWriter, "prepare", prepare)


def file_not_synced() -> Any:
    """The name is given to a file that was not fsynced."""
    return _files_synced_by(nothing)


def directory_not_synced() -> Any:
    """The new name is never synced."""
    return patch.object(AtomicWriter, "sync_directory", nothing)


def _make_all(parent: Directory, names: Sequence[str]) -> None:
    for name in names:
        with contextlib.suppress(FileExistsError):
            parent.make(name, 0o750)


def parent_not_synced() -> Any:
    """A new stream's directory is made, and its own name never synced."""

    def create(parent: Directory, names: Sequence[str]) -> dict[str, AtomicWriteError]:
        _make_all(parent, names)
        return {}

    return patch.object(store, "create_directories", create)


def acked_before_commit() -> Any:
    """Senders hear of their records before those are written."""
    commit = Committer._commit

    async def early(self: Committer, batch: Any, before: Any, *, in_loop: bool) -> None:
        for entries in batch.taken.values():
            for entry in entries:
                entry.sender.durable(entry.number)
        await commit(self, batch, before, in_loop=in_loop)

    return patch.object(Committer, "_commit", early)


def acked_before_directory_sync() -> Any:
    """The directory is synced when the senders were told already."""
    commit = Committer._commit
    late: list[AtomicWriter] = []

    def postpone(self: AtomicWriter) -> None:
        late.append(self)

    async def early(self: Committer, batch: Any, before: Any, *, in_loop: bool) -> None:
        await commit(self, batch, before, in_loop=in_loop)
        while late:
            late.pop().directory.sync()

    @contextlib.contextmanager
    def both() -> Iterator[None]:
        with (
            patch.object(AtomicWriter, "sync_directory", postpone),
            patch.object(Committer, "_commit", early),
        ):
            yield

    return both()


@contextlib.contextmanager
def replaced_before_fsync() -> Iterator[None]:
    """Two steps swapped: the file takes its name, and is then fsynced."""

    def prepare(self: AtomicWriter) -> None:
        self._prepared = True

    publish_as_it_is = AtomicWriter.publish

    def publish(self: AtomicWriter) -> None:
        publish_as_it_is(self)
        os.fsync(self.file.fileno())
        self.file.close()

    with (
        patch.object(AtomicWriter, "prepare", prepare),
        patch.object(AtomicWriter, "publish", publish),
    ):
        yield


def directory_synced_before_replace() -> Any:
    """Two steps swapped: the directory is synced, and then the file takes its name."""

    def publish(self: SegmentWriter) -> None:
        self.prepare()
        self._writer.sync_directory()
        self._writer.publish()

    return patch.object(SegmentWriter, "publish", publish)


def fsync_tried_again() -> Any:
    """A failed fsync is tried again on the same file, and believed."""

    def sync(descriptor: int) -> None:
        try:
            os.fsync(descriptor)
        except OSError:
            os.fsync(descriptor)

    return _files_synced_by(sync)


def fsync_error_swallowed() -> Any:
    """A failed fsync goes by."""

    def sync(descriptor: int) -> None:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)

    return _files_synced_by(sync)


def directory_sync_error_swallowed() -> Any:
    """A failed sync of the directory goes by."""

    def sync_directory(self: AtomicWriter) -> None:
        with contextlib.suppress(OSError):
            self.directory.sync()

    return patch.object(AtomicWriter, "sync_directory", sync_directory)


def directory_sync_tried_again() -> Any:
    """A failed sync of the directory is tried again, and believed."""

    def sync_directory(self: AtomicWriter) -> None:
        try:
            self.directory.sync()
        except OSError:
            self.directory.sync()

    return patch.object(AtomicWriter, "sync_directory", sync_directory)


@contextlib.contextmanager
def written_in_place() -> Iterator[None]:
    """No temp: the file under the final name is written over."""

    def open_target(self: AtomicWriter) -> io.FileIO:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        opened = os.open(self._name, flags, 0o640, dir_fd=self.directory.descriptor)
        return io.FileIO(opened, "w")

    with (
        patch.object(AtomicWriter, "_open_temp", open_target),
        patch.object(AtomicWriter, "publish", nothing),
    ):
        yield


def directory_of_failed_sync_kept() -> Any:
    """A directory whose name could not be synced is kept, and a later sync believed."""

    def create(parent: Directory, names: Sequence[str]) -> dict[str, OSError]:
        try:
            _make_all(parent, names)
            parent.sync()
        except OSError as error:
            return dict.fromkeys(names, error)
        return {}

    return patch.object(store, "create_directories", create)


def short_write_taken_for_whole() -> Any:
    """What a short write left out is not written."""

    def write_buffers(self: AtomicWriter, buffers: Sequence[bytes], **_: Any) -> int:
        return os.writev(self.file.fileno(), buffers)

    return patch.object(AtomicWriter, "write_buffers", write_buffers)


def temp_kept() -> Any:
    """A writer that fails leaves its temp."""

    def forget(self: AtomicWriter) -> None:
        self.temp_path = None

    return patch.object(AtomicWriter, "_remove_temp", forget)


@contextlib.contextmanager
def recovery_without_sync() -> Iterator[None]:
    """What a killed daemon renamed is told before it is synced."""
    with patch.object(DurableNames, "sync", nothing), recovery_without_copy():
        yield


def recovery_without_copy() -> Any:
    """What a killed daemon renamed is synced, and not written again, and that is believed."""
    return patch.object(stream, "_copy_in_place", nothing)


def restart_forgets_failed_sync() -> Any:
    """A daemon that starts after a kill removes more, although a sync had failed before."""
    return patch.object(DurableNames, "take_over", nothing)


def recovery_keeps_temps() -> Any:
    """What a killed daemon left half written stays."""
    return patch.object(stream, "is_temp_name", lambda _name: False)


@contextlib.contextmanager
def previous_commit_not_awaited() -> Iterator[None]:
    """A batch is published although the one before of its stream is still under way."""
    commit = Store.commit

    async def hasty(
        self: Store, planned: Any, before: Any = (), **options: bool
    ) -> dict[str, Exception]:
        # Of a stream without a directory it would only fail, and be tried again.
        if all(self._durable[name].next_seq > 1 for name in planned):
            before = ()
        return await commit(self, planned, before, **options)

    with patch.object(Store, "commit", hasty), patch.object(Store, "_outdated", nothing):
        yield


@contextlib.contextmanager
def only_the_batch_right_before_counts() -> Iterator[None]:
    """A batch is published over a hole: one failed, and the one between holds another stream."""
    settle, outdated = Store._settle, Store._outdated
    failed_last: Collection[str] = ()

    def settling(self: Store, planned: Any, failed: Mapping[str, Exception]) -> None:
        nonlocal failed_last
        settle(self, planned, failed)
        failed_last = failed

    def by_the_last(self: Store, planned: PlannedSegment) -> OutdatedPlan | None:
        return outdated(self, planned) if planned.before.stream in failed_last else None

    def right_before(self: Committer, _streams: Collection[str]) -> list[asyncio.Future[None]]:
        return [batch.done for batch in self._under_way[-1:]]

    with (
        patch.object(Store, "_settle", settling),
        patch.object(Store, "_outdated", by_the_last),
        patch.object(Committer, "_last_under_way", right_before),
    ):
        yield


def state_not_set_back() -> Any:
    """After a failed commit the next one is planned on what never came to be."""

    def settle(self: Store, planned: Any, failed: Mapping[str, Exception]) -> None:
        for name, segment in planned.items():
            if name not in failed:
                self._durable[name] = segment.after
        self._evict_active_segments()

    return patch.object(Store, "_settle", settle)


@contextlib.contextmanager
def uncertain_forgotten() -> Iterator[None]:
    """A segment whose commit failed, and which may be visible, is followed by another one."""
    settle = Store._settle

    def forgetting(self: Store, planned: Any, failed: Mapping[str, Exception]) -> None:
        settle(self, planned, failed)
        self._uncertain.clear()
        self._evict_active_segments()

    with patch.object(Store, "_settle", forgetting):
        yield


def welcomed_while_under_way() -> Any:
    """A producer that comes back is not made to wait for what it sent before."""

    async def hasty(self: Committer, name: str) -> None:
        while not self._store.is_ready(name):
            await self._store.recover_stream(name)

    return patch.object(Committer, "barrier", hasty)


def producers_not_stored() -> Any:
    """Segments do not say how far producers are."""
    return patch.object(plan, "advance", lambda known, *_: known)


@contextlib.contextmanager
def shown_before_sync() -> Iterator[None]:
    """A follower hands out what is visible and not synced."""
    with patch.object(follower, "sync_directory", nothing), marks_ignored():
        yield


def marks_ignored() -> Any:
    """A follower syncs for itself beside a daemon, and believes that."""
    return patch.object(MarkReader, "read", nothing)


def mark_moved_before_sync() -> Any:
    """Followers are told that a segment is durable before its directory is synced."""

    def publish(self: SegmentWriter) -> None:
        self.prepare()
        self._writer.publish()
        self._on_durable()
        self._writer.sync_directory()

    return patch.object(SegmentWriter, "publish", publish)


@contextlib.contextmanager
def mark_begun_after_commit() -> Iterator[None]:
    """The mark of a stream is made when its first segment has its name."""
    commit = Store.commit

    async def begin_nothing(_self: Store, _commits: Sequence[StreamCommit]) -> None:
        pass

    async def begin_late(
        self: Store, planned: Any, before: Any = (), **options: Any
    ) -> dict[str, Exception]:
        failed = await commit(self, planned, before, **options)
        assert self._opened is not None
        marks = self._opened.marks
        for name, segment in planned.items():
            if segment.plan and name not in failed and not marks.has_begun(name):
                marks.begin(name, segment.plan.last)
        return failed

    # Both for as long as the mutant lives: commits are under way at the same time, and patches
    # that each makes for itself are not undone in the order in which they were made.
    with (
        patch.object(Store, "_begin_marks", begin_nothing),
        patch.object(Store, "commit", begin_late),
    ):
        yield


def _unlink(compactor: Compactor, name: str, names: Collection[str]) -> None:
    with compactor._data.subdirectory(name) as directory:
        remove_covered(directory, names)


def covered_removed_before_sync() -> Any:
    """What a merge or a seal covers is removed before the result's name is synced."""

    async def publish(
        self: Compactor, name: str, writer: SegmentWriter, _needed: Any, covered: Any
    ) -> None:
        writer._writer.publish()
        _unlink(self, name, covered)
        writer._writer.sync_directory()

    return patch.object(Compactor, "_publish", publish)


def covered_removed_before_replace() -> Any:
    """The plain segments are removed, and then the sealed one takes its name."""

    async def publish(
        self: Compactor, name: str, writer: SegmentWriter, _needed: Any, covered: Any
    ) -> None:
        _unlink(self, name, covered)
        writer.publish()

    return patch.object(Compactor, "_publish", publish)


def leftover_trusted() -> Any:
    """What a failed compaction made visible is taken for durable by the next attempt."""

    async def clear_up(self: Compactor, name: str, leftover: Leftover) -> None:
        _unlink(self, name, leftover.names)

    return patch.object(Compactor, "_clear_up", clear_up)


def removals_not_synced() -> Any:
    """Retention removes several segments, and none of it is synced."""
    return patch.object(DurableNames, "sync", nothing)


def unsealed_removed() -> Any:
    """Retention removes whatever is the oldest, and there is a newer one."""

    def oldest(self: Retainer, directory: Directory, start: int) -> Oldest | None:
        firsts = [first for first in list_segments(directory) if first >= start]
        if len(firsts) < 2:
            return None
        header = read_header(directory, firsts[0])
        return Oldest(header.file_name, header.last, 1, header.until)

    return patch.object(Retainer, "_oldest", oldest)


def cursors_overlooked() -> Any:
    """Retention removes what a registered cursor has not passed."""
    return patch.object(retention, "read_cursors", lambda _data: {})


def failed_sync_forgotten() -> Any:
    """A directory sync failed, and with it what a seal had removed; retention goes on."""
    return patch.object(DurableNames, "note_failed_sync", nothing)


def drops_not_synced() -> Any:
    """A full disk takes several segments, and none of it is synced."""
    return patch.object(DurableNames, "sync", nothing)


def newest_dropped() -> Any:
    """A full disk takes all segments that there are."""

    def drop(
        segments: Iterable[StoredSegment], _wanted_bytes: int, _next_seq: int
    ) -> list[StoredSegment]:
        return list(segments)

    return patch.object(stream, "oldest_to_drop", drop)


def _one_flush_synced_by(sync: Callable[[int], None]) -> Any:
    two_flushes = OneFlushWriter.sync_directory

    def sync_directory(self: OneFlushWriter) -> None:
        if not self._is_unflushed:
            two_flushes(self)
            return
        sync(self.file.fileno())
        self.file.close()
        self._let_go()

    return patch.object(OneFlushWriter, "sync_directory", sync_directory)


def one_flush_without_wait() -> Any:
    """With one flush, the name is given before the disk has the data."""
    return patch.object(OneFlushWriter, "_write_back", lambda *_: True)


def one_flush_without_fsync() -> Any:
    """With one flush, nothing is synced after the rename."""
    return _one_flush_synced_by(nothing)


def one_flush_with_fdatasync() -> Any:
    """With one flush, the file is synced by fdatasync, which may leave the rename out."""

    def sync(descriptor: int) -> None:
        os.fdatasync(descriptor)  # the recorder's

    return _one_flush_synced_by(sync)


@contextlib.contextmanager
def one_flush_before_rename() -> Iterator[None]:
    """With one flush, the file is fsynced before the rename, and not after it."""

    def fsync(self: OneFlushWriter, *_: object) -> bool:
        os.fsync(self.file.fileno())
        return True

    with patch.object(OneFlushWriter, "_write_back", fsync), one_flush_without_fsync():
        yield


CAUGHT_BY_CUTS_OF_ONE_FLUSH: Sequence[Mutant] = (
    one_flush_without_wait,
    one_flush_without_fsync,
    one_flush_with_fdatasync,
    one_flush_before_rename,
)
CAUGHT_BY_CUTS: Sequence[Mutant] = (
    file_not_synced,
    directory_not_synced,
    parent_not_synced,
    acked_before_commit,
    acked_before_directory_sync,
    replaced_before_fsync,
    directory_synced_before_replace,
    written_in_place,
    recovery_without_sync,
    recovery_keeps_temps,
    welcomed_while_under_way,
    producers_not_stored,
    shown_before_sync,
    covered_removed_before_sync,
    covered_removed_before_replace,
)
# Found by cuts of so many runs that it takes minutes; the simulation finds it in seconds.
CAUGHT_BY_MANY_CUTS: Sequence[Mutant] = (previous_commit_not_awaited,)
CAUGHT_BY_FAULTS: Sequence[Mutant] = (
    fsync_tried_again,
    fsync_error_swallowed,
    directory_sync_error_swallowed,
    directory_sync_tried_again,
    directory_of_failed_sync_kept,
    short_write_taken_for_whole,
    temp_kept,
    state_not_set_back,
    uncertain_forgotten,
    leftover_trusted,
)
# In runs with retention, or in which a full disk takes the oldest segments.
CAUGHT_BY_CUTS_OF_RETENTION: Sequence[Mutant] = (
    removals_not_synced,
    unsealed_removed,
    cursors_overlooked,
)
CAUGHT_BY_FAULTS_OF_RETENTION: Sequence[Mutant] = (failed_sync_forgotten,)
# In runs in which the sync of a stream's directory fails, and then the process is killed.
CAUGHT_BY_RESTARTS: Sequence[Mutant] = (recovery_without_copy,)
CAUGHT_BY_RESTARTS_BESIDE_A_RETENTION: Sequence[Mutant] = (restart_forgets_failed_sync,)
# In runs that are followed, in which the sync of a stream's directory fails.
CAUGHT_BY_FOLLOWERS: Sequence[Mutant] = (
    marks_ignored,
    mark_moved_before_sync,
    mark_begun_after_commit,
)
CAUGHT_BY_FULL_DISKS: Sequence[Mutant] = (drops_not_synced, newest_dropped)
