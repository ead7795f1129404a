"""The streams that a command was asked to read."""

import time
from collections.abc import Sequence
from pathlib import Path

from logengine.disk.segment_file import list_streams
from logengine.errors import InvalidStreamName, UnknownStream
from logengine.format.segment import STREAM_NAME_RULE, is_stream_name

# So long a stream may not be there that is there before and after.
_PATIENCE_S = 0.3
_LOOK_AGAIN_S = 0.01


def check_names(asked: Sequence[str]) -> None:
    """Raises `InvalidStreamName` if one of the names cannot be a stream's."""
    for stream in asked:
        if not is_stream_name(stream):
            raise InvalidStreamName(f"{stream!r} cannot be a stream; expected {STREAM_NAME_RULE}")


def streams_to_read(data: Path, asked: Sequence[str]) -> list[str]:
    """The streams asked for, or all there are.

    Raises `InvalidStreamName`, and `UnknownStream` naming those there are.
    """
    check_names(asked)
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            there = list_streams(data)
        except FileNotFoundError:
            raise UnknownStream(
                f"there is no data directory {data}; name the daemon's with --data"
            ) from None
        missing = [stream for stream in asked if stream not in there]
        if not missing:
            return list(dict.fromkeys(asked)) or there
        # The directory of a stream that is to get its first record may be made more than once.
        if time.monotonic() >= deadline:
            raise UnknownStream(f"no stream {missing[0]!r} in {data}; {there_are(there)}")
        time.sleep(_LOOK_AGAIN_S)


def there_are(streams: Sequence[str]) -> str:
    """What a person is told who asked for another stream."""
    return f"there are: {', '.join(streams)}" if streams else "there are none yet"
