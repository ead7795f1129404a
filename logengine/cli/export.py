"""`logengine export`"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from logengine.cli.options import data_option
from logengine.cli.output import Output
from logengine.cli.selection import Select, selection_options
from logengine.errors import InvalidOption
from logengine.exchange.exporting import (
    FORMATS,
    Missing,
    converted,
    export_file,
    format_of_name,
)
from logengine.reading import Problem

_STANDARD_OUTPUT = "-"


def _dash_is_output(function: Callable[..., Any]) -> Callable[..., Any]:
    """Takes `-` out of the streams: it says that the output is standard output."""

    @functools.wraps(function)
    def without_dash(
        *arguments: Any, streams: tuple[str, ...], path: Path | None, **others: Any
    ) -> Any:
        if _STANDARD_OUTPUT in streams:
            if path not in (None, Path(_STANDARD_OUTPUT)):
                raise click.UsageError(f"- is standard output, but -o names {path}; give only one")
            path = None
        names = tuple(name for name in streams if name != _STANDARD_OUTPUT)
        return function(*arguments, streams=names, path=path, **others)

    return without_dash


@click.command(
    epilog="""\b
Examples:
  logengine export app -o app.ndjson.zst
  logengine export --since yesterday --until today -o day.parquet
  logengine export app --where level=error --format zstd | ssh host 'cat > errors.ndjson.zst'
"""
)
@_dash_is_output
@selection_options
@click.option(
    "-o",
    "--output",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write to FILE atomically: whole or not at all. Default: standard output, also `-`.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    show_default="by the suffix of FILE: .ndjson, .jsonl, .gz, .zst, .csv, .parquet; else ndjson",
    help="ndjson: one JSON object per line. gzip, zstd: NDJSON, compressed. csv, parquet: one "
    "column per field of the envelope, and `record` with the whole JSON; csv also has time, level "
    "and message.",
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
    if path == Path(_STANDARD_OUTPUT):
        path = None
    form = form or ("ndjson" if path is None else _format_of(path))
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
        sys.stdout.buffer.writelines(converted(lines, form))
        output.flush()
    ctx.exit(1 if output.problems else 0)


def _format_of(path: Path) -> str:
    try:
        return format_of_name(path)
    except InvalidOption as error:
        raise click.UsageError(str(error)) from None
