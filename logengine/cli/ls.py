"""`logengine ls`"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec
from msgspec import UNSET

from logengine.cli.options import data_option, resolve_data, streams_argument
from logengine.cli.streams import streams_to_read
from logengine.disk.segment_file import list_segments, read_header, size_of_segments
from logengine.errors import DamagedSegment
from logengine.units import format_size_rounded

if TYPE_CHECKING:
    from logengine.format.segment import Header


class StreamSummary(msgspec.Struct, frozen=True):
    """What `ls` tells of a stream. `records` counts from the first retained to the last."""

    stream: str
    records: int
    bytes: int
    segments: int
    first_seq: int | None
    last_seq: int | None
    since: str | None
    until: str | None
    damaged: int


@click.command(
    epilog="""\b
Examples:
  logengine ls
  logengine ls --json | jq -r 'select(.records > 1000000) | .stream'
"""
)
@streams_argument
@click.option("--json", "as_json", is_flag=True, help="One JSON object per stream.")
@data_option
def command(streams: tuple[str, ...], as_json: bool, data: Path | None) -> None:  # noqa: FBT001
    """List the streams: records, bytes on disk, segments, first and last time."""
    data = resolve_data(data)
    summaries = [summarize(data, stream) for stream in streams_to_read(data, streams)]
    if as_json:
        for summary in summaries:
            click.echo(msgspec.json.encode(summary))
        return
    rows = [("STREAM", "RECORDS", "BYTES", "SEGMENTS", "FIRST", "LAST")]
    rows += [
        (
            summary.stream,
            f"{summary.records:,}",
            format_size_rounded(summary.bytes),
            f"{summary.segments:,}",
            _seconds(summary.since),
            _seconds(summary.until),
        )
        for summary in summaries
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for stream, records, size, segments, since, until in rows:
        click.echo(
            f"{stream:<{widths[0]}}  {records:>{widths[1]}}  {size:>{widths[2]}}  "
            f"{segments:>{widths[3]}}  {since:<{widths[4]}}  {until}".rstrip()
        )
    for summary in summaries:
        if summary.damaged:
            click.echo(
                f"logengine: {summary.stream}: damaged segments at its ends; "
                f"see `logengine verify {summary.stream}`",
                err=True,
            )


def summarize(data: Path, stream: str) -> StreamSummary:
    """The summary of a stream, from the names and the headers at its two ends.

    A directory that is not there any more is an empty one: it is being made anew for the first
    record, or was taken away.
    """
    directory = data / stream
    gone: set[int] = set()
    while True:
        try:
            firsts = list_segments(directory)
            size = size_of_segments(directory)
            damaged: set[int] = set()
            ends = [_end(directory, order, damaged, gone) for order in (firsts, firsts[::-1])]
        except _Vanished:
            continue  # ends: each segment may vanish only once
        except FileNotFoundError:
            firsts, size, damaged, ends = [], 0, set(), []
        break
    headers = [header for header in ends if header is not None]
    oldest, newest = (headers[0], headers[-1]) if headers else (None, None)
    return StreamSummary(
        stream=stream,
        records=newest.last - oldest.first + 1 if oldest and newest else 0,
        bytes=size,
        segments=len(firsts),
        first_seq=oldest.first if oldest else None,
        last_seq=newest.last if newest else None,
        since=oldest.since if oldest else None,
        until=newest.latest if newest else None,
        damaged=len(damaged),
    )


class _Vanished(Exception):
    """A segment is not there any more: it was merged, or removed, since it was listed."""


def _end(
    directory: Path, firsts: Sequence[int], damaged: set[int], gone: set[int]
) -> "Header | None":
    """The header of the first of some segments that has records; those before it are `damaged`.

    Raises `_Vanished` for one that is not there any more; it is among the `gone` then.
    """
    for first in firsts:
        try:
            header = read_header(directory, first)
        except FileNotFoundError:
            # Names are never used again: what is listed once more is no merged segment.
            if first not in gone:
                gone.add(first)
                raise _Vanished from None
            damaged.add(first)
        except (DamagedSegment, OSError):
            damaged.add(first)
        else:
            if header.gap is UNSET:  # what is gone is not counted, where it is at an end
                return header
    return None


def _seconds(timestamp: str | None) -> str:
    return f"{timestamp[:10]} {timestamp[11:19]}Z" if timestamp else "-"
