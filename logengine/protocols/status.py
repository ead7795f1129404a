"""How the daemon is: what it answers to `logengine status`, and says to systemd."""

from collections.abc import Sequence

import msgspec

from logengine.units import format_size_rounded

# Of a full disk every stream may be failing; one answer tells of no more than these.
FAILING_STREAMS_MAX = 100
# So many streams, and users, it names that have no room left in their quota.
FULL_MAX = 100


class FailingStream(msgspec.Struct, frozen=True):
    """A stream that cannot be committed: why, for how long, and how much waits in memory."""

    stream: str
    error: str
    for_s: float
    attempts: int
    waiting_records: int
    waiting_bytes: int


class TotalsStatus(msgspec.Struct, frozen=True):
    """What happened since the start.

    The last ones have defaults, for an answer of a daemon that does not tell them.
    """

    records: int
    bytes: int
    batches: int
    failed_commits: int
    connections: int
    refused_records: int
    over_quota_records: int
    dropped_records: int
    datagrams: int = 0


class Status(msgspec.Struct, frozen=True):
    """The answer to `{"_status":1}`; see `docs/protocol.md` for each.

    `failing` has at most `FAILING_STREAMS_MAX` of the `failing_streams`. The last ones have
    defaults, for an answer of a daemon that does not tell them.
    """

    status: int
    ok: bool
    pid: int
    data: str
    uptime_s: float
    streams: int
    connections: int
    max_connections: int
    waiting_senders: int
    pending_bytes: int
    max_pending: int
    failing_streams: int
    failing: Sequence[FailingStream]
    totals: TotalsStatus
    streams_at_max_bytes: Sequence[str] = ()
    uids_at_max_bytes: Sequence[int] = ()
    unsynced_streams: Sequence[str] = ()
    unusable: str = ""
    risks: Sequence[str] = ()


def serving_state(unusable: str, failing: Sequence[FailingStream]) -> str:
    """One line on how the streams fare, as `systemctl status` shows it.

    `unusable` says why nothing at all is committed, where that is so.
    """
    if unusable:
        return f"Nothing is committed: {unusable}"
    if not failing:
        return "Serving"
    waiting = format_size_rounded(sum(stream.waiting_bytes for stream in failing))
    more = f" and {len(failing) - 1} more" if len(failing) > 1 else ""
    return (
        f"Waiting for the disk: {failing[0].stream}{more} cannot be committed, {waiting} wait: "
        f"{failing[0].error}"
    )
