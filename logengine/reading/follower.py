"""Follow mode: new records as soon as they are on disk, as inotify reports them.

A file is visible from its rename on, a moment before its directory is synced. What is shown in
that moment may be gone after a power cut, and its number then belongs to another record. So a
follower returns only records that are durable according to the daemon's mark (`durable_mark`). If
there is no mark, as with a daemon that keeps none, it syncs the directory itself. If the user's
inotify instances or watches are used up, it looks again at intervals.
"""

import asyncio
import contextlib
import errno
from collections.abc import AsyncIterator, Container, Iterator
from pathlib import Path

from asyncinotify import Event, Inotify, Mask, Watch

from logengine.disk.crash_mark import CRASH_MARK_NAME
from logengine.disk.directory import sync_directory
from logengine.disk.durable_mark import MARKS_NAME, Mark, MarkReader
from logengine.disk.segment_file import list_segments, list_streams
from logengine.errors import AtomicWriteError
from logengine.format.block import Block, Record
from logengine.format.segment import first_of_name
from logengine.format.time_range import ALL_TIMES, TimeRange
from logengine.reading.filter import Filter
from logengine.reading.newest_records import last_records
from logengine.reading.polled_watches import (
    LOOK_EVERY_S,
    PolledEvent,
    PolledWatch,
    PolledWatches,
)
from logengine.reading.problem import Problem, Report
from logengine.reading.reader import StreamReader

_MARK_MOVED = Mask.MODIFY | Mask.MOVED_TO
_NEW_SEGMENT = Mask.MOVED_TO | Mask.ONLYDIR
_STREAM_CAME = Mask.CREATE | Mask.MOVED_TO
_STREAM_WENT = Mask.DELETE | Mask.MOVED_FROM
_STREAMS = _STREAM_CAME | _STREAM_WENT | Mask.MOVE_SELF | Mask.ONLYDIR
_DATA_WENT = Mask.IGNORED | Mask.MOVE_SELF
# How many removed streams keep their position: by default more than any one daemon has streams.
# Beyond that, the one removed first is forgotten; if it reappears, it counts as a new stream.
_REMOVED_STREAMS_MAX = 10_000

_AnyEvent = Event | PolledEvent
_AnyWatch = Watch | PolledWatch
_AnyWatches = Inotify | PolledWatches


class _InotifyExhausted(Exception):
    """The user's inotify instances or watches are used up; the message says which limit it is."""


