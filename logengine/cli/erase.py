"""`logengine erase`"""

import os
import pwd
import time
from pathlib import Path

import click
from msgspec import UNSET

from logengine.cli.filtering import filter_options
from logengine.cli.messages import say, tell
from logengine.cli.options import complete_streams, data_option, resolve_data
from logengine.cli.selection import CursorOption, erased_range_options
from logengine.errors import DamagedSegment, UnreadableSegment
from logengine.format.block import runs
from logengine.format.cursor import Cursor
from logengine.format.time_range import TimeRange, checked
from logengine.format.timestamp import format_timestamp
from logengine.reading import Filter, RangeBy, stream_names
from logengine.upkeep.erase import Affected, Erasure, Wanted
from logengine.upkeep.erase_plan import Mark
from logengine.upkeep.exclusive_access import exclusive_access
from logengine.upkeep.repair import DAMAGED_DIRECTORY

_PATIENCE_S = 10.0
_REASON_CHARACTERS_MAX = 1000
_RUNS_SHOWN_MAX = 20


@click.command(
    epilog="""\b
Examples:
  logengine erase web --where user=ann --dry-run
  logengine erase web --where user=ann --reason 'her right to be forgotten'
  logengine erase app --grep 'password=' --since 2026-11-23T20:00 --until 2026-11-23T20:10
  logengine erase app --after app:5119 --up-to app:5120
"""
)
@click.argument("stream", shell_complete=complete_streams)
@erased_range_options
@click.option(
    "--up-to",
    type=CursorOption(),
    metavar="CURSOR",
    help="Only records up to and including this cursor, STREAM:SEQ.",
)
@filter_options
@click.option("--reason", metavar="TEXT", help="The reason, stored in each tombstone.")
@click.option(
    "--seal-key",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The daemon's [compaction] seal_key. Signs the seals that erasing rewrites, so that "
    "`verify --public-key` counts them as signed.",
)
@click.option("--dry-run", is_flag=True, help="Only print which records would be erased.")
@data_option
@click.pass_context
def command(
    ctx: click.Context,
    stream: str,
    cursors: tuple[Cursor, ...],
    since: str | None,
    until: str | None,
    range_by: RangeBy,
    up_to: Cursor | None,
    chosen: Filter,
    reason: str | None,
    seal_key: Path | None,
    dry_run: bool,  # noqa: FBT001 - click passes by name
    data: Path | None,
) -> None:
    """Replace records of STREAM with tombstones that say when, by whom and why they were erased.

    Overwrites the old bytes; each record's sequence number and time stay. The daemon must be
    stopped. A record for which --where cannot be decided is never erased. Cannot reach earlier
    exports, damaged files that `repair` moved aside, or copies that the disk itself keeps.
    """
    if reason is not None and len(reason) > _REASON_CHARACTERS_MAX:
        raise click.UsageError(f"--reason may have at most {_REASON_CHARACTERS_MAX} characters")
    times = checked(TimeRange(since, until, by_arrival=range_by == "arrival"))
    wanted = Wanted(
        max((_seq_of(cursor, stream) for cursor in cursors), default=0),
        None if up_to is None else _seq_of(up_to, stream),
        times,
        chosen,
    )
    if chosen.chooses_all and wanted[:2] == (0, None) and times.holds_every_time:
        raise click.UsageError(
            "say which records: --where, --grep, --after, --up-to, --since or --until"
        )
    data = resolve_data(data)
    stream_names(stream, data=data, allow_patterns=False)
    damaged: list[DamagedSegment] = []
    uid = os.getuid()
    mark = Mark(
        format_timestamp(time.time_ns()), _name_of(uid), UNSET if reason is None else reason, uid
    )
    sign = None
    if seal_key is not None:
        from logengine.upkeep.signing import load_signer  # slower to import than all the rest

        sign = load_signer(seal_key)
    with exclusive_access(data) as names:
        erasure = Erasure(data, stream, wanted, damaged.append, sign, names=names)
        verb = "would erase" if dry_run else "erased"
        total = 0
        try:
            for affected in erasure.affected() if dry_run else erasure.run(mark, _PATIENCE_S):
                say(f"{affected.name}: {verb} {_numbers(affected)}")
                total += len(affected.seqs)
        except BaseException:
            if (left := erasure.unfinished) is not None:
                tell(
                    f"{left.name}: tombstones have replaced records {_numbers(left)}, but the old "
                    "bytes may still be on the disk: run the command again"
                )
            raise
        say(f"{stream}: {verb} {total} records")
        if any((data / DAMAGED_DIRECTORY).glob(f"{stream}-*")):
            say(
                f"note: {data / DAMAGED_DIRECTORY} contains files of {stream}, which this command "
                "does not erase; check them too"
            )
    for damage in damaged:
        is_unread = isinstance(damage, UnreadableSegment)
        advice = "try again when the disk can read it" if is_unread else "run `repair` first"
        tell(f"{damage}; nothing in it was erased: {advice}")
    ctx.exit(1 if damaged else 0)


def _seq_of(cursor: Cursor, stream: str) -> int:
    if cursor.stream != stream:
        raise click.UsageError(f"{cursor} is not a cursor of {stream}; expected {stream}:SEQ")
    return cursor.seq


def _name_of(uid: int) -> str:
    """Returns the name of a user, or the uid in digits if the user has no name.

    Nothing in the environment counts: whoever runs the command can set it to anything.
    """
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _numbers(affected: Affected) -> str:
    ranges = [
        f"{first}" if first == last else f"{first}-{last}" for first, last in runs(affected.seqs)
    ]
    more = len(ranges) - _RUNS_SHOWN_MAX
    return ", ".join(ranges[:_RUNS_SHOWN_MAX]) + (f" and {more} more ranges" if more > 0 else "")
