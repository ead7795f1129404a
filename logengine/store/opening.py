"""Opens a data directory for writing: locks it, marks it, recovers its streams. Blocking calls."""

import errno
import os
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import structlog

from logengine.disk.crash_mark import CRASH_MARK_NAME, CrashMark
from logengine.disk.data_directory import LOCK_NAME, LockedDirectory
from logengine.disk.directory import Directory
from logengine.disk.durable_mark import DurableMarks
from logengine.disk.segment_file import list_streams, not_streams
from logengine.errors import DataDirectoryIncomplete
from logengine.store.plan import StreamState
from logengine.store.stream import Recovery, recover
from logengine.store.writers_ahead import WritersAhead

log = structlog.get_logger()


@dataclass
class OpenedData:
    """A data directory that this process writes to, until it is closed.

    `recovered` is the result for each stream, or the error if it could not be recovered.
    """

    locked: LockedDirectory
    crash_mark: CrashMark
    marks: DurableMarks
    rewrite_limit: int
    recovered: dict[str, Recovery | OSError] = field(default_factory=dict)
    ahead: WritersAhead = field(init=False)

    def __post_init__(self) -> None:
        self.ahead = WritersAhead(self.locked.directory)

    @property
    def directory(self) -> Directory:
        """The directory, open."""
        return self.locked.directory

    def recover(self, stream: str, active_bytes_max: int) -> Recovery:
        """Makes one stream ready, whether or not it exists. Raises `OSError`."""
        try:
            directory = self.directory.subdirectory(stream)
        except FileNotFoundError:
            return Recovery(StreamState(stream))
        with directory:
            recovery = recover(
                directory,
                rewrite_limit=self.rewrite_limit,
                active_bytes_max=active_bytes_max,
                writes_again=self.crash_mark.died_before,
                known_durable=partial(self.marks.known_durable, stream),
                names=self.crash_mark.names,
            )
        self.marks.recovered(stream, recovery.state.next_seq - 1)
        return recovery

    def recover_late(self, stream: str, active_bytes_max: int) -> Recovery:
        """Recovers a stream that was missing or not recoverable when the directory was opened."""
        recovery = self.recover(stream, active_bytes_max)
        if recovery.segments:
            self.crash_mark.note_streams([stream])
        return recovery

    def close(self, *, is_in_doubt: bool) -> None:
        """Unlocks the directory; records a clean stop unless the directory `is_in_doubt`."""
        self.ahead.close()
        if not (is_in_doubt or self.crash_mark.names.unsynced):
            self.marks.end()
            self.crash_mark.end()
        else:
            self.marks.catch_up()  # the last chance until a daemon runs again
        self.locked.close()


def open_data(
    path: Path, executor: Executor, *, boot_id: str, rewrite_limit: int, active_cache: int
) -> OpenedData:
    """Locks and recovers the directory at `path`.

    If an earlier process was killed in this boot, the threads of `executor` share the streams,
    because each needs writes. Keeps active segments of up to `active_cache` bytes in all. Raises
    `DataDirectoryLocked` if another daemon has the directory, `DataDirectoryIncomplete` if it
    lists less than it contains, and `OSError`.
    """
    locked = LockedDirectory.lock(path)
    try:
        crash_mark = CrashMark(locked.directory, boot_id, _tell_of_unsynced)
        crash_mark.look()
        # A stream's directory that somebody placed here may not be on disk yet.
        locked.directory.sync()
        streams = list_streams(locked.directory)
        for name, what in not_streams(locked.directory).items():
            log.error("not_a_stream", path=locked.directory.path_of(name), reason=what)
        _check_that_all_is_there(locked.directory, streams, crash_mark.streams)
        crash_mark.begin()
        marks = DurableMarks(locked.directory, boot_id)
        opened = OpenedData(locked, crash_mark, marks, rewrite_limit)
        found = _recoveries(opened, streams, executor, active_cache)
        opened.recovered.update(zip(streams, found, strict=True))
        crash_mark.note_streams(
            stream
            for stream, recovery in opened.recovered.items()
            if not isinstance(recovery, OSError) and recovery.segments
        )
        return opened
    except BaseException:
        locked.close()
        locked.directory.close()
        raise


def _check_that_all_is_there(
    directory: Directory, streams: Collection[str], before: Collection[str]
) -> None:
    """Raises if the directory lists less than it contains, or none of the streams in `before`.

    A file system that has shut down may list nothing: btrfs, after a failed flush, lists its
    directories as empty and reports success for their sync. A daemon that believes it would begin
    at number 1.
    """
    if os.fstatvfs(directory.descriptor).f_flag & os.ST_RDONLY:
        # The kernel also remounts read-only after errors. Nothing could be committed anyway.
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), directory.path)
    if LOCK_NAME not in directory.names():
        raise DataDirectoryIncomplete(
            f"{directory} does not list {LOCK_NAME}, which is in it: its file system has failed; "
            "see the kernel's log, and mount it again"
        )
    hidden = [stream for stream in before if stream not in streams and directory.has(stream)]
    if hidden:
        raise DataDirectoryIncomplete(
            f"{directory} does not list {hidden[0]}, which is in it: its file system has failed; "
            "see the kernel's log, and mount it again"
        )
    # A single stream may have been removed by hand; that is no error. All of them is suspicious.
    if before and not any(stream in streams for stream in before):
        raise DataDirectoryIncomplete(
            f"{directory} has none of the {len(before)} streams of an earlier daemon, which did "
            f"not stop cleanly; if they were removed on purpose, remove "
            f"{directory.path_of(CRASH_MARK_NAME)} too"
        )


def _recoveries(
    opened: OpenedData, streams: Sequence[str], executor: Executor, active_cache: int
) -> Iterable[Recovery | OSError]:
    """The recovery of each of `streams`, or its error."""
    if opened.crash_mark.died_before:
        # An equal share each: how much of the cache the other threads use is not known.
        share_bytes = active_cache // max(1, len(streams))
        return executor.map(lambda stream: _try_to_recover(opened, stream, share_bytes), streams)

    def one_after_the_other() -> Iterable[Recovery | OSError]:
        left_bytes = active_cache
        for stream in streams:
            recovery = _try_to_recover(opened, stream, left_bytes)
            if not isinstance(recovery, OSError) and recovery.state.active:
                left_bytes -= len(recovery.state.active.body)
            yield recovery

    return one_after_the_other()


def _try_to_recover(opened: OpenedData, stream: str, active_bytes_max: int) -> Recovery | OSError:
    try:
        return opened.recover(stream, active_bytes_max)
    except OSError as error:
        return error


def _tell_of_unsynced(stream: str) -> None:
    log.error(
        "removals_ended",
        stream=stream,
        until="the next boot",
        reason="a sync of its files or their directory failed",
    )
