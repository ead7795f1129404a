"""`logengine ls`"""

from pathlib import Path

import click
import msgspec

from logengine.cli.messages import say, tell
from logengine.cli.options import data_option, resolve_data, streams_argument
from logengine.disk.segment_file import not_streams
from logengine.reading import streams as summarize
from logengine.units import format_size_rounded


@click.command(
    epilog="""\b
Examples:
  logengine ls
  logengine ls --json | jq -r 'select(.records > 1000000) | .stream'
"""
)
@streams_argument
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per stream.")
@data_option
def command(streams: tuple[str, ...], as_json: bool, data: Path | None) -> None:  # noqa: FBT001
    """List the streams: records, bytes on disk, segments, time of first and last record."""
    data = resolve_data(data)
    summaries = summarize(*streams, data=data)
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
        say(
            f"{stream:<{widths[0]}}  {records:>{widths[1]}}  {size:>{widths[2]}}  "
            f"{segments:>{widths[3]}}  {since:<{widths[4]}}  {until}".rstrip()
        )
    for summary in summaries:
        if summary.damaged:
            tell(
                f"{summary.stream}: damaged segments at its ends; "
                f"run `logengine verify {summary.stream}`"
            )
    for name, what in ({} if streams else not_streams(data)).items():
        tell(f"{data / name}: {what}")


def _seconds(timestamp: str | None) -> str:
    return f"{timestamp[:10]} {timestamp[11:19]}Z" if timestamp else "-"
