"""Follow mode: new records as soon as they are on disk, without polling.

A file is visible from its rename on, a moment before its directory is synced; what is
shown in that moment may be gone after a power cut, and its number then belongs to another
record. So the directory is synced here before a record is handed out.
"""

from collections.abc import AsyncIterator, Collection
from pathlib import Path

from asyncinotify import Inotify, Mask

from logengine.atomic import sync_directory
from logengine.reader import Block, Report, StreamReader
from logengine.segment_file import list_streams

_NEW_SEGMENT = Mask.MOVED_TO | Mask.ONLYDIR
_NEW_STREAM = Mask.CREATE | Mask.MOVED_TO | Mask.ONLYDIR


class Follower:
    """Hands out what is added to some streams, or to all, from given positions on.

    `readers` are where each stream goes on; of a stream that is not among them, and is
    followed, everything is new.
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
        self._watched: set[str] = set()

    async def blocks(self) -> AsyncIterator[Block]:
        """What is durable and was not handed out yet, for ever. Raises `OSError`."""
        with Inotify() as inotify:
            await self._wait_for_data(inotify)
            # Watched first and read after: nothing falls in between.
            inotify.add_watch(self._data, _NEW_STREAM)
            for stream in self._watch_streams(inotify):
                for block in self._new_blocks(stream):
                    yield block
            async for event in inotify:
                if event.mask & Mask.Q_OVERFLOW:
                    self._watch_streams(inotify)
                    changed = list(self._watched)
                elif event.path is not None and event.path.parent == self._data:
                    changed = self._watch_streams(inotify)
                elif event.path is not None:
                    changed = [event.path.parent.name]
                else:
                    continue
                for stream in changed:
                    for block in self._new_blocks(stream):
                        yield block

    def _new_blocks(self, stream: str) -> list[Block]:
        reader = self._readers.get(stream)
        if reader is None:
            reader = self._readers[stream] = StreamReader(self._data, stream, self._report)
        try:
            blocks = list(reader.read())
            if blocks:
                sync_directory(self._data / stream)
        except FileNotFoundError:
            return []  # the stream was removed
        return blocks

    def _watch_streams(self, inotify: Inotify) -> list[str]:
        """Watches the streams that have come into being; gives those."""
        new = [
            stream
            for stream in list_streams(self._data)
            if stream not in self._watched and (self._streams is None or stream in self._streams)
        ]
        for stream in new:
            inotify.add_watch(self._data / stream, _NEW_SEGMENT)
            self._watched.add(stream)
        return new

    async def _wait_for_data(self, inotify: Inotify) -> None:
        """Waits until the data directory is there, by watching what will hold it."""
        while not self._data.is_dir():
            existing = _nearest_directory(self._data)
            watch = inotify.add_watch(existing, Mask.CREATE | Mask.MOVED_TO)
            # It may have been made before it was watched for.
            if _nearest_directory(self._data) == existing:
                await inotify.get()
            inotify.rm_watch(watch)


def _nearest_directory(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.is_dir())
