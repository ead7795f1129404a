"""`logengine backup`"""

from pathlib import Path

import click

from logengine.cli.messages import say, tell
from logengine.cli.options import complete_streams, data_option, resolve_data
from logengine.reading import stream_names
from logengine.units import format_size_rounded


@click.command(
    epilog="""\b
Examples:
  logengine backup /backup/logs-$(date +%F)
  logengine backup --copy /mnt/usb/logs && logengine verify --data /mnt/usb/logs
  logengine backup -s audit /backup/audit
"""
)
@click.argument("target", metavar="DIR", type=click.Path(path_type=Path))
@click.option(
    "-s",
    "--stream",
    "streams",
    multiple=True,
    metavar="NAME",
    shell_complete=complete_streams,
    help="Back up only this stream; may be repeated. Default: all.",
)
@click.option(
    "--copy",
    "independent",
    is_flag=True,
    help="Never make hard links: copy every file that cannot be reflinked.",
)
@data_option
@click.pass_context
def command(
    ctx: click.Context,
    target: Path,
    streams: tuple[str, ...],
    independent: bool,  # noqa: FBT001
    data: Path | None,
) -> None:
    """Make a backup of the data directory at DIR, while the daemon runs.

    Each stream has everything that was durable when the command began. DIR must not exist or be
    empty, and gets its name when the backup is complete and durable. Files are reflinked, or
    hard-linked, or copied to another file system. The backup is a data directory: `verify`, `cat`
    and `run` accept it.
    """
    from logengine.upkeep.backup import Backup

    data = resolve_data(data)
    names = stream_names(*streams, data=data)
    status = 0
    count = total_bytes = 0
    with Backup(data, target, independent=independent) as backup:
        backup.take_cursors(names)
        for name in names:
            taken = backup.take(name)
            count += taken.files
            total_bytes += taken.bytes
            which = f"records {taken.first} to {taken.last}" if taken.files else "no records"
            size = format_size_rounded(taken.bytes)
            say(f"{name}: {which}, {taken.files} files, {size}")
            for problem in taken.problems:
                tell(f"{name}: {problem}; run `logengine verify {name}`")
                status = 1
        backup.finish()
    how = ", ".join(f"{number} {what}" for what, number in vars(backup.totals).items() if number)
    say(
        f"{len(names)} streams, {count} files, {format_size_rounded(total_bytes)}"
        f"{f' ({how})' if how else ''}: {target}"
    )
    ctx.exit(status)
