"""The names in the directories of streams, and which of them may be in doubt. Blocking calls.

A sync of a directory that failed may have lost a name for good, or may bring back one that was
removed, and no later sync reports it: fsync(2), Rebello et al. (ATC 2020). After that, nothing
more may be removed from the stream until the machine is booted again: what comes back would
stand before a hole, or without the segment that covers it.

All that removes a file from a stream's directory, or renames one in it, goes through this module.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator

from logengine.disk.atomic import AtomicWriter
from logengine.disk.directory import AnyDirectory, Directory, opened

# What a removal is held to cost the disk, as much as so many bytes.
_REMOVAL_BYTES = 32 * 1024


class DurableNames:
    """Makes changes of names durable, and keeps the streams for which that failed.

    `note` is called once for each stream, in the thread whose sync failed. Methods that sync
    raise `AtomicWriteError`, and the stream is among the `unsynced` by then.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._unsynced: set[str] = set()

    @property
    def unsynced(self) -> frozenset[str]:
        """The streams of which nothing more may be removed in this boot."""
        return frozenset(self._unsynced)

    def may_remove_from(self, stream: str) -> bool:
        """Whether no sync of the stream's directory has failed."""
        return stream not in self._unsynced

    def take_over(self, streams: Iterable[str]) -> None:
        """Adds streams that an earlier process of this boot noted."""
        self._unsynced.update(streams)

    def note_failed_sync(self, stream: str) -> None:
        """Ends removals from a stream until the machine is booted again."""
        if stream not in self._unsynced:
            self._unsynced.add(stream)
            self._note(stream)

    def sync(self, directory: Directory) -> None:
        """Makes all names in a stream's directory durable, whoever changed them."""
        try:
            directory.sync()
        except BaseException:
            self.note_failed_sync(directory.name)
            raise

    def publish(self, writer: AtomicWriter, stream: str) -> None:
        """Gives a file that is prepared its name in the stream's directory, durably."""
        writer.publish()
        try:
            writer.sync_directory()
        except BaseException:
            # With its own name it may have lost what a compaction removed just before.
            self.note_failed_sync(stream)
            raise

    @contextlib.contextmanager
    def published_by(self, writer: AtomicWriter, stream: str) -> Iterator[AtomicWriter]:
        """The writer inside its own `with`: its file is durable under its name after that."""
        try:
            with writer:
                yield writer
        except BaseException:
            if writer.published:
                self.note_failed_sync(stream)
            raise

    def remove(self, directory: Directory, name: str) -> bool:
        """Removes one file; durable when it returns. False if it was gone already.

        That is synced all the same: whoever removed it may not have done so. One file at a time,
        because unlinks without a sync between them have no order in a power cut. Raises `OSError`.
        """
        is_removed = True
        try:
            directory.unlink(name)
        except FileNotFoundError:
            is_removed = False
        self.sync(directory)
        return is_removed

    def remove_together(self, directory: Directory, names: Iterable[str]) -> None:
        """Removes files that may come back in any order, such as temps, with one sync.

        The directory is synced also if there are none. Raises `OSError`.
        """
        for name in names:
            directory.unlink(name)
        self.sync(directory)


def remove_covered(
    directory: AnyDirectory, names: Collection[str], pace: Callable[[int], None] | None = None
) -> None:
    """Removes segments whose records another one holds, which is durable. Raises `OSError`.

    The newest goes first. Those that are gone already were removed together with that one.
    Nothing is synced: what a power cut brings back is covered as before. `pace` is called after
    each removal, as for so many bytes, and may wait.
    """
    with opened(directory) as within:
        for name in sorted(names, reverse=True):
            with contextlib.suppress(FileNotFoundError):
                within.unlink(name)
            if pace is not None:
                pace(_REMOVAL_BYTES)
