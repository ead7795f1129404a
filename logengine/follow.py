"""Follow mode: new records as soon as they are on disk, without polling.

A file is visible from its rename on, a moment before its directory is synced; what is
shown in that moment may be gone after a power cut, and its number then belongs to another
record. So the directory is synced here before a record is handed out.
"""

import errno
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path

from asyncinotify import Event, Inotify, Mask, Watch

from logengine.block import Block
from logengine.directory import sync_directory
from logengine.errors import AtomicWriteError
from logengine.reader import Report, StreamReader
from logengine.segment import first_of_name
from logengine.segment_file import list_streams

_NEW_SEGMENT = Mask.MOVED_TO | Mask.ONLYDIR
_STREAM_CAME = Mask.CREATE | Mask.MOVED_TO
_STREAM_WENT = Mask.DELETE | Mask.MOVED_FROM
_STREAMS = _STREAM_CAME | _STREAM_WENT | Mask.MOVE_SELF | Mask.ONLYDIR
_DATA_WENT = Mask.IGNORED | Mask.MOVE_SELF


class Follower:
    """Hands out what is added to some streams, or to all, from given positions on.

    `readers` are where each stream goes on; of a stream that is not among them, and is
    followed, everything is new. A stream that is removed and made anew begins anew.
    """

    def __init__(
        self,
        data: Path,
        streams: Collection[str] | None,
        readers: dict[str, StreamReader],
        report: Report,
    ) -> None:
        self._data = data
        self._streams = streams
        self._readers = readers
        self._report = report
        self._watches: dict[str, Watch] = {}

    async def blocks(self) -> AsyncIterator[Block]:
        """What is durable and was not handed out yet, for ever. Raises `OSError`."""
        while True:
            await _wait_for_directory(self._data)
            with Inotify() as inotify:
                self._watches.clear()
                try:
                    # Watched first and read after: nothing falls in between.
                    data_watch = inotify.add_watch(self._data, _STREAMS)
                    streams = self._watch_streams(inotify)
                except (FileNotFoundError, NotADirectoryError):
                    continue  # removed again
                for stream in streams:
                    for block in self._new_blocks(stream):
                        yield block
                async for block in self._watched_blocks(inotify, data_watch):
                    yield block
            # Whatever comes under the data directory's name now is another one.
            self._readers.clear()

    async def _watched_blocks(self, inotify: Inotify, data_watch: Watch) -> AsyncIterator[Block]:
        """What the watches tell of, until the data directory is removed."""
        async for event in inotify:
            if not event.mask & Mask.Q_OVERFLOW and event.watch is not data_watch:
                for block in self._blocks_of_segment(event):
                    yield block
                continue
            if event.mask & _DATA_WENT:
                return
            if event.mask & _STREAM_WENT:
                self._forget(inotify, str(event.name))
            try:
                changed = self._watch_streams(inotify)
            except FileNotFoundError:
                return
            if event.mask & Mask.Q_OVERFLOW:
                changed = list(self._watches)  # what changed is among what was lost
            for stream in changed:
                for block in self._new_blocks(stream):
                    yield block

    def _blocks_of_segment(self, event: Event) -> Iterator[Block]:
        """What is new because of a segment that came under its name."""
        watch, first = event.watch, first_of_name(str(event.name))
        if watch is None or first is None or not event.mask & Mask.MOVED_TO:
            return
        stream = watch.path.name
        # An event of a stream that went may come after that.
        if self._watches.get(stream) is watch:
            yield from self._new_blocks(stream, first)

    def _new_blocks(self, stream: str, first: int | None = None) -> Iterator[Block]:
        """What is new in a stream, segment `first` being the one that changed, if one is told."""
        reader = self._readers.get(stream)
        if reader is None:
            reader = self._readers[stream] = StreamReader(self._data, stream, self._report)
        try:
            for block in reader.read() if first is None else reader.read_changed(first):
                sync_directory(self._data / stream)
                yield block
        except FileNotFoundError:
            return  # the stream was removed
        except AtomicWriteError as error:
            if error.errno != errno.ENOENT:
                raise

    def _watch_streams(self, inotify: Inotify) -> list[str]:
        """Watches the streams that have come into being; gives those."""
        new = []
        for stream in list_streams(self._data):
            if self._streams is not None and stream not in self._streams:
                continue
            try:
                watch = inotify.add_watch(self._data / stream, _NEW_SEGMENT)
            except FileNotFoundError:
                continue  # removed since it was listed
            # The same directory gives the same watch.
            if watch is not self._watches.get(stream):
                if stream in self._watches:
                    self._readers.pop(stream, None)
                self._watches[stream] = watch
                new.append(stream)
        return new

    def _forget(self, inotify: Inotify, stream: str) -> None:
        watch = self._watches.pop(stream, None)
        if watch is None:
            return
        self._readers.pop(stream, None)
        try:
            inotify.rm_watch(watch)
        except OSError as error:
            if error.errno != errno.EINVAL:  # it went with its directory
                raise


async def _wait_for_directory(path: Path) -> None:
    """Waits until a directory is there, by watching the nearest one above it that is."""
    while not path.is_dir():
        existing = _nearest_directory(path)
        with Inotify() as inotify:
            try:
                inotify.add_watch(existing, Mask.CREATE | Mask.MOVED_TO | Mask.MOVE_SELF)
            except FileNotFoundError:
                continue
            # The next one may have been made before this one was watched.
            if _nearest_directory(path) == existing:
                await inotify.get()


def _nearest_directory(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.is_dir())