class Follower:
    """Returns the records that are added to some streams, or to all, from given positions on.

    `readers` says where each stream continues. All records of a followed stream without a reader
    are new. If a stream's directory is removed and another one appears, or the same one comes
    back, its records decide. If they begin after what was returned, the daemon has continued its
    numbers, and so does this. If it contains the record that was returned last, it is the same
    stream, and only what comes after that is new. Otherwise it is another stream, and all of it is
    new.
    """

    def __init__(
        self,
        data: Path,
        streams: Container[str] | None,
        readers: dict[str, StreamReader],
        report: Report,
    ) -> None:
        self._data = data
        self._streams = streams
        self._readers = readers
        # The first number still wanted of each followed stream whose directory was removed.
        self._wanted_from: dict[str, int] = {}
        # The number and the time of a record of each stream, by which the stream is recognized.
        self._known: dict[str, tuple[int, str]] = {}
        self._report = report
        self._marks = _Marks(data, report)
        self._watches: dict[str, _AnyWatch] = {}
        # One for each stream, or one for all under MARKS_NAME.
        self._mark_watches: dict[str, _AnyWatch] = {}
        self._is_polling = False
        self._unreported: str | None = None  # why it polls

    async def blocks(self) -> AsyncIterator[Block]:
        """Durable records that were not returned yet. Waits for more. Raises `OSError`."""
        while True:
            await _wait_for_directory(self._data)
            try:
                with PolledWatches() if self._is_polling else _inotify() as inotify:
                    async for block in self._blocks_of_directory(inotify):
                        yield block
            except _InotifyExhausted as exhausted:
                # The directories are the same, and so are the readers' positions.
                self._is_polling = True
                self._unreported = str(exhausted)
            else:
                # A data directory that appears under this name may be another one.
                for stream in self._watches:
                    self._end_reader_of(stream)
            self._watches.clear()
            self._mark_watches.clear()

    async def _blocks_of_directory(self, inotify: _AnyWatches) -> AsyncIterator[Block]:
        """New records, until the data directory is removed."""
        try:
            # Watch first, then read: nothing can be missed in between.
            data_watch = _watched(inotify, self._data, _STREAMS)
            streams = self._watch_streams(inotify)
        except (FileNotFoundError, NotADirectoryError):
            return
        for stream in streams:
            self._know(stream)
        # A stream that was removed before it was watched may be another one when it appears.
        for stream in self._readers.keys() - self._watches.keys():
            self._end_reader_of(stream)
        for stream in streams:
            for block in self._new_blocks(inotify, stream):
                yield block
        async for block in self._watched_blocks(inotify, data_watch):
            yield block

    async def _watched_blocks(
        self, inotify: _AnyWatches, data_watch: _AnyWatch
    ) -> AsyncIterator[Block]:
        """New records, as the watches report them, until the data directory is removed."""
        async for event in inotify:
            if not event.mask & Mask.Q_OVERFLOW and event.watch is not data_watch:
                for stream, first in self._changed_by(event):
                    for block in self._new_blocks(inotify, stream, first):
                        yield block
                continue
            if event.mask & _DATA_WENT:
                return
            try:
                changed = self._changed_streams(inotify, event)
            except FileNotFoundError:
                return
            for stream in changed:
                for block in self._new_blocks(inotify, stream):
                    yield block

    def _changed_streams(self, inotify: _AnyWatches, event: _AnyEvent) -> list[str]:
        """The streams to read after an event of the data directory, or after a lost event."""
        if event.mask & _STREAM_WENT:
            self._forget(inotify, str(event.name))
        came = self._watch_streams(inotify)
        # Any stream may be among the lost events. After a clean stop, all that is visible is
        # durable.
        is_any = event.mask & Mask.Q_OVERFLOW or (
            event.mask & _STREAM_WENT and str(event.name) == CRASH_MARK_NAME
        )
        return list(self._watches) if is_any else came

    def _changed_by(self, event: _AnyEvent) -> Iterator[tuple[str, int | None]]:
        """The streams that may have new records after an event, each with the changed segment.

        The event is about a stream's directory, its mark, or the directory of marks; only the
        first names a segment.
        """
        watch = event.watch
        if watch is None:
            return
        name = watch.path.name
        # An event of a stream may arrive after its directory was removed.
        if self._watches.get(name) is watch:
            first = first_of_name(str(event.name))
            if first is not None and event.mask & Mask.MOVED_TO:
                yield name, first
        elif self._mark_watches.get(name) is watch:
            if event.mask & Mask.IGNORED:
                del self._mark_watches[name]  # the mark was removed, or is another file now
            if name != MARKS_NAME:
                yield name, None
            elif event.name is None:
                yield from ((stream, None) for stream in list(self._watches))
            elif str(event.name) in self._watches:
                yield str(event.name), None

    def _new_blocks(
        self, inotify: _AnyWatches, stream: str, first: int | None = None
    ) -> Iterator[Block]:
        """The new records of a stream; `first` is the segment that changed, if known."""
        try:
            self._watch(inotify, stream)
            self._report_polling(stream)
            reader = self._reader_of(stream)
            if reader is not None:
                for block in self._read_durable(inotify, reader, first):
                    last = block.first + block.count - 1
                    self._known[stream] = last, block.last_timestamp()
                    yield block
        except FileNotFoundError:
            return  # the stream was removed
        except AtomicWriteError as error:
            if error.errno != errno.ENOENT:
                raise

    def _read_durable(
        self, inotify: _AnyWatches, reader: StreamReader, first: int | None
    ) -> Iterator[Block]:
        """The durable records from the position of `reader` on. Raises `OSError`."""
        while True:
            # Watch first, then read: no move of the mark can be missed in between.
            self._watch_mark(inotify, reader.stream)
            mark = self._marks.read(reader.stream)
            if mark is not None:
                if mark.last >= reader.next_seq:
                    for block in reader.read_changed(mark.first, mark.last + 1):
                        self._watch_what_was_read(inotify, reader, block)
                        yield block
                return
            for block in reader.read() if first is None else reader.read_changed(first):
                if self._marks.read(reader.stream) is not None:
                    reader.next_seq = block.first
                    break  # a daemon has started since, and may have written this
                try:
                    sync_directory(self._data / reader.stream)
                except AtomicWriteError:
                    reader.next_seq = block.first  # it was not returned
                    raise
                self._watch_what_was_read(inotify, reader, block)
                yield block
            else:
                return

    def _reader_of(self, stream: str) -> StreamReader | None:
        """The reader of a stream; None if only its next segment can show where it continues.

        Raises `OSError`, `FileNotFoundError` if the stream does not exist.
        """
        reader = self._readers.get(stream)
        if reader is not None:
            return reader
        next_seq = self._wanted_from.get(stream, 1)
        if next_seq > 1:
            segments = list_segments(self._data / stream)
            if not segments:
                return None
            if segments[0] < next_seq and not self._is_known(stream):
                next_seq = segments[0]  # another stream of that name
                self._known.pop(stream, None)
        reader = StreamReader(self._data, stream, self._report, next_seq, reports_removed=True)
        self._readers[stream] = reader
        self._wanted_from.pop(stream, None)
        return reader

    def _end_reader_of(self, stream: str) -> None:
        """Drops the reader of a directory that was removed, and keeps its position."""
        reader = self._readers.pop(stream, None)
        if reader is None:
            return
        self._wanted_from[stream] = reader.first_unreported
        if len(self._wanted_from) > _REMOVED_STREAMS_MAX:
            forgotten = next(iter(self._wanted_from))
            del self._wanted_from[forgotten]
            self._known.pop(forgotten, None)

    def _know(self, stream: str) -> None:
        """Remembers the record before the position of a reader that has returned nothing yet.

        Raises `OSError`.
        """
        reader = self._readers.get(stream)
        if reader is None or stream in self._known or reader.next_seq == 1:
            return
        last = reader.next_seq - 1
        with contextlib.suppress(FileNotFoundError):  # the stream was removed
            timestamp = self._timestamp_of(stream, last)
            if timestamp is not None:
                self._known[stream] = last, timestamp

    def _is_known(self, stream: str) -> bool:
        """True if the directory contains the record of its stream that was seen last.

        An inode does not show that: the file system may reuse its number for the next directory.
        Raises `OSError`.
        """
        if stream not in self._known:
            return False
        last, timestamp = self._known[stream]
        return self._timestamp_of(stream, last) == timestamp

    def _timestamp_of(self, stream: str, seq: int) -> str | None:
        """The `_ts` of a record; None if it cannot be read. Raises `OSError`.

        Erasing, merging and sealing do not change it.
        """
        reader = StreamReader(self._data, stream, _ignore, seq)
        for block in reader.read(stop=seq + 1):
            return block.last_timestamp()
        return None

    def _watch_mark(self, inotify: _AnyWatches, stream: str) -> None:
        """Watches the mark of a stream, if it exists; one watch for all, if all are followed."""
        name = MARKS_NAME if self._streams is None else stream
        if name in self._mark_watches:
            return
        directory = self._data / MARKS_NAME
        path = directory if self._streams is None else directory / stream
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            self._mark_watches[name] = _watched(inotify, path, _MARK_MOVED)

    def _watch_streams(self, inotify: _AnyWatches) -> list[str]:
        """Watches streams that are not watched yet, and returns them."""
        new = []
        for stream in list_streams(self._data):
            if self._streams is not None and stream not in self._streams:
                continue
            with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                if self._watch(inotify, stream):
                    new.append(stream)
        return new

    def _watch(self, inotify: _AnyWatches, stream: str) -> bool:
        """Watches the directory of a stream. True if it is a different directory than before."""
        watch = _watched(inotify, self._data / stream, _NEW_SEGMENT)
        # inotify has one watch per directory.
        if watch is self._watches.get(stream):
            return False
        if stream in self._watches:
            self._end_reader_of(stream)
        self._watches[stream] = watch
        return True

    def _watch_what_was_read(
        self, inotify: _AnyWatches, reader: StreamReader, block: Block
    ) -> None:
        """Watches the directory from which `block` was read.

        A failing commit creates an empty directory again. When that one is removed, the records
        read here must not be shown again.
        """
        try:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                directory = self._data / reader.stream
                self._watches[reader.stream] = _watched(inotify, directory, _NEW_SEGMENT)
        except _InotifyExhausted:
            reader.next_seq = block.first  # it was not returned
            raise

    def _report_polling(self, stream: str) -> None:
        if self._unreported is not None:
            what = f"{self._unreported}; new records are looked for every {LOOK_EVERY_S:.0f} s"
            self._report(Problem(stream, what, expected=True))
            self._unreported = None

    def _forget(self, inotify: _AnyWatches, stream: str) -> None:
        watch = self._watches.get(stream)
        if watch is None:
            return
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if _watched(inotify, self._data / stream, _NEW_SEGMENT) is watch:
                return  # the removed directory was an earlier one, which was never watched
        del self._watches[stream]
        self._end_reader_of(stream)
        try:
            inotify.rm_watch(watch)  # type: ignore[arg-type]
        except OSError as error:
            if error.errno != errno.EINVAL:  # the watch was removed with its directory
                raise


