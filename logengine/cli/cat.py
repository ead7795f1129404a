"""`logengine cat`"""

import click

from logengine.cli.cursor_file import CursorFile, continuing, write_all
from logengine.cli.options import data_option
from logengine.cli.output import Output, format_option
from logengine.cli.selection import Select, selection_options


@click.command(
    epilog="""\b
Examples:
  logengine cat app
  logengine cat --since 10m
  logengine cat app --since 2026-11-23T20:00:00Z --until 2026-11-23T20:01:00Z
  logengine cat app --after app:5120 --format raw
  logengine cat app --cursor-file ~/.app.cursor
  logengine cat --since today --grep 'time.?out' -i --where level=error
"""
)
@continuing
@selection_options
@format_option
@data_option
@click.pass_context
def command(ctx: click.Context, select: Select, form: str, cursor_file: CursorFile | None) -> None:
    """Print the records of STREAMs. Several streams are merged by time.

    Without STREAM, prints all streams, or only those that --after names. Works without the daemon.
    """
    output = Output(form)
    write_all(select(output.report).batches(), output, cursor_file)
    ctx.exit(1 if output.problems else 0)
