"""The files of search filters and of frame times, one each for a sealed segment. Blocking calls.

    DATA/.filters/app/00000000000000000412          which of its frames cannot contain a literal
    DATA/.filters/app/00000000000000000412.times    from when to when the records of each frame are

They are made from the segments, and may be removed: every frame is then read. A file states which
segment it is of, and is ignored for any other, so a crash may leave the two in any state.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from logengine.disk.atomic import AtomicWriter
from logengine.disk.directory import AnyDirectory, Directory, opened
from logengine.errors import DamagedSearchFilters
from logengine.format.frame_times import Bounds, decode_frame_times
from logengine.format.search_filter import Search, decode_filters
from logengine.format.time_range import TimeRange

FILTERS_NAME = ".filters"
# A segment of the greatest length has filters of a 64th of its body.
FILE_BYTES_MAX = 32 * 1024 * 1024
TIMES_SUFFIX = ".times"
_SEQ_DIGITS = 20

Content = TypeVar("Content")


def filters_name(first: int) -> str:
    """The name of the file with the search filters of segment `first`."""
    return f"{first:0{_SEQ_DIGITS}d}"


def times_name(first: int) -> str:
    """The name of the file with the frame times of segment `first`."""
    return filters_name(first) + TIMES_SUFFIX


def segment_of_name(name: str) -> int | None:
    """The first number of the segment that a file is of; None if the name is of no such file."""
    digits = name.removesuffix(TIMES_SUFFIX)
    return int(digits) if len(digits) == _SEQ_DIGITS and digits.isdigit() else None


@contextlib.contextmanager
def filters_directory(data: AnyDirectory, stream: str) -> Iterator[Directory | None]:
    """Opens the directory of a stream's filters until the block ends; yields None without one.

    Raises `OSError`.
    """
    with contextlib.ExitStack() as stack:
        try:
            directory = _open(stack.enter_context(opened(data)), stream)
        except FileNotFoundError:
            yield None
            return
        yield stack.enter_context(directory)


def write_file(data: Directory, stream: str, name: str, content: bytes) -> None:
    """Writes the file `name` of a stream; replaces an existing one. Raises `OSError`."""
    with contextlib.suppress(FileExistsError):
        data.make(FILTERS_NAME, 0o750)
    with data.subdirectory(FILTERS_NAME) as filters:
        with contextlib.suppress(FileExistsError):
            filters.make(stream, 0o750)
        with filters.subdirectory(stream) as directory:
            writer = AtomicWriter(
                directory.path_of(name),
                "wb",
                permissions=0o640,
                open_directory=directory.opened_again,
            )
            with writer:
                writer.write(content)


class _Files(Generic[Content]):
    """Reads the files of one kind of a stream. Threads may share it."""

    def __init__(
        self,
        data: Path,
        stream: str,
        name_of: Callable[[int], str],
        decode: Callable[[bytes, str, str], Content | None],
        report: Callable[[str], None],
    ) -> None:
        self._data = data
        self._stream = stream
        self._name_of = name_of
        self._decode = decode
        self._report = report
        self._directory: Directory | None = None

    def read(self, first: int, segment: str) -> Content | None:
        """What the file of segment `first` says; None if there is none that can be used.

        `segment` is the `header_sha256` of the segment.
        """
        try:
            return self._read(first, segment)
        except FileNotFoundError:
            return None
        except DamagedSearchFilters as damage:
            self._report(str(damage))
            return None
        except OSError as error:
            what = f"{error.filename} cannot be read: {error.strerror}"
            self._report(f"{what}; no record is missing, but searches are slower")
            return None

    def _read(self, first: int, segment: str) -> Content | None:
        directory = self._directory
        if directory is None:
            with opened(self._data) as data:
                directory = self._directory = _open(data, self._stream)
        name = self._name_of(first)
        path = directory.path_of(name)
        try:
            return self._decode(directory.read_file(name, FILE_BYTES_MAX), segment, path)
        except DamagedSearchFilters:
            # An erasure may just have overwritten it; it has another name by then.
            return self._decode(directory.read_file(name, FILE_BYTES_MAX), segment, path)


class FrameSearch:
    """Tells which frames of one stream's segments cannot match a search.

    `report` gets a message for each file that cannot be used; every frame is then read. Threads may
    share it.
    """

    def __init__(
        self, data: Path, stream: str, search: Search, report: Callable[[str], None]
    ) -> None:
        self._search = search
        self._files = _Files(data, stream, filters_name, decode_filters, report)

    def may_match(self, first: int, segment: str) -> Sequence[bool] | None:
        """Whether each frame of segment `first` may match; None if that is not known.

        `segment` is the `header_sha256` of the segment.
        """
        filters = self._files.read(first, segment)
        return None if filters is None else list(map(self._search.may_match, filters))


class FrameTimes:
    """Tells which frames of one stream's segments have no record in a range of own times.

    `report` and threads are as for `FrameSearch`.
    """

    def __init__(
        self, data: Path, stream: str, times: TimeRange, report: Callable[[str], None]
    ) -> None:
        self.times = times
        self._files: _Files[Sequence[Bounds]] = _Files(
            data, stream, times_name, decode_frame_times, report
        )
        self._enclosed: set[int] = set()

    def may_match(self, first: int, segment: str) -> Sequence[bool] | None:
        """Whether each frame may have records in the range; as in `FrameSearch`."""
        self._enclosed.discard(first)
        frames = self._files.read(first, segment)
        if frames is None:
            return None
        if all(self.times.encloses(*bounds) for bounds in frames):
            self._enclosed.add(first)
        return [self.times.overlaps(*bounds) for bounds in frames]

    def encloses(self, first: int) -> bool:
        """Whether all records of segment `first`, as it was read last, are in the range."""
        return first in self._enclosed


def _open(data: Directory, stream: str) -> Directory:
    with data.subdirectory(FILTERS_NAME) as filters:
        return filters.subdirectory(stream)
