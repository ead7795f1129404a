"""`logengine cat`"""

import click

from logengine.cli.arrangement import Arrangement, arrangement_options, print_records
from logengine.cli.cursor_file import CursorFile, continuing
from logengine.cli.options import data_option
from logengine.cli.output import Output, output_options
from logengine.cli.selection import Select, selection_options


@click.command(
    epilog="""\b
Examples:
  logengine cat app
  logengine cat --since 10m
  logengine cat 'web-*' --since 'yesterday 14:00' --until 'yesterday 15:00'
  logengine cat app --after app:5120 --format raw
  logengine cat app --cursor-file ~/.app.cursor
  logengine cat --since today --grep 'time.?out' -i -C 3 --where 'level >= error'
  logengine cat app --reverse -n 100
"""
)
@continuing
@selection_options
@click.option(
    "-n",
    "--lines",
    "count",
    type=click.IntRange(min=0),
    help="Print only the first N; with --reverse, the newest N.",
    metavar="N",
)
@arrangement_options
@output_options(paged=True)
@data_option
@click.pass_context
def command(
    ctx: click.Context,
    select: Select,
    count: int | None,
    arrangement: Arrangement,
    output: Output,
    cursor_file: CursorFile | None,
) -> None:
    """Print the records of STREAMs. Several streams are merged by time.

    STREAM may be a pattern such as 'web-*'. Without STREAM, prints all streams, or only those that
    --after names. Works without the daemon.
    """
    reading = select(output.report)
    with output:
        if count != 0:
            print_records(reading, output, arrangement, count, cursor_file)
    ctx.exit(1 if output.problems else 0)
