"""Lists the streams of a data directory and checks the names of requested ones."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from logengine.default_paths import find_data
from logengine.disk.segment_file import list_streams, not_streams
from logengine.errors import InvalidStreamName, UnknownStream
from logengine.format.segment import STREAM_NAME_RULE, is_stream_name

# A stream may be missing for this long while its directory is recreated.
_PATIENCE_S = 0.3
_LOOK_AGAIN_S = 0.01

AnyPath = str | os.PathLike[str]


def data_directory(data: AnyPath | None) -> Path:
    """The data directory: the given one, or that of this user's own daemon or of the system's."""
    return Path(data) if data is not None else find_data(os.environ, os.getuid())


def check_stream_names(asked: Sequence[str]) -> None:
    """Raises `InvalidStreamName` if one of the names cannot be a stream's."""
    for stream in asked:
        if not is_stream_name(stream):
            raise InvalidStreamName(f"{stream!r} cannot be a stream; expected {STREAM_NAME_RULE}")


def stream_names(*asked: str, data: AnyPath | None = None) -> list[str]:
    """The requested streams, each once, or the names of all streams.

    Raises `InvalidStreamName`, and `UnknownStream` with the names of the existing streams.
    """
    check_stream_names(asked)
    directory = data_directory(data)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            there = list_streams(directory)
        except FileNotFoundError:
            raise UnknownStream(
                f"there is no data directory {directory}; name the daemon's with --data"
            ) from None
        missing = [stream for stream in asked if stream not in there]
        if not missing:
            return list(dict.fromkeys(asked)) or there
        # The directory of a stream may be created more than once before its first record exists.
        if time.monotonic() >= deadline:
            if (what := not_streams(directory).get(missing[0])) is not None:
                raise UnknownStream(f"{directory / missing[0]}: {what}")
            known = f"there are: {', '.join(there)}" if there else "there are none yet"
            raise UnknownStream(f"no stream {missing[0]!r} in {directory}; {known}")
        time.sleep(_LOOK_AGAIN_S)
