"""Durable changes of names in stream directories, and the streams whose sync failed.

Blocking calls. A failed directory sync may have lost a name permanently, or may bring a removed
name back, and no later sync reports it: fsync(2), Rebello et al. (ATC 2020). After a failed sync,
nothing more may be removed from the stream until the next boot: a segment that comes back would
be followed by a hole, or lack the segment that covers it.

Every removal and rename of a file in a stream's directory goes through this module.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator

from logengine.disk.atomic import AtomicWriter
from logengine.disk.directory import AnyDirectory, Directory, opened

# The assumed disk cost of a removal: the same as writing this many bytes.
_REMOVAL_BYTES = 32 * 1024


class DurableNames:
    """Makes changes of names durable, and remembers the streams for which that failed.

    `note` is called once per stream, in the thread whose sync failed. Methods that sync raise
    `AtomicWriteError`; the stream is then already in `unsynced`.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._unsynced: set[str] = set()

    @property
    def unsynced(self) -> frozenset[str]:
        """The streams from which nothing more may be removed in this boot."""
        return frozenset(self._unsynced)

    def may_remove_from(self, stream: str) -> bool:
        """Whether no sync that the stream's names need has failed."""
        return stream not in self._unsynced

    def take_over(self, streams: Iterable[str]) -> None:
        """Adds streams noted by an earlier process of this boot."""
        self._unsynced.update(streams)

    def note_failed_sync(self, stream: str) -> None:
        """Stops removals from a stream until the next boot."""
        if stream not in self._unsynced:
            self._unsynced.add(stream)
            self._note(stream)

    def sync(self, directory: Directory) -> None:
        """Makes all names in a stream's directory durable, whichever process changed them."""
        try:
            directory.sync()
        except BaseException:
            self.note_failed_sync(directory.name)
            raise

    def publish(self, writer: AtomicWriter, stream: str) -> None:
        """Gives a prepared file its name in the stream's directory, durably."""
        writer.publish()
        try:
            writer.sync_directory()
        except BaseException:
            # Besides its own name, the sync may have lost removals that a compaction just made.
            self.note_failed_sync(stream)
            raise

    @contextlib.contextmanager
    def published_by(self, writer: AtomicWriter, stream: str) -> Iterator[AtomicWriter]:
        """Yields the writer inside its own `with`; after that, its file is durable."""
        try:
            with writer:
                yield writer
        except BaseException:
            if writer.published:
                self.note_failed_sync(stream)
            raise

    def remove(
        self, directory: Directory, name: str, on_removed: Callable[[], None] = lambda: None
    ) -> bool:
        """Removes one file durably. Returns False if it was already gone.

        The directory is synced even then: the earlier removal may not have been. One file at a
        time, because a power cut may reorder unlinks without a sync between them. `on_removed` is
        called before the sync: after a failed one, the file is gone all the same, and whatever
        the removal is reported to must have it. Raises `OSError`.
        """
        is_removed = True
        try:
            directory.unlink(name)
        except FileNotFoundError:
            is_removed = False
        try:
            if is_removed:
                on_removed()
        finally:
            self.sync(directory)
        return is_removed

    def remove_together(self, directory: Directory, names: Iterable[str]) -> None:
        """Removes files that may come back in any order, such as temp files, with one sync.

        The directory is synced even if there are none. Raises `OSError`.
        """
        for name in names:
            directory.unlink(name)
        self.sync(directory)


def remove_covered(
    directory: AnyDirectory, names: Collection[str], pace: Callable[[int], None] | None = None
) -> None:
    """Removes segments whose records a durable segment contains. Raises `OSError`.

    Newest first. Segments already gone were removed together with the covering one. Nothing is
    synced: what a power cut brings back is covered as before. `pace` is called after each removal
    with its assumed cost in bytes, and may wait.
    """
    with opened(directory) as within:
        for name in sorted(names, reverse=True):
            with contextlib.suppress(FileNotFoundError):
                within.unlink(name)
            if pace is not None:
                pace(_REMOVAL_BYTES)
