"""`logengine export`"""

import sys
from pathlib import Path

import click

from logengine.cli.options import data_option
from logengine.cli.output import Output
from logengine.cli.selection import Select, selection_options
from logengine.exchange.exporting import FORMATS, Missing, export_file, zstd_frames
from logengine.reading import Problem

_FORMATS_OF_NAMES = {".zst": "zstd", ".parquet": "parquet"}


@click.command(
    epilog="""\b
Examples:
  logengine export app -o app.ndjson.zst
  logengine export --since yesterday --until today -o day.parquet
  logengine export app --where level=error --format zstd | ssh host 'cat > errors.ndjson.zst'
"""
)
@selection_options
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to FILE atomically: whole or not at all. Default: standard output.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    show_default="by the suffix of FILE: .zst, .parquet; else ndjson",
    help="ndjson: one JSON object per line. zstd: NDJSON in zstd frames, for zstdcat. parquet: one "
    "column per field of the envelope, and `record` with the whole JSON.",
)
@click.option(
    "--partial",
    is_flag=True,
    help="Write FILE even if some records cannot be read; the exit status is still 1 then.",
)
@data_option
@click.pass_context
def command(
    ctx: click.Context,
    select: Select,
    path: Path | None,
    form: str | None,
    partial: bool,  # noqa: FBT001 - click passes by name
) -> None:
    """Write records to a file for other programs. Several streams are merged by time.

    Without STREAM, exports all streams, or only those that --after names. Works without the daemon.
    If a record cannot be read, or is removed before it is read, FILE is not written and the exit
    status is 1. Records that the stream itself reports as gone, as after `repair`, do not count.
    """
    form = form or _FORMATS_OF_NAMES.get(path.suffix if path else "", "ndjson")
    if form == "parquet" and path is None:
        raise click.UsageError("Parquet cannot be written to standard output; name a FILE with -o")
    if path is not None and path.exists() and not path.is_file():
        raise click.UsageError(
            f"{path} is not a regular file; omit -o and redirect standard output instead"
        )
    output = Output("json")
    missing = Missing()

    def report(problem: Problem) -> None:
        missing.note(problem)
        output.report(problem)

    lines = (piece for batch in select(report).batches() for piece in batch.json())
    if path is not None:
        export_file(lines, path, form, missing=None if partial else missing)
    else:
        sys.stdout.buffer.writelines(lines if form == "ndjson" else zstd_frames(lines))
        output.flush()
    ctx.exit(1 if output.problems else 0)
