"""The files of search filters, one for each sealed segment. Blocking calls.

    DATA/.filters/app/00000000000000000412    which frames of that segment cannot contain a literal

They are made from the segments, and may be removed: searches then read every frame. A file states
which segment it is of, and is ignored for any other, so a crash may leave the two in any state.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from logengine.disk.atomic import AtomicWriter
from logengine.disk.directory import AnyDirectory, Directory, opened
from logengine.errors import DamagedSearchFilters
from logengine.format.search_filter import Search, decode_filters

FILTERS_NAME = ".filters"
# A segment of the greatest length has filters of a 64th of its body.
FILE_BYTES_MAX = 32 * 1024 * 1024


def filters_name(first: int) -> str:
    """The name of the file for segment `first`."""
    return f"{first:020d}"


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


def write_filters(data: Directory, stream: str, first: int, content: bytes) -> None:
    """Writes the file for segment `first`; replaces an existing one. Raises `OSError`."""
    with contextlib.suppress(FileExistsError):
        data.make(FILTERS_NAME, 0o750)
    with data.subdirectory(FILTERS_NAME) as filters:
        with contextlib.suppress(FileExistsError):
            filters.make(stream, 0o750)
        with filters.subdirectory(stream) as directory:
            writer = AtomicWriter(
                directory.path_of(filters_name(first)),
                "wb",
                permissions=0o640,
                open_directory=directory.opened_again,
            )
            with writer:
                writer.write(content)


class FrameSearch:
    """Tells which frames of one stream's segments cannot match a search.

    `report` gets a message for each file that cannot be used; every frame is then read. Threads may
    share it.
    """

    def __init__(
        self, data: Path, stream: str, search: Search, report: Callable[[str], None]
    ) -> None:
        self._data = data
        self._stream = stream
        self._search = search
        self._report = report
        self._directory: Directory | None = None

    def may_match(self, first: int, segment: str) -> list[bool] | None:
        """Whether each frame of segment `first` may match; None if that is not known.

        `segment` is the `header_sha256` of the segment.
        """
        try:
            filters = self._filters(first, segment)
        except FileNotFoundError:
            return None
        except DamagedSearchFilters as damage:
            self._report(str(damage))
            return None
        except OSError as error:
            what = f"{error.filename} cannot be read: {error.strerror}"
            self._report(f"{what}; no record is missing, but searches are slower")
            return None
        return None if filters is None else list(map(self._search.may_match, filters))

    def _filters(self, first: int, segment: str) -> list[bytes] | None:
        directory = self._directory
        if directory is None:
            with opened(self._data) as data:
                directory = self._directory = _open(data, self._stream)
        name = filters_name(first)
        path = directory.path_of(name)
        try:
            return decode_filters(directory.read_file(name, FILE_BYTES_MAX), segment, path)
        except DamagedSearchFilters:
            # An erasure may just have overwritten it; it has another name by then.
            return decode_filters(directory.read_file(name, FILE_BYTES_MAX), segment, path)


def _open(data: Directory, stream: str) -> Directory:
    with data.subdirectory(FILTERS_NAME) as filters:
        return filters.subdirectory(stream)
