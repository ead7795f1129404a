"""The daemon's status: its answer to `logengine status`, and the state reported to systemd."""

from collections.abc import Sequence

import msgspec

from logengine.units import format_size_rounded

# On a full disk every stream may be failing; an answer lists at most this many.
FAILING_STREAMS_MAX = 100
# A queue of fewer datagrams is full after any burst, and while the disk is slow for a moment.
DATAGRAM_QUEUE_MIN = 100
# An answer lists at most this many streams, and users, whose quota of stored bytes is used up.
FULL_MAX = 100
# The same for followed files.
FILES_MAX = 100


class FailingStream(msgspec.Struct, frozen=True):
    """A stream that cannot be committed: why, for how long, and how much waits in memory."""

    stream: str
    error: str
    for_s: float
    attempts: int
    waiting_records: int
    waiting_bytes: int


class TotalsStatus(msgspec.Struct, frozen=True):
    """Totals since the daemon's start.

    The last fields have defaults, because older daemons do not send them.
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
    fallback_records: int = 0
    dropped_datagrams: int = 0


class FileStatus(msgspec.Struct, frozen=True):
    """A followed file: where it is, how many of its bytes were read of how many, what is wrong."""

    path: str
    stream: str
    position: int
    size: int
    problem: str = ""


class Status(msgspec.Struct, frozen=True):
    """The answer to `{"_status":1}`; `docs/protocol.md` explains each field.

    `failing` has at most `FAILING_STREAMS_MAX` of the `failing_streams`. The last fields have
    defaults, because older daemons do not send them.
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
    free_bytes: int = 0
    keep_free_bytes: int = 0
    is_space_low: bool = False
    uids_at_share: Sequence[int] = ()
    datagram_queue: int = 0
    followed_files: int = 0
    files: Sequence[FileStatus] = ()
    commit_flushes: int = 0
    commit_flushes_reason: str = ""


def serving_state(unusable: str, failing: Sequence[FailingStream]) -> str:
    """Returns one line on the state of the streams, which `systemctl status` shows.

    `unusable` is the reason why nothing at all can be committed, or empty.
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
