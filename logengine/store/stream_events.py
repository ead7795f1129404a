"""The daemon's log events for a stream: failures, damage, removed segments."""

import asyncio
from collections.abc import Sequence

import structlog

from logengine.disk.directory import Directory
from logengine.disk.registered_cursors import cursors_behind
from logengine.errors import LogEngineError
from logengine.store.drop_oldest import StoredSegment
from logengine.store.pending import Pending
from logengine.store.stream import Recovery

log = structlog.get_logger()


def report_recovery(stream: str, recovery: Recovery) -> None:
    """Logs the problems that recovery found in a stream; the rest of the stream is served."""
    for damage in recovery.damaged:
        log.error("segment_damaged", stream=stream, path=damage.path, reason=damage.reason)
    for unread in recovery.unread:
        log.warning("segment_not_read", stream=stream, path=unread.path, reason=unread.reason)
    for first, last in recovery.gaps:
        log.error("records_missing", stream=stream, first=first, last=last)


def report_failure(
    stream: str, pending: Pending, error: Exception, *, is_news: bool, pause_s: float
) -> None:
    """Logs that a commit failed, or a recovery that no commit waits for.

    Unless `is_news`, logs at debug level only.
    """
    is_recovery_alone = pending.wants_recovery and pending.is_empty
    (log.error if is_news else log.debug)(
        "stream_not_recovered" if is_recovery_alone else "commit_failed",
        stream=stream,
        error=str(error),
        waiting_records=pending.records,
        waiting_bytes=pending.bytes,
        retry_in_s=pause_s,
        exc_info=None if isinstance(error, OSError | LogEngineError) else error,
    )


def report_success(stream: str, pending: Pending, now_s: float) -> None:
    """Logs that a failing stream works again."""
    log.info(
        "stream_recovered",
        stream=stream,
        failed_attempts=pending.attempts,
        failed_for_s=round(now_s - pending.failing_since, 1),
        waiting_records=pending.records,
        waiting_bytes=pending.bytes,
    )


def report_dropping(stream: str, chosen: Sequence[StoredSegment]) -> None:
    """Logs the segments about to be dropped: a daemon killed meanwhile cannot report them after."""
    log.info("dropping_oldest_segments", stream=stream, **_described(chosen))


def report_dropped(stream: str, dropped: Sequence[StoredSegment]) -> None:
    """Logs the segments dropped for lack of space."""
    log.warning(
        "oldest_segments_dropped",
        stream=stream,
        **_described(dropped),
        reason="space is short, and on_full is drop_oldest",
    )


def _described(segments: Sequence[StoredSegment]) -> dict[str, int]:
    return {
        "first": min(segment.first for segment in segments),
        "last": max(segment.last for segment in segments),
        "segments": len(segments),
        "bytes": sum(segment.disk_bytes for segment in segments),
    }


async def report_unread(data: Directory, stream: str, dropped: Sequence[StoredSegment]) -> None:
    """Logs the cursors that had not read what was dropped."""
    last = max(segment.last for segment in dropped)
    try:
        cursors = await asyncio.to_thread(cursors_behind, data, stream, last)
    except (OSError, LogEngineError) as error:
        log.error("cursors_not_read", stream=stream, error=str(error))
        return
    if cursors:
        log.warning("removed_before_it_was_read", stream=stream, cursors=cursors, last=last)
