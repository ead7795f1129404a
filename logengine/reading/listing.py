"""Lists the streams of a data directory, and finds requested ones by name or by pattern.

A pattern is a name with `*`, `?` or `[…]`, as the shell has them: `web-*`.
"""

import os
import re
import time
from collections.abc import Container, Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from logengine.default_paths import find_data
from logengine.disk.data_directory import LOCK_NAME
from logengine.disk.segment_file import list_streams, not_streams
from logengine.errors import InvalidStreamName, UnknownStream
from logengine.format.segment import STREAM_NAME_RULE, first_of_name, is_stream_name

# A stream may be missing for this long while its directory is recreated.
_PATIENCE_S = 0.3
_LOOK_AGAIN_S = 0.01

_PATTERN = re.compile(r"[]a-z0-9._*?![-]{1,256}")
_WILDCARDS = "*?["
_OF_FILE_SYSTEM = "lost+found"

AnyPath = str | os.PathLike[str]


def data_directory(data: AnyPath | None) -> Path:
    """The data directory: the given one, or that of this user's own daemon or of the system's."""
    return Path(data) if data is not None else find_data(os.environ, os.getuid())


class ChosenStreams(Container[str]):
    """The streams that have one of some names, or match one of some patterns."""

    def __init__(self, asked: Iterable[str]) -> None:
        self._asked = frozenset(asked)
        self._patterns = tuple(filter(_is_pattern, self._asked))

    def __contains__(self, stream: object) -> bool:
        return stream in self._asked or any(
            fnmatchcase(str(stream), pattern) for pattern in self._patterns
        )


def check_data_directory(directory: Path) -> None:
    """Raises `UnknownStream` if this is another directory: with other content, and no records.

    One that is missing or still empty may become a data directory. Raises `OSError`.
    """
    try:
        names = os.listdir(directory)
        if LOCK_NAME in names:
            return
        streams = list_streams(directory)
    except FileNotFoundError:
        return
    others = set(names) - {*streams, _OF_FILE_SYSTEM}
    is_other = any(not name.startswith(".") for name in others)
    # A backup has no lock.
    for stream in streams:
        try:
            within = os.listdir(directory / stream)
        except FileNotFoundError:
            continue
        except OSError:
            return
        if any(map(first_of_name, within)):
            return
        is_other = is_other or bool(within)
    if is_other:
        raise UnknownStream(
            f"{directory} is not a data directory: it has neither a {LOCK_NAME} nor a stream with "
            "records; name the daemon's with --data"
        )


def unmatched(asked: Iterable[str], there: Sequence[str]) -> list[str]:
    """Returns the requested names and patterns that none of the existing streams has."""
    return [each for each in asked if not any(name in ChosenStreams([each]) for name in there)]


def check_stream_names(asked: Sequence[str], *, allow_patterns: bool = True) -> None:
    """Raises `InvalidStreamName` if one of them can be neither a stream's name nor a pattern."""
    for stream in asked:
        if is_stream_name(stream) or (allow_patterns and _is_pattern(stream)):
            continue
        allowed = f"{STREAM_NAME_RULE}, or a pattern such as web-*"
        expected = allowed if allow_patterns else STREAM_NAME_RULE
        raise InvalidStreamName(f"{stream!r} cannot be a stream; expected {expected}")


def stream_names(
    *asked: str, data: AnyPath | None = None, allow_patterns: bool = True
) -> list[str]:
    """The requested streams, each once, or the names of all streams.

    A pattern stands for all streams that match it, by name. Raises `InvalidStreamName`, and
    `UnknownStream` with the names of the existing streams.
    """
    check_stream_names(asked, allow_patterns=allow_patterns)
    directory = data_directory(data)
    check_data_directory(directory)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            there = list_streams(directory)
        except FileNotFoundError:
            raise UnknownStream(
                f"there is no data directory {directory}; name the daemon's with --data"
            ) from None
        missing = unmatched(asked, there)
        if not missing:
            chosen = [name for each in asked for name in there if name in ChosenStreams([each])]
            return list(dict.fromkeys(chosen)) or there
        # The directory of a stream may be created more than once before its first record exists.
        if time.monotonic() >= deadline:
            if (what := not_streams(directory).get(missing[0])) is not None:
                raise UnknownStream(f"{directory / missing[0]}: {what}")
            known = f"there are: {', '.join(there)}" if there else "there are none yet"
            none = "no stream matches" if _is_pattern(missing[0]) else "no stream"
            raise UnknownStream(f"{none} {missing[0]!r} in {directory}; {known}")
        time.sleep(_LOOK_AGAIN_S)


def _is_pattern(text: str) -> bool:
    return any(each in text for each in _WILDCARDS) and _PATTERN.fullmatch(text) is not None
