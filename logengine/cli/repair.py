"""`logengine repair`"""

import os
import time
from pathlib import Path

import click

from logengine.cli.messages import say
from logengine.cli.options import data_option, resolve_data, streams_argument
from logengine.format.segment import describe_gap
from logengine.format.timestamp import format_timestamp
from logengine.reading import stream_names
from logengine.upkeep.exclusive_access import exclusive_access
from logengine.upkeep.repair import Repair, examine_stream, temps_in
from logengine.upkeep.repair_plan import RepairPlan
from logengine.upkeep.verify import verify_stream


@click.command(
    epilog="""\b
Examples:
  logengine repair app --dry-run
  logengine repair app
"""
)
@streams_argument
@click.option("--dry-run", is_flag=True, help="Only print what would be done.")
@click.option(
    "--unreadable-is-damaged",
    is_flag=True,
    help="Treat a file that the disk cannot read (EIO) as damaged. Without this option, a stream "
    "with such a file is not repaired: the file may be intact and readable later.",
)
@data_option
@click.pass_context
def command(
    ctx: click.Context,
    streams: tuple[str, ...],
    dry_run: bool,  # noqa: FBT001 - click passes by name
    unreadable_is_damaged: bool,  # noqa: FBT001
    data: Path | None,
) -> None:
    """Move damaged files of STREAMs aside, and record which records are gone.

    Records that a damaged file still proves stay in the stream. Deletes nothing: damaged files move
    to .damaged in the data directory, next to their intact lines and a report. The daemon must be
    stopped. Exit 1 if damage is left.
    """
    if not streams:
        raise click.UsageError("name the streams to repair; `logengine verify` lists the damaged")
    data = resolve_data(data)
    names = stream_names(*streams, data=data)
    when = format_timestamp(time.time_ns())
    sound = True
    with exclusive_access(data) as durable_names:
        for stream in names:
            if dry_run:
                plan = examine_stream(
                    data / stream, when, unreadable_is_damaged=unreadable_is_damaged
                )
                _say_what_would_be_done(data / stream, plan)
                continue
            Repair(
                data,
                stream,
                when,
                say,
                names=durable_names,
                unreadable_is_damaged=unreadable_is_damaged,
            ).run()
            left = [each for each in verify_stream(data / stream) if not each.harmless]
            for finding in left:
                say(f"not repaired: {finding}")
            if left:
                sound = False
            else:
                say(f"{stream}: ok")
    ctx.exit(0 if sound else 1)


def _say_what_would_be_done(directory: Path, plan: RepairPlan) -> None:
    temps = temps_in(directory)
    for name, own_name in plan.links:
        say(f"would rename {directory / name} to match its header: {own_name}")
    for removal in plan.removals:
        say(f"would move {directory / removal.file.name}: {removal.why}")
    for temp in temps:
        say(f"would move {directory / temp}: a leftover temporary file")
    for gap in plan.gaps:
        assert gap.gap
        path = os.fspath(directory / gap.file_name)
        say(f"would record in {path}: {describe_gap(gap.first, gap.gap)}")
    for piece in plan.pieces:
        header = piece.header
        path = os.fspath(directory / header.file_name)
        say(f"would write {path}: records {header.first} to {header.last}")
    if not (plan.removals or temps or plan.gaps or plan.pieces):
        say(f"{directory.name}: nothing to repair")