class _Marks(MarkReader):
    """The daemon's marks, for a follower that continues without those that it may not read."""

    def __init__(self, data: Path, report: Report) -> None:
        super().__init__(data)
        self._report = report
        self._is_reported = False

    def read(self, stream: str) -> Mark | None:
        """Like `MarkReader.read`; None, and one report, if the mark cannot be read."""
        try:
            return super().read(stream)
        except OSError as error:
            if not self._is_reported:
                self._is_reported = True
                what = f"{error.filename} cannot be read ({error.strerror}): what is shown is on "
                what += "disk, except records from a moment in which the daemon fails to sync"
                self._report(Problem(stream, what, expected=True))
            return None


def last_durable_records(
    data: Path,
    stream: str,
    count: int,
    chosen: Filter,
    report: Report,
    times: TimeRange = ALL_TIMES,
) -> tuple[StreamReader, list[Record]]:
    """The last `count` chosen records in `times` that are durable, and a reader at their end.

    Raises `OSError`, `FileNotFoundError` if the stream does not exist.
    """
    marks = _Marks(data, report)
    while True:
        reader = StreamReader(data, stream, report)
        mark = marks.read(stream)
        stop = None if mark is None else mark.last + 1
        records = last_records(reader, count, chosen, stop, times)
        if mark is None:
            if marks.read(stream) is not None:
                continue  # a daemon has started since, and may have written some of them
            sync_directory(data / stream)
        reader.reports_removed = True
        return reader, records


