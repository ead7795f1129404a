"""`logengine seals`"""

from pathlib import Path

import click

from logengine.cli.messages import note, say, tell
from logengine.cli.options import data_option, resolve_data, streams_argument
from logengine.errors import DamagedSegment
from logengine.reading import stream_names
from logengine.upkeep.newest_seal import newest_seal


@click.command(
    epilog="""\b
Examples:
  logengine seals | mail -s "seals of $(hostname)" audit@example.org
  logengine seals | ssh elsewhere 'cat >> seals'
  logengine verify --seals seals
"""
)
@streams_argument
@data_option
@click.pass_context
def command(ctx: click.Context, streams: tuple[str, ...], data: Path | None) -> None:
    """Print the newest seal of each stream, in one line: STREAM NUMBER HASH.

    The seal proves the records up to NUMBER. Keep the lines where nobody who can write in the data
    directory can change them, for `verify --seals`. Streams without a seal are named on standard
    error.
    """
    data = resolve_data(data)
    status = 0
    for stream in stream_names(*streams, data=data):
        try:
            seal = newest_seal(data / stream)
        except DamagedSegment as damage:
            tell(f"{damage}; run `logengine verify {stream}`")
            status = 1
            continue
        if seal is None:
            note(f"{stream} has no seal yet")
        else:
            say(str(seal))
    ctx.exit(status)
