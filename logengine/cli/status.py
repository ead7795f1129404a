"""`logengine status`"""

from collections.abc import Iterator
from pathlib import Path

import click
import msgspec

from logengine.cli.messages import say
from logengine.cli.options import resolve_socket, socket_option
from logengine.client.daemon_socket import Socket, connect
from logengine.errors import DaemonUnavailable, ProtocolError
from logengine.printable import escape
from logengine.protocols.status import DATAGRAM_QUEUE_MIN, Status
from logengine.units import format_duration, format_size_rounded

_PATIENCE_S = 10.0


@click.command(
    epilog="""\b
Examples:
  logengine status
  logengine status --json | jq '.failing[].stream'
"""
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the daemon's answer unchanged: one JSON object."
)
@socket_option
@click.pass_context
def command(ctx: click.Context, socket: Path | None, as_json: bool) -> None:  # noqa: FBT001
    """Show the daemon's health: what fails and why, what waits in memory, totals since its start.

    Exit 1 if a stream cannot be committed, the memory for records is full, or no daemon answers.
    Only root and the daemon's own user may ask.
    """
    path = resolve_socket(socket)
    answer = ask_status(path)
    try:
        status = msgspec.json.decode(answer, type=Status)
    except msgspec.MsgspecError:
        found = answer.decode(errors="backslashreplace").strip() or "nothing"
        raise ProtocolError(f"{path}: expected a status; the daemon answered {found}") from None
    if as_json:
        click.echo(answer, nl=False)
    else:
        for line in _lines_of(status):
            say(line)
    ctx.exit(0 if status.ok else 1)


def ask_status(path: Socket, patience_s: float = _PATIENCE_S) -> bytes:
    """Returns the daemon's answer, one line. Raises `DaemonUnavailable`."""
    try:
        with connect(path, patience_s) as connection:
            connection.sendall(b'{"_status":1}\n')
            with connection.makefile("rb") as answers:
                return answers.readline()
    except OSError as error:
        raise DaemonUnavailable(
            f"no daemon answers at {path} ({error}); "
            "is `logengine run` running, and is --socket its socket?"
        ) from None


def _space_of(status: Status) -> Iterator[str]:
    """Yields who has no space left, as lines for a person."""
    for name in status.streams_at_max_bytes:
        yield f"  {name} has used up its quota of stored bytes (max_bytes)"
    for uid in status.uids_at_max_bytes:
        yield f"  user {uid} has used up the quota of stored bytes (max_bytes)"
    if status.is_space_low:
        yield (
            f"  free space is low: {format_size_rounded(max(0, status.free_bytes))}; what is left "
            f"of {format_size_rounded(status.keep_free_bytes)} (keep_free) is shared out"
        )
    for uid in status.uids_at_share:
        yield f"  user {uid} has used up the share of the free space (keep_free)"


def _files_of(status: Status) -> Iterator[str]:
    """Yields the state of the followed files, as lines for a person."""
    if status.followed_files:
        unread = sum(max(0, file.size - file.position) for file in status.files)
        yield (
            f"  follows    {status.followed_files:,} files, "
            f"{format_size_rounded(unread)} of them not read yet"
        )
    for file in status.files:
        if file.problem:
            yield f"  {escape(file.path)} is not followed: {escape(file.problem)}"


def _lines_of(status: Status) -> Iterator[str]:
    """Yields the status as lines for a person."""
    totals = status.totals
    yield "ok" if status.ok else "not ok"
    yield f"  up         {format_duration(int(status.uptime_s))}, pid {status.pid}, {status.data}"
    yield (
        f"  pending    {format_size_rounded(status.pending_bytes)} of "
        f"{format_size_rounded(status.max_pending)}"
    )
    yield (
        f"  senders    {status.connections:,} of {status.max_connections:,}, "
        f"{status.waiting_senders:,} of them waiting"
    )
    yield (
        f"  committed  {totals.records:,} records, {format_size_rounded(totals.bytes)}, in "
        f"{totals.batches:,} batches, to {status.streams:,} streams"
    )
    if status.commit_flushes:  # older daemons do not say
        times = "once" if status.commit_flushes == 1 else "twice"
        yield f"  flushes    {times} for each commit: {escape(status.commit_flushes_reason)}"
    lost = {
        "too large": (totals.refused_records, "records"),
        "over a quota": (totals.over_quota_records, "records"),
        "oldest dropped for space": (totals.dropped_records, "records"),
        "dropped for want of room": (totals.dropped_datagrams, "datagrams"),
        "in a fallback stream, since there are too many streams": (
            totals.fallback_records,
            "records",
        ),
    }
    for what, (count, unit) in lost.items():
        if count:
            yield f"  {what}: {count:,} {unit}"
    if 0 < status.datagram_queue < DATAGRAM_QUEUE_MIN:
        yield (
            f"  only {status.datagram_queue:,} datagrams wait for a socket in the kernel; raise "
            "net.unix.max_dgram_qlen and restart the daemon, or their senders wait or lose some"
        )
    if status.unusable:
        yield f"  nothing is committed: {status.unusable}"
    for risk in status.risks:
        yield f"  not safe from a power cut: {risk}"
    yield from _space_of(status)
    for name in status.unsynced_streams:
        yield f"  no file of {name} is removed until the next boot: a sync of its files failed"
    yield from _files_of(status)
    for stream in status.failing:
        yield (
            f"  {stream.stream} cannot be committed; failing for {stream.for_s:.0f} s, tried "
            f"{stream.attempts:,} times; {stream.waiting_records:,} records, "
            f"{format_size_rounded(stream.waiting_bytes)} wait: {stream.error}"
        )
    if more := status.failing_streams - len(status.failing):
        yield f"  and {more:,} more streams"