def durable_records_in(
    data: Path, stream: str, times: TimeRange, report: Report
) -> tuple[StreamReader, Iterator[Block]]:
    """The durable records in `times`, read as they are taken; then the reader is at their end.

    Raises `OSError`, `FileNotFoundError` if the stream does not exist.
    """
    marks = _Marks(data, report)
    while True:
        reader = StreamReader(data, stream, report)
        mark = marks.read(stream)
        stop = reader.end() if mark is None else mark.last + 1
        if mark is None:
            if marks.read(stream) is not None:
                continue  # a daemon has started since, and may have written some of them
            sync_directory(data / stream)
        reader.seek_start_of(times)
        return reader, _until_end(reader, times, stop)


def _until_end(reader: StreamReader, times: TimeRange, stop: int) -> Iterator[Block]:
    yield from reader.read(times, stop)
    reader.reports_removed = True


def _ignore(problem: Problem) -> None:
    """Ignores problems of a reader that only looks up a record."""


async def _wait_for_directory(path: Path) -> None:
    """Waits until a directory exists, by watching the nearest existing one above it."""
    while not path.is_dir():
        existing = _nearest_directory(path)
        try:
            with _inotify() as inotify:
                _watched(inotify, existing, Mask.CREATE | Mask.MOVED_TO | Mask.MOVE_SELF)
                # The next one may have been created before this one was watched.
                if _nearest_directory(path) == existing:
                    await inotify.get()
        except FileNotFoundError:
            continue
        except _InotifyExhausted:
            await asyncio.sleep(LOOK_EVERY_S)


def _inotify() -> Inotify:
    """A new instance. Raises `_InotifyExhausted`, `OSError`."""
    try:
        return Inotify()
    except OSError as error:
        # The limit of open files has the same error; opening any other file then reports it.
        if error.errno != errno.EMFILE:
            raise
        limit = "fs.inotify.max_user_instances"
        raise _InotifyExhausted(f"no inotify instance is left (sysctl {limit})") from error


def _watched(inotify: _AnyWatches, path: Path, mask: Mask) -> _AnyWatch:
    """A watch of `path`. Raises `_InotifyExhausted`, `OSError`."""
    try:
        return inotify.add_watch(path, mask)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        limit = "fs.inotify.max_user_watches"
        raise _InotifyExhausted(f"no inotify watch is left (sysctl {limit})") from error


def _nearest_directory(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.is_dir())
