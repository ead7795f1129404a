"""The streams that a command was asked to read."""

from collections.abc import Sequence
from pathlib import Path

from logengine.errors import InvalidStreamName, UnknownStream
from logengine.segment import STREAM_NAME_RULE, is_stream_name
from logengine.segment_file import list_streams


def check_names(asked: Sequence[str]) -> None:
    """Raises `InvalidStreamName` if one of the names cannot be a stream's."""
    for stream in asked:
        if not is_stream_name(stream):
            raise InvalidStreamName(f"{stream!r} cannot be a stream; expected {STREAM_NAME_RULE}")


def streams_to_read(data: Path, asked: Sequence[str]) -> list[str]:
    """The streams asked for, or all there are.

    Raises `InvalidStreamName`, and `UnknownStream` naming those there are.
    """
    try:
        there = list_streams(data)
    except FileNotFoundError:
        raise UnknownStream(
            f"there is no data directory {data}; name the daemon's with --data"
        ) from None
    check_names(asked)
    for stream in asked:
        if stream not in there:
            known = f"there are: {', '.join(there)}" if there else "there are none yet"
            raise UnknownStream(f"no stream {stream!r} in {data}; {known}")
    return list(dict.fromkeys(asked)) or there
