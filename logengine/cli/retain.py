"""`logengine retain`"""

import os
from contextlib import nullcontext
from pathlib import Path

import click

from logengine.cli.messages import say
from logengine.cli.options import config_option, data_option
from logengine.errors import UnknownStream
from logengine.units import format_size_rounded

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
@config_option
@data_option
def command(dry_run: bool, config_path: Path | None, data: Path | None) -> None:  # noqa: FBT001
    """Remove the sealed segments that the configured retention no longer keeps.

    A running daemon does this by itself. Use this command while the daemon is stopped.
    """
    from logengine.daemon.config import load_config
    from logengine.daemon.upkeep import retention_rules
    from logengine.disk.durable_names import DurableNames
    from logengine.upkeep.exclusive_access import exclusive_access
    from logengine.upkeep.retention import Retainer

    config = load_config(config_path, data=data, socket=None, environ=os.environ, uid=os.getuid())
    where = Path(config.data)
    if not where.is_dir():
        raise UnknownStream(f"there is no data directory {where}; name the daemon's with --data")
    looking = DurableNames(note=lambda _: None)
    with nullcontext(looking) if dry_run else exclusive_access(where, _ADVICE) as names:
        for stream in sorted(names.unsynced):
            say(f"{stream}: not changed until the next boot: a sync of its directory failed")
        retainer = Retainer(where, retention_rules(config, str(where)), names=names)
        retainer.look()
        count = total = 0
        while (removal := retainer.next_removal()) is not None:
            (retainer.suppose if dry_run else retainer.remove)(removal)
            over = f", not yet read by {', '.join(removal.passed_over)}" * bool(removal.passed_over)
            say(
                f"{removal.stream}: {removal.oldest.name}, records up to {removal.oldest.last}, "
                f"until {removal.oldest.until}: {removal.reason}{over}"
            )
            count += 1
            total += removal.oldest.bytes
    said = "to be removed" if dry_run else "removed"
    say(f"{count} segments {said}, {format_size_rounded(total)}")
