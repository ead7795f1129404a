"""Pure decisions about a stream's segments: what a commit writes, what recovery keeps.

No files, no clock. A commit goes `append` -> `SegmentPlan.render` -> bytes to write. The state
that `append` returns is valid only once those bytes are durable.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from logengine.format.producers import Numbers, Producer, Room, advance, header_keys, numbers_in
from logengine.format.segment import FORMAT_VERSION, Header, encode_header, segment_name
from logengine.format.user_bytes import Users, advance_users

if TYPE_CHECKING:
    from hashlib import _Hash

# Every segment has fewer records than this. If a file cannot be read, no sequence number this far
# after the one in its name was ever assigned.
SEGMENT_RECORDS_MAX = 100_000_000
# An active segment of up to this size is always rewritten: it takes a page or two.
_REWRITE_ALWAYS_BYTES = 8 * 1024
# A larger one only for an addition of its size or more: a byte is then written once for each time
# that its segment doubles.


class BodyDigest:
    """The sha256 of a growing body: computed once, in the first thread that asks.

    A body that continues another one continues its hash: rewriting an active segment hashes only
    the new bytes.
    """

    def __init__(self, chunks: Sequence[bytes], continues: "BodyDigest | None" = None) -> None:
        self._chunks = chunks
        self._continues = continues
        self._hash: _Hash | None = None

    def hash(self) -> "_Hash":
        """The hash so far; copy it before adding to it. O(bytes) the first time."""
        if self._hash is None:
            digest = self._continues.hash().copy() if self._continues else hashlib.sha256()
            for chunk in self._chunks:
                digest.update(chunk)
            self._hash = digest
            self._chunks = ()
            self._continues = None
        return self._hash


class ActiveSegment(msgspec.Struct, frozen=True):
    """The newest segment, still small enough to be rewritten with more records."""

    first: int
    count: int
    body: bytes
    since: str
    until: str
    digest: BodyDigest


class StreamState(msgspec.Struct, frozen=True):
    """What the next commit of a stream must know about all earlier ones.

    `producers` and `users` are ordered, least recently active first. `users` is what the newest
    segment says.
    """

    stream: str
    next_seq: int = 1
    latest: str = ""
    producers: Numbers = {}
    active: ActiveSegment | None = None
    users: Users | UnsetType = UNSET

    def without_active(self) -> "StreamState":
        """The same state without an active segment: the next commit begins a new one."""
        return msgspec.structs.replace(self, active=None)


class Addition(msgspec.Struct, frozen=True):
    """What a batch adds to one stream: stored lines in order, and the producers' progress.

    `since` and `until` are the smallest and largest `_ts` of the lines. `count` is 0 if all of a
    producer's records were refused; their numbers are used up nevertheless. `users` has the bytes
    of each user's lines if they are counted.
    """

    chunks: Sequence[bytes]
    count: int
    since: str
    until: str
    producers: Numbers = {}
    users: Mapping[int, int] | UnsetType = UNSET


class SegmentPlan(msgspec.Struct, frozen=True):
    """One segment to write: everything except the hash.

    `begins_stream` means that nothing of the stream is durable yet, not even its directory.
    """

    stream: str
    begins_stream: bool
    first: int
    count: int
    chunks: Sequence[bytes]
    body_bytes: int
    since: str
    until: str
    latest: str
    producers: Numbers
    digest: BodyDigest
    users: Users | UnsetType = UNSET

    @property
    def file_name(self) -> str:
        """The name of the file to write."""
        return segment_name(self.first)

    @property
    def last(self) -> int:
        """The sequence number of its last record; `first` - 1 if it has none."""
        return self.first + self.count - 1

    def render(self) -> list[bytes]:
        """The bytes of the file, in pieces. O(bytes); hashing releases the GIL."""
        producers = header_keys(self.producers)
        header = Header(
            version=FORMAT_VERSION,
            stream=self.stream,
            first=self.first,
            count=self.count,
            bytes=self.body_bytes,
            since=self.since,
            until=self.until,
            latest=self.latest,
            sha256=self.digest.hash().hexdigest(),
            producers=producers.producers,
            producers_of=producers.producers_of,
            users=self.users if self.users is UNSET else dict(self.users),
        )
        return [encode_header(header), *self.chunks]


class PlannedSegment(NamedTuple):
    """What a commit adds to a stream: a segment, and the stream's state before and after it.

    `plan` is None if there is nothing to write. The states are compared by identity: a plan made
    on a state that is not the durable one must not be published.
    """

    plan: SegmentPlan | None
    before: StreamState
    after: StreamState


def append(
    state: StreamState,
    addition: Addition,
    *,
    rewrite_limit: int,
    max_producers: int,
    max_producer_names: int = 32 * 1024,
    max_users: int = 1024,
    is_in_use: Callable[[Producer], bool] = lambda _: False,
) -> tuple[SegmentPlan, StreamState]:
    """The segment that adds `addition` to a stream, and the state once it is durable.

    An active segment is rewritten under its own name with the addition appended; replacing the
    file makes that an append that cannot tear. Otherwise, or if that would write much more than the
    addition, a new segment begins. `rewrite_limit` is in bytes of body, `max_producer_names` in
    bytes of header. `is_in_use` says whether a producer has a connection or waiting records, and is
    to be remembered.
    """
    room = Room(max_producers, max_producer_names)
    producers = advance(state.producers, addition.producers, room, is_in_use)
    active = state.active
    if active is not None and not _is_worth_rewriting(active, addition):
        active = None
    users = state.users
    if users is not UNSET or addition.users is not UNSET:
        # Even if users are not counted any more: what was counted may still be stored.
        users = advance_users(
            users or {}, addition.users or {}, max_users, begins_segment=active is None
        )
    if active is None:
        first, count = state.next_seq, addition.count
        chunks: Sequence[bytes] = addition.chunks
        digest = BodyDigest(addition.chunks)
    else:
        first, count = active.first, active.count + addition.count
        chunks = [active.body, *addition.chunks]
        digest = BodyDigest(addition.chunks, continues=active.digest)
    latest = max(state.latest, addition.until) if addition.count else state.latest or addition.until
    times = [(part.since, part.until) for part in (active, addition) if part and part.count]
    since = min((since for since, _ in times), default=latest)
    until = max((until for _, until in times), default=latest)
    body_bytes = sum(map(len, chunks))
    still_active = None
    if body_bytes < rewrite_limit:
        body = b"".join(chunks)
        chunks = [body]
        still_active = ActiveSegment(first, count, body, since, until, digest)
    plan = SegmentPlan(
        state.stream,
        state.next_seq == 1,
        first,
        count,
        chunks,
        body_bytes,
        since,
        until,
        latest,
        producers,
        digest,
        users,
    )
    return plan, StreamState(
        state.stream, state.next_seq + addition.count, latest, producers, still_active, users
    )


def _is_worth_rewriting(active: ActiveSegment, addition: Addition) -> bool:
    added_bytes = sum(map(len, addition.chunks))
    return len(active.body) <= max(_REWRITE_ALWAYS_BYTES, added_bytes)


def state_after(header: Header) -> StreamState:
    """The state of a stream whose newest segment has `header`, without an active segment."""
    return StreamState(
        header.stream, header.last + 1, header.latest, numbers_in(header), users=header.users
    )


def with_active(state: StreamState, header: Header, body: bytes) -> StreamState:
    """`state` with the segment of `header` active; its `body` was checked and is still small."""
    active = ActiveSegment(
        header.first, header.count, body, header.since, header.until, BodyDigest([body])
    )
    return msgspec.structs.replace(state, active=active)


@dataclass(frozen=True)
class Found:
    """A segment that recovery found: the number in its name, and its header if readable."""

    first: int
    header: Header | None


@dataclass(frozen=True)
class RecoveryPlan:
    """What to do with the newest segments of a stream before anything is added to it.

    `covered` segments contain only records that an earlier segment contains too; remove them,
    newest first. `gaps` are the (first, last) sequence numbers that no segment contains. The
    stream continues from `state`, after segment `newest`, which is None if unreadable.
    """

    covered: list[int]
    gaps: list[tuple[int, int]]
    state: StreamState
    newest: Header | None


def plan_recovery(stream: str, found: Sequence[Found]) -> RecoveryPlan:
    """Decides what to do with the newest segments of a stream; `found` is in name order.

    A merge writes its result under the name of the first segment and then unlinks the others. A
    crash may interrupt that anywhere: segments that it left are within the range of an earlier
    segment, and so are covered. Damaged segments stay where they are.
    """
    state = StreamState(stream)
    covered: list[int] = []
    gaps: list[tuple[int, int]] = []
    newest: Header | None = None
    next_seq = 1  # after everything found so far
    is_continued = False  # whether the next segment is known to begin there
    for segment in found:
        header = segment.header
        if header is None:
            if segment.first >= next_seq:  # else a merge left it: it is covered, though damaged
                newest = None
                is_continued = False
                state = msgspec.structs.replace(state, next_seq=segment.first + SEGMENT_RECORDS_MAX)
            continue
        if header.first < next_seq and header.last < next_seq:
            covered.append(header.first)
            continue
        if is_continued and header.first > next_seq:
            gaps.append((next_seq, header.first - 1))
        newest = header
        next_seq = header.last + 1
        is_continued = True
        state = state_after(header)
    return RecoveryPlan(covered[::-1], gaps, state, newest)
