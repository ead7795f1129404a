"""`logengine verify`"""

import sys
from pathlib import Path

import click

from logengine.cli.options import data_option, resolve_data, streams_argument
from logengine.cli.output import escape
from logengine.cli.streams import streams_to_read
from logengine.segment_file import size_of_segments
from logengine.verify import Finding, verify_stream


@click.command(
    epilog="""\b
Examples:
  logengine verify
  logengine verify app audit && echo sound
"""
)
@streams_argument
@data_option
@click.pass_context
def command(ctx: click.Context, streams: tuple[str, ...], data: Path | None) -> None:
    """Read every byte of the streams and check it; exit 1 if anything is wrong.

    Checks hashes, sequence and JSON, and names the file that is not as it was committed.
    Works beside a running daemon.
    """
    data = resolve_data(data)
    names = streams_to_read(data, streams)
    found: list[tuple[str, list[Finding]]] = []
    with click.progressbar(
        length=sum(size_of_segments(data / stream) for stream in names),
        label="verify",
        file=sys.stderr,
        hidden=not sys.stderr.isatty(),
    ) as bar:
        found.extend((stream, list(verify_stream(data / stream, bar.update))) for stream in names)
    sound = True
    for stream, findings in found:
        for finding in findings:
            prefix = "note: " if finding.harmless else ""
            click.echo(escape(f"{prefix}{finding}"), err=finding.harmless)
        if all(finding.harmless for finding in findings):
            click.echo(f"{stream}: ok")
        else:
            sound = False
    ctx.exit(0 if sound else 1)
