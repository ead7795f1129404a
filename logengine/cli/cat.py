"""`logengine cat`"""

import click

from logengine.cli.options import data_option
from logengine.cli.output import Output, output_options
from logengine.cli.selection import Select, selection_options


@click.command(
    epilog="""\b
Examples:
  logengine cat app
  logengine cat --since 10m
  logengine cat app --since 2026-11-23T20:00:00Z --until 2026-11-23T20:01:00Z
  logengine cat app --after app:5120 --format raw
  logengine cat --since today --grep 'time.?out' -i --where level=error
"""
)
@selection_options
@output_options(paged=True)
@data_option
@click.pass_context
def command(ctx: click.Context, select: Select, output: Output) -> None:
    """Print the records of STREAMs. Several streams are merged by time.

    Without STREAM, prints all streams, or only those that --after names. Works without the daemon.
    """
    with output:
        for batch in select(output.report).batches():
            output.write(batch)
    ctx.exit(1 if output.problems else 0)
