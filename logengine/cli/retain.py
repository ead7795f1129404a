"""`logengine retain`"""

import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from logengine.cli.messages import note, say
from logengine.cli.options import config_option, data_option
from logengine.errors import UnknownStream
from logengine.format.timestamp import format_timestamp
from logengine.reading import check_data_directory
from logengine.units import format_duration, format_size_rounded

if TYPE_CHECKING:
    from logengine.upkeep.retention_plan import Removal

_ADVICE = "it does this by itself; --dry-run shows what it would remove"


@click.command(
    epilog="""\b
Examples:
  logengine retain --dry-run --config /etc/logengine/logengine.toml
  logengine retain --config ./logengine.toml --data ./data
"""
)
@click.option(
    "--dry-run", is_flag=True, help="Only print what would be removed. Works while the daemon runs."
)
@click.option(
    "--trust-clock",
    is_flag=True,
    help="Judge ages by the clock as it is now, although it may have jumped, or the machine may "
    "have been off. Check that `date` is right.",
)
@config_option
@data_option
def command(
    dry_run: bool,  # noqa: FBT001
    trust_clock: bool,  # noqa: FBT001
    config_path: Path | None,
    data: Path | None,
) -> None:
    """Remove the sealed segments that the configured retention no longer keeps.

    A running daemon does this by itself. Use this command while the daemon is stopped.
    """
    from logengine.daemon.config import load_config
    from logengine.daemon.upkeep import retention_rules
    from logengine.disk.durable_names import DurableNames
    from logengine.upkeep.exclusive_access import exclusive_access
    from logengine.upkeep.retention import Retainer
    from logengine.upkeep.retention_clock import RetentionClock

    config = load_config(config_path, data=data, socket=None, environ=os.environ, uid=os.getuid())
    where = Path(config.data)
    if not where.is_dir():
        raise UnknownStream(f"there is no data directory {where}; name the daemon's with --data")
    check_data_directory(where)
    looking = DurableNames(note=lambda _: None)
    with nullcontext(looking) if dry_run else exclusive_access(where, _ADVICE) as names:
        for stream in sorted(names.unsynced):
            say(f"{stream}: not changed until the next boot: a sync of its files failed")
        clock = RetentionClock(where, notes=not dry_run)
        if trust_clock:
            clock.believe()
        known = clock.look()
        if known.is_doubted:
            note(
                f"the clock is {_described(known.ahead_s)} the time that is expected; ages "
                f"are judged at {format_timestamp(max(0, known.now_ns))}. If the clock is right, "
                "give --trust-clock",
            )
        retainer = Retainer(
            where,
            retention_rules(config, str(where)),
            names=names,
            clock_ns=clock.now_ns,
            only_looking=dry_run,
        )
        retainer.look()
        count = total = 0
        while (removal := retainer.next_removal()) is not None:
            if dry_run:
                retainer.suppose(removal)
                _say(removal)
            else:
                retainer.remove(removal, partial(_say, removal))
            count += 1
            total += removal.oldest.bytes
    said = "to be removed" if dry_run else "removed"
    say(f"{count} segments {said}, {format_size_rounded(total)}")


def _say(removal: "Removal") -> None:
    over = f", not yet read by {', '.join(removal.passed_over)}" * bool(removal.passed_over)
    say(
        f"{removal.stream}: {removal.oldest.name}, records up to {removal.oldest.last}, "
        f"until {removal.oldest.until}: {removal.reason}{over}"
    )


def _described(ahead_s: float) -> str:
    unit_s = next((unit for unit in (86400, 3600, 60) if abs(ahead_s) >= 2 * unit), 1)
    shift = format_duration(abs(ahead_s) // unit_s * unit_s)
    return f"{shift} {'ahead of' if ahead_s > 0 else 'behind'}"
