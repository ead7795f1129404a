"""Decides which streams share a batch, so that who sends little does not wait for who sends much.

A commit takes as long as all its bytes and files, and all its senders wait for its end. So users
with much pending are committed in large batches, and everybody else in small ones beside them.
Each lane has slots of its own, so neither starves. No clock, no files, no queues.

This is scheduling by size: Harchol-Balter et al., *Size-based Scheduling to Improve Web
Performance*, 2003.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from enum import Enum
from math import inf

# Of the bytes of a whole batch, a user of the small lane may have this part pending. With the
# default, that is ten times what a busy service sends during a pause, and a quick disk writes it in
# a fraction of a millisecond.
_SMALL_PART = 32
# So many streams with next to nothing count as much. To sync a file takes longer than that, but the
# users of an ordinary host must not be large as soon as a few of their services log.
_SMALL_STREAMS = 16
# Beside other users, a large batch has so many streams. The loop works for 20 us on each of them
# when it starts and ends a batch, and everybody waits meanwhile. A record costs the same in any
# batch of more than about ten streams.
_SHARED_STREAMS_MAX = 64
# Three batches keep the threads busy while one of them is published.
UNDER_WAY_MAX = 3


class Lane(Enum):
    """The batches of users with little pending, and those of users with much."""

    SMALL = "small"
    LARGE = "large"


def large_users(
    pending_bytes: Mapping[int, int],
    owners: Callable[[], Iterable[int]],
    streams: int,
    *,
    max_batch: int,
) -> Collection[int]:
    """The users who have more pending than belongs into the small lane.

    `pending_bytes` has the bytes of each user that are not durable yet. `owners` returns a user
    for each stream in which something waits; `streams` is their number, or more. `max_batch` is in
    bytes. O(users) while there is little in total, and otherwise O(streams).
    """
    small_bytes = max_batch / _SMALL_PART
    stream_bytes = small_bytes / _SMALL_STREAMS
    if sum(pending_bytes.values()) + streams * stream_bytes <= small_bytes:
        return ()
    streams_of = Counter(owners())
    return {
        uid
        for uid in pending_bytes.keys() | streams_of.keys()
        if pending_bytes.get(uid, 0) + streams_of[uid] * stream_bytes > small_bytes
    }


def lane_of(uids: Iterable[int], large: Collection[int], *, follows_large: bool) -> Lane:
    """The lane of a stream in which entries of `uids` wait.

    A stream is one queue, so an entry of a user in `large` takes the whole stream along. What
    follows a large batch under way would wait for it, and all of a small batch with it.
    """
    if follows_large or (large and any(uid in large for uid in uids)):
        return Lane.LARGE
    return Lane.SMALL


def streams_max(lane: Lane | None, *, is_shared: bool) -> float:
    """How many streams a batch may have; `is_shared` as in `may_start`."""
    return _SHARED_STREAMS_MAX if is_shared and lane is Lane.LARGE else inf


def may_start(own: int, others: int, *, is_due: bool, is_enough: bool, is_shared: bool) -> bool:
    """Whether a batch may start while `own` of its lane, and `others`, are under way.

    `is_due` says that the pause is over, or that somebody waits; `is_enough`, that so much waits
    that the next batch is worth preparing while another one is in fsync; `is_shared`, that several
    users have something pending. For one user alone, the lanes are one.
    """
    under_way = own if is_shared else own + others
    return is_due if not under_way else is_enough and under_way < UNDER_WAY_MAX
