"""Erases records permanently: rewrites their segments and overwrites the old bytes.

    DATA/app/00000000000000000412.ndjson             rewritten, by an AtomicWriter
    DATA/.erasing/app-00000000000000000412.ndjson    the old file, until it is overwritten

The old file gets a second name, durably, before it loses its first one. A later run can therefore
find it and finish an erasure that was killed. Its bytes are overwritten once no process reads it.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from logengine.disk.atomic import AtomicWriter, is_temp_name
from logengine.disk.directory import Directory, create_directory, sync_directory
from logengine.disk.durable_names import DurableNames
from logengine.disk.search_filters import (
    FILE_BYTES_MAX,
    TIMES_SUFFIX,
    filters_directory,
    filters_name,
    segment_of_name,
    times_name,
)
from logengine.disk.segment_file import (
    SEGMENT_BYTES_MAX,
    Content,
    read_as_stored,
    read_header_line,
)
from logengine.disk.temp_file import TEMP_PREFIX, TEMP_SUFFIX
from logengine.disk.writes import write_all
from logengine.errors import (
    AtomicWriteError,
    DamagedSearchFilters,
    DamagedSegment,
    OldBytesRemain,
    UnexpectedFile,
)
from logengine.format.block import Block
from logengine.format.frame_times import decode_frame_times
from logengine.format.search_filter import decode_filters
from logengine.format.segment import (
    COMPRESSED_SUFFIX,
    Header,
    Sign,
    first_of_name,
    header_sha256,
    is_stream_name,
)
from logengine.format.time_range import TimeRange
from logengine.reading.filter import Filter
from logengine.reading.reader import in_range
from logengine.upkeep.erase_plan import Mark, erase, to_be_erased

ERASING_DIRECTORY = ".erasing"
_ZEROS = bytes(1024 * 1024)
_LOOK_AGAIN_S = 0.05


class Wanted(NamedTuple):
    """Which records to erase: numbers above `after`, up to `up_to` inclusive."""

    after: int
    up_to: int | None
    times: TimeRange
    chosen: Filter

    def may_be_in(self, header: Header) -> bool:
        """Returns whether a segment can contain wanted records, according to its header."""
        return (
            header.last > self.after
            and (self.up_to is None or header.first <= self.up_to)
            and self.times.may_hold(header)
        )

    def of(self, block: Block) -> Iterator[Block]:
        """Yields the wanted parts of a block."""
        block = block.begin_at(self.after + 1)
        if self.up_to is not None:
            block = block.end_before(self.up_to + 1)
        if block.count > 0:
            for part in in_range(block, self.times):
                yield from self.chosen.choose(part)


class Affected(NamedTuple):
    """A file in which records are erased, and their numbers."""

    name: str
    seqs: list[int]


class Erasure:
    """The erasure of records of one stream, in a locked data directory.

    `report` is called for each damaged file; nothing can be erased in those. Rewritten seals are
    signed with `sign`; without it they lose their signature. After a failed sync, `names` allows
    no further removal from the stream.
    """

    def __init__(
        self,
        data: Path,
        stream: str,
        wanted: Wanted,
        report: Callable[[DamagedSegment], None],
        sign: Sign | None = None,
        *,
        names: DurableNames,
    ) -> None:
        self._names = names
        self._data = data
        self._stream = stream
        self._wanted = wanted
        self._report = report
        self._sign = sign
        # What has its tombstones, but was not yielded: its old bytes may still be there.
        self.unfinished: Affected | None = None

    def affected(self) -> Iterator[Affected]:
        """Yields what will be erased, by file, including files a merge left. Raises `OSError`."""
        with self._opened() as directory:
            for affected, _ in self._found(directory):
                yield affected

    def run(self, mark: Mark, patience_s: float) -> Iterator[Affected]:
        """Erases file by file, and yields each once its old bytes are overwritten.

        Waits up to `patience_s` for the readers of each old file. Raises `OSError` and
        `OldBytesRemain`; another run finishes what was left. The records of a file whose
        replacement readers see by then are in `unfinished`, since no other run finds them.
        """
        finish(self._data, patience_s, self._names)
        with self._opened() as directory:
            for name in sorted(directory.names()):
                if is_temp_name(name):
                    if directory.is_file(name):  # otherwise it contains nothing
                        self._put_aside(directory, name)
                    self._names.remove(directory, name)
            _destroy(self._data, patience_s)
            _destroy_outdated_filters(self._data, directory, patience_s)
            for affected, found in self._found(directory):
                pieces = erase(
                    found.header,
                    found.body,
                    found.stored,
                    affected.seqs,
                    mark,
                    found.header_sha256,
                    self._sign,
                )
                _destroy_filters(self._data, self._stream, affected.name, patience_s)
                self._put_aside(directory, affected.name)
                writer = _replacing(directory, affected.name)
                try:
                    with self._names.published_by(writer, self._stream):
                        writer.write_buffers(pieces)
                    _destroy(self._data, patience_s)
                except BaseException:
                    self.unfinished = affected if writer.published else None
                    raise
                yield affected

    @contextlib.contextmanager
    def _opened(self) -> Iterator[Directory]:
        with Directory.open(self._data) as data, data.subdirectory(self._stream) as directory:
            yield directory

    def _found(self, directory: Directory) -> Iterator[tuple[Affected, Content]]:
        for name in sorted(directory.names()):
            first = first_of_name(name)
            if first is None:
                continue
            compressed = name.endswith(COMPRESSED_SUFFIX)
            try:
                found = read_as_stored(
                    directory, first, self._wanted.may_be_in, compressed=compressed
                )
            except DamagedSegment as damage:
                self._report(damage)
                continue
            if found is None:
                continue
            header = found.header
            block = Block(header.stream, header.first, header.count, found.body)
            if seqs := to_be_erased(self._wanted.of(block)):
                yield Affected(name, seqs), found

    def _put_aside(self, directory: Directory, name: str) -> None:
        create_directory(self._data / ERASING_DIRECTORY)
        with _erasing_in(self._data) as erasing:
            assert erasing is not None
            try:
                directory.link(name, f"{self._stream}-{name}", erasing)
            except OSError as error:
                path = directory.path_of(name)
                raise AtomicWriteError.of(error, path, "link into .erasing") from error
            erasing.sync()


def _replacing(directory: Directory, name: str) -> AtomicWriter:
    return AtomicWriter(
        directory.path_of(name),
        "wb",
        buffering=0,
        permissions=0o640,
        open_directory=directory.opened_again,
    )


@contextlib.contextmanager
def _erasing_in(data: Path) -> Iterator[Directory | None]:
    """Opens the directory of files that were put aside; yields None if there is none."""
    with Directory.open(data) as within:
        try:
            erasing = within.subdirectory(ERASING_DIRECTORY)
        except FileNotFoundError:
            yield None
            return
        with erasing:
            yield erasing


def finish(data: Path, patience_s: float, names: DurableNames) -> None:
    """Finishes an erasure in a data directory that was killed or failed and left old files.

    Raises `OSError`, and `OldBytesRemain` if a process keeps one open longer than `patience_s`.
    """
    with _erasing_in(data) as erasing:
        if erasing is None:
            return
        sync_directory(data)
        erasing.sync()
        for put_aside in sorted(erasing.names()):
            if not _is_replaced(data, erasing, put_aside):
                continue
            stream, name = _first_name(erasing, put_aside)
            with contextlib.suppress(FileNotFoundError), _opened_stream(data, stream) as directory:
                if directory.is_taken(name):
                    # Written again: the sync of the directory may have failed, and a power cut
                    # would then bring the old file back, overwritten.
                    content = directory.read_file(name, SEGMENT_BYTES_MAX)
                    with names.published_by(_replacing(directory, name), stream) as writer:
                        writer.write(content)
                else:
                    names.sync(directory)
    _destroy(data, patience_s)


@contextlib.contextmanager
def _opened_stream(data: Path, stream: str) -> Iterator[Directory]:
    with Directory.open(data) as within, within.subdirectory(stream) as directory:
        yield directory


def _destroy(data: Path, patience_s: float) -> None:
    """Overwrites and removes the files put aside whose first name has a durable replacement.

    A file that still has its first name only loses the second one. Raises what `finish` raises.
    """
    with _erasing_in(data) as erasing:
        if erasing is None:
            return
        for name in sorted(erasing.names()):
            if _is_replaced(data, erasing, name):
                _overwrite(erasing, name, patience_s)
            erasing.unlink(name)
            erasing.sync()


def _destroy_filters(data: Path, stream: str, name: str, patience_s: float) -> None:
    """Overwrites and removes search filters and frame times of a segment, and unfinished ones.

    This is done before the segment is replaced, so an erasure that is killed leaves none.
    """
    first = first_of_name(name)
    with filters_directory(data, stream) as filters:
        if filters is not None and first is not None:
            names = (filters_name(first), times_name(first))
            _destroy_filters_among(filters, names, patience_s)


def _destroy_outdated_filters(data: Path, directory: Directory, patience_s: float) -> None:
    """Overwrites and removes search filters and frame times of no segment as it is now.

    The segment was removed, or a repair divided it: its records may be in another segment, and
    the filters of that one say nothing of these.
    """
    with filters_directory(data, directory.name) as filters:
        if filters is None:
            return
        outdated = [
            name
            for name in filters.names()
            if segment_of_name(name) is not None
            and filters.is_file(name)
            and not _is_current(directory, filters, name)
        ]
        if outdated:
            _destroy_filters_among(filters, outdated, patience_s)


def _is_current(directory: Directory, filters: Directory, name: str) -> bool:
    try:
        _, line = read_header_line(directory, segment_of_name(name) or 0)
        content = filters.read_file(name, FILE_BYTES_MAX)
        decode = decode_frame_times if name.endswith(TIMES_SUFFIX) else decode_filters
        return decode(content, header_sha256(line), filters.path_of(name)) is not None
    except (FileNotFoundError, UnexpectedFile, DamagedSegment, DamagedSearchFilters):
        return False


def _destroy_filters_among(filters: Directory, names: Iterable[str], patience_s: float) -> None:
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            # Under a temp file's name, no reader opens it.
            filters.replace(name, f"{TEMP_PREFIX}{name}{TEMP_SUFFIX}")
    for left in filter(is_temp_name, filters.names()):
        _overwrite(filters, left, patience_s)
        filters.unlink(left)
    filters.sync()


def _first_name(erasing: Directory, name: str) -> tuple[str, str]:
    """Returns the stream and the first name of a file that was put aside."""
    stream, _, first_name = name.rpartition("-")
    if not is_stream_name(stream):
        raise UnexpectedFile(
            errno.EINVAL, "no erasure put this here; remove it", erasing.path_of(name)
        )
    return stream, first_name


def _is_replaced(data: Path, erasing: Directory, name: str) -> bool:
    """Returns whether a file that was put aside has lost its first name."""
    stream, first_name = _first_name(erasing, name)
    try:
        with _opened_stream(data, stream) as directory:
            now = directory.stat(first_name, follow_links=False)
    except FileNotFoundError:
        return True
    return not os.path.samestat(now, erasing.stat(name, follow_links=False))


def _overwrite(erasing: Directory, name: str, patience_s: float) -> None:
    """Writes zeros over all bytes of a file, and syncs them."""
    path = erasing.path_of(name)
    descriptor = erasing.open_file(name, os.O_RDWR)
    try:
        _check_that_no_other_name_exists(descriptor, path)
        _wait_until_nobody_reads(descriptor, path, patience_s)
        # A backup that had it open may have made a hard link meanwhile.
        _check_that_no_other_name_exists(descriptor, path)
        left = os.fstat(descriptor).st_size
        while left:
            left -= write_all(descriptor, [_ZEROS[:left]])
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _check_that_no_other_name_exists(descriptor: int, path: str) -> None:
    if os.fstat(descriptor).st_nlink > 1:
        # For example, a backup made with hard links: it is not ours to destroy.
        raise OldBytesRemain(
            f"{path} has another hard link, so its bytes are still there; "
            "find it with `find -samefile`, remove it, and run this again"
        )


def _wait_until_nobody_reads(descriptor: int, path: str, patience_s: float) -> None:
    """Waits, so that a reader that opened the file earlier sees it unchanged to the end.

    The kernel grants a write lease only on a file that is open nowhere else: fcntl(2).
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                return  # a file system without leases: there is no way to find out
        else:
            return
        if time.monotonic() >= deadline:
            raise OldBytesRemain(
                f"{path} is still open in another process, so its bytes are still there; "
                "find that process with `fuser`, stop it, and run this again"
            )
        time.sleep(_LOOK_AGAIN_S)
