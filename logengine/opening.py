"""A data directory opened to be written: locked, marked, its streams recovered. Blocking calls."""

from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from logengine.data_directory import LockedDirectory
from logengine.directory import Directory
from logengine.plan import StreamState
from logengine.running import Running
from logengine.segment_file import list_streams
from logengine.stream import Recovery, recover

log = structlog.get_logger()


@dataclass
class OpenedData:
    """A data directory that this process writes in, until it is closed.

    `recovered` is what was found of each stream, or why it could not be recovered now.
    """

    locked: LockedDirectory
    running: Running
    rewrite_limit: int
    recovered: dict[str, Recovery | OSError] = field(default_factory=dict)

    @property
    def directory(self) -> Directory:
        """The directory, open."""
        return self.locked.directory

    @property
    def had_streams(self) -> bool:
        """Whether there were any when it was opened."""
        return bool(self.recovered)

    def recover(self, stream: str, active_bytes_max: int) -> Recovery:
        """Makes one stream ready, be it there or not. Raises `OSError`."""
        try:
            directory = self.directory.subdirectory(stream)
        except FileNotFoundError:
            return Recovery(StreamState(stream))
        with directory:
            return recover(
                directory,
                rewrite_limit=self.rewrite_limit,
                active_bytes_max=active_bytes_max,
                writes_again=self.running.died_before,
                unsynced=self.running.unsynced,
            )

    def close(self, *, is_in_doubt: bool) -> None:
        """Gives the directory free; unless it `is_in_doubt`, this process ended well there."""
        if not (is_in_doubt or self.running.unsynced):
            self.running.end()
        self.locked.close()


def open_data(
    path: Path, executor: Executor, *, boot_id: str, rewrite_limit: int, active_cache: int
) -> OpenedData:
    """Locks and recovers the directory that `path` means now.

    After a process that was killed in this boot, the threads of `executor` share the streams,
    because each has to be written to. Active segments of up to `active_cache` bytes in all are
    kept. Raises `DataDirectoryLocked` if another daemon has it, and `OSError`.
    """
    locked = LockedDirectory.lock(path)
    try:
        running = Running(locked.directory, boot_id, _tell_of_unsynced)
        running.begin()
        # A stream's directory that somebody put here may not be on the disk yet.
        locked.directory.sync()
        opened = OpenedData(locked, running, rewrite_limit)
        streams = list_streams(locked.directory)
        found = _recoveries(opened, streams, executor, active_cache)
        opened.recovered.update(zip(streams, found, strict=True))
        return opened
    except BaseException:
        locked.close()
        raise


def _recoveries(
    opened: OpenedData, streams: Sequence[str], executor: Executor, active_cache: int
) -> Iterable[Recovery | OSError]:
    """What recovery gives of each of `streams`, or why it does not."""
    if opened.running.died_before:
        # Each its share: what the others take of the cache is not known meanwhile.
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
        reason="a sync of its directory failed",
    )
