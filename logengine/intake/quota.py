"""Quotas: how much each stream and each user may send and store, and what was dropped over them.

Token buckets limit the rates; `stored_bytes` limits what is stored; `space_shares` shares out a
nearly full file system. No clock and no timers: `now_s` is an argument, from any clock that never
goes back.
"""

from collections.abc import Iterator, Mapping
from math import inf
from typing import Literal, NamedTuple, Protocol

import msgspec

from logengine.intake.stored_bytes import Space, StoredBytes
from logengine.units import Duration, RecordsPerSecond, Size

Over = Literal["block", "drop"]
Limit = Literal["records_per_s", "bytes_per_s", "max_bytes", "keep_free"]

# Above this many users, those that could send a whole burst again are forgotten.
_USERS_BEFORE_PRUNING = 4096
# The shortest time until a stream or user without room is measured, and may ask, again.
SCAN_EVERY_S = 2.0


class QuotaConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[quota.stream]`, `[quota.uid]`, `[stream.NAME.quota]`, `[uid.NUMBER.quota]`.

    At most `burst` seconds' worth of the rates may be sent in one burst. 0 is no limit. Bytes per
    second count stored lines, envelope included; `max_bytes` counts a stream's files, or a user's
    stored lines.
    """

    records_per_s: RecordsPerSecond = RecordsPerSecond(0)
    bytes_per_s: Size = Size(0)
    burst: Duration = Duration(1)
    max_bytes: Size = Size(0)
    over: Over = "block"

    @property
    def limits_nothing(self) -> bool:
        """Whether it has no limit at all."""
        return not (self.records_per_s or self.bytes_per_s or self.max_bytes)


class QuotasConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[quota]`: how much each stream may receive and store, and each user send and store.

    When less than `keep_free` of the file system is free, the rest is shared out among users.
    """

    keep_free: str = "5%"
    report_every: Duration = Duration(10)
    stream: QuotaConfig = QuotaConfig()
    uid: QuotaConfig = QuotaConfig()


class TokenBucket:
    """Tokens that arrive at a rate, up to a maximum. Starts full. A rate of 0 has infinitely many.

    More tokens may be taken than there are. The bucket is then in debt, and new tokens pay that
    first.
    """

    def __init__(self, per_s: float, burst_s: float, now_s: float) -> None:
        self._per_s = per_s
        # At least one: with less than a record per burst, none would ever pass.
        self._most = max(1.0, per_s * burst_s) if per_s else inf
        self._tokens = self._most
        self._as_of_s = now_s

    def tokens(self, now_s: float) -> float:
        """Returns the number of tokens; negative if in debt."""
        if self._per_s and now_s > self._as_of_s:
            self._tokens = min(self._most, self._tokens + (now_s - self._as_of_s) * self._per_s)
            self._as_of_s = now_s
        return self._tokens

    def is_full(self, now_s: float) -> bool:
        """Whether the bucket has its maximum."""
        return self.tokens(now_s) >= self._most

    def has_for(self, amount: float, now_s: float) -> bool:
        """Whether there are `amount` tokens."""
        return amount <= self.tokens(now_s)

    def has_for_one(self, amount: float, now_s: float) -> bool:
        """Like `has_for`, for one record: a full bucket suffices, or a large one never passes."""
        return self.has_for(amount, now_s) or self.is_full(now_s)

    def take(self, amount: float, now_s: float) -> None:
        """Takes `amount` tokens, even into debt."""
        self.tokens(now_s)
        self._tokens -= amount

    def wait_s(self, now_s: float) -> float:
        """Returns the seconds until there is a whole token; 0 if there is one."""
        missing = 1.0 - self.tokens(now_s)
        return missing / self._per_s if missing > 0 else 0.0


class Allowance:
    """What is left of one quota: records, bytes and space. `of` is "stream" or "uid"."""

    def __init__(
        self, quota: QuotaConfig, of: str, space: Space[str] | Space[int], now_s: float
    ) -> None:
        self.of = of
        self.blocks = quota.over == "block"
        self.records = TokenBucket(quota.records_per_s, quota.burst, now_s)
        self.bytes = TokenBucket(quota.bytes_per_s, quota.burst, now_s)
        self.space = space

    def lacks(self, records: int, size_bytes: int, now_s: float) -> Limit | None:
        """Returns the limit that this many records or bytes would exceed, if any."""
        if not self.records.has_for(records, now_s):
            return "records_per_s"
        if not self.bytes.has_for(size_bytes, now_s):
            return "bytes_per_s"
        return "max_bytes" if size_bytes > self.space.left() else None

    def lacks_for_one(self, size_bytes: int, now_s: float) -> Limit | None:
        """Returns the limit that one record of `size_bytes` would exceed, if any."""
        if not self.records.has_for_one(1, now_s):
            return "records_per_s"
        if not self.bytes.has_for_one(size_bytes, now_s):
            return "bytes_per_s"
        return "max_bytes" if size_bytes > self.space.left() else None

    def room(self, now_s: float) -> tuple[float, float]:
        """Returns how many records, and bytes, may be taken."""
        return self.records.tokens(now_s), min(self.bytes.tokens(now_s), self.space.left())

    def take(self, records: int, size_bytes: int, now_s: float) -> None:
        """Takes records and bytes, even into debt."""
        self.records.take(records, now_s)
        self.bytes.take(size_bytes, now_s)

    def charge(self, records: int, size_bytes: int, now_s: float) -> None:
        """Takes records and bytes for what was received and not stored.

        Into debt only if the quota blocks: a sender whose records are dropped instead would lose
        all those that follow.
        """
        if not self.blocks:
            records_left, bytes_left = self.records.tokens(now_s), self.bytes.tokens(now_s)
            self.records.take(max(0.0, min(records, records_left)), now_s)
            self.bytes.take(max(0.0, min(size_bytes, bytes_left)), now_s)
            return
        self.take(records, size_bytes, now_s)

    def wait_s(self, now_s: float) -> float:
        """Returns the seconds until records and bytes are left, or space may be checked again."""
        for_space_s = SCAN_EVERY_S if self.space.left() <= 0 else 0.0
        return max(self.records.wait_s(now_s), self.bytes.wait_s(now_s), for_space_s)

    def is_full(self, now_s: float) -> bool:
        """Whether a whole burst may be sent."""
        return self.records.is_full(now_s) and self.bytes.is_full(now_s)


class FreeSpaceLimit(Protocol):
    """The free space of the file system, as quotas see it."""

    is_scarce: bool
    """Whether free space is shared out now."""

    def limits(self, stream: str, uid: int) -> bool:
        """Whether records of a user for a stream must fit the user's share now."""

    def left(self, uid: int) -> float:
        """Returns how many bytes of a user's share are left; 0 or less for none."""

    def add(self, stream: str, uid: int, size: int) -> None:
        """Counts lines that are queued to be stored."""


class Share:
    """A user's share of the free space, while that is scarce: an allowance of bytes alone."""

    of = "uid"

    def __init__(self, space: FreeSpaceLimit, uid: int, *, blocks: bool) -> None:
        self.blocks = blocks
        self._space = space
        self._uid = uid

    def lacks(self, _records: int, size_bytes: int, _now_s: float) -> Limit | None:
        """Returns the limit that this many bytes would exceed, if they do."""
        return self.lacks_for_one(size_bytes, _now_s)

    def lacks_for_one(self, size_bytes: int, _now_s: float) -> Limit | None:
        """Returns the limit that one record of `size_bytes` would exceed, if it does."""
        return "keep_free" if size_bytes > self._space.left(self._uid) else None

    def room(self, _now_s: float) -> tuple[float, float]:
        """Returns how many records, and bytes, may be taken."""
        return inf, self._space.left(self._uid)

    def take(self, records: int, size_bytes: int, now_s: float) -> None:
        """Does nothing: `FreeSpaceLimit.add` counts what every user sends, with a share or not."""

    def charge(self, records: int, size_bytes: int, now_s: float) -> None:
        """Does nothing: what is not stored takes no space."""

    def wait_s(self, _now_s: float) -> float:
        """Returns the seconds until there may be space again; 0 if there is some."""
        return SCAN_EVERY_S if self._space.left(self._uid) <= 0 else 0.0


class Admitted(NamedTuple):
    """The stored lines that may pass, their number, and the quota that stopped others, if any."""

    body: bytes
    records: int
    over: str | None


class Dropped(msgspec.Struct):
    """What one limit dropped of one user's records in one stream since the last report."""

    stream: str
    uid: int
    quota: str
    limit: Limit
    records: int = 0
    bytes: int = 0


class Quotas:
    """The quotas of all streams and users, and how much of each is left.

    `streams` and `users` have the exceptions; `stream` and `user` apply to each of the others. A
    user's quota covers all streams and connections together. `stored` is counted only if some quota
    has a `max_bytes`. Free space is shared out if `space` is set.
    """

    def __init__(
        self,
        stream: QuotaConfig,
        user: QuotaConfig,
        streams: Mapping[str, QuotaConfig],
        users: Mapping[int, QuotaConfig],
    ) -> None:
        self._stream = stream
        self._user = user
        self._streams = streams
        self._users = users
        self._of_streams: dict[str, Allowance] = {}
        self._of_users: dict[int, Allowance] = {}
        self._dropped: dict[tuple[str, int, str, Limit], Dropped] = {}
        self.space: FreeSpaceLimit | None = None
        self.stored = StoredBytes(
            counts_streams=_any_has_max_bytes(stream, *streams.values()),
            counts_users=_any_has_max_bytes(user, *users.values()),
        )

    @property
    def limits_nothing(self) -> bool:
        """Whether there is no quota at all; free space may be shared out nevertheless."""
        quotas = (self._stream, self._user, *self._streams.values(), *self._users.values())
        return all(quota.limits_nothing for quota in quotas)

    @property
    def limits_space(self) -> bool:
        """Whether any quota has a `max_bytes`."""
        return self.stored.counts_streams or self.stored.counts_users

    def has_max_bytes(self, stream: str) -> bool:
        """Whether the quota of `stream` has a `max_bytes`."""
        return self._of_stream(stream).max_bytes > 0

    def without_space(self) -> tuple[list[str], list[int]]:
        """Returns the streams, and the users, whose `max_bytes` is used up, approximately."""
        return (
            [
                s
                for s, size in self.stored.streams.items()
                if 0 < self._of_stream(s).max_bytes <= size
            ],
            [u for u, size in self.stored.users.items() if 0 < self._of_user(u).max_bytes <= size],
        )

    def wait_s(self, stream: str, uid: int, now_s: float) -> float:
        """Returns the seconds until the blocking quotas let a sender be read; 0 for now."""
        return max(
            (each.wait_s(now_s) for each in self._allowances(stream, uid, now_s) if each.blocks),
            default=0.0,
        )

    def room(self, stream: str, uid: int, now_s: float) -> tuple[float, float]:
        """Returns how many records and bytes of a sender the blocking quotas let be read now."""
        records = size_bytes = inf
        for allowance in self._allowances(stream, uid, now_s):
            if allowance.blocks:
                records_left, bytes_left = allowance.room(now_s)
                records, size_bytes = min(records, records_left), min(size_bytes, bytes_left)
        return records, size_bytes

    def admit(self, stream: str, uid: int, body: bytes, records: int, now_s: float) -> Admitted:
        """Returns the stored lines of `body` that may pass: all before the first that may not.

        Counts the dropped ones for the report. O(1) if everything passes.
        """
        allowances = list(self._allowances(stream, uid, now_s))
        dropping = [each for each in allowances if not each.blocks]
        passed, stop, over = records, len(body), None
        if any(each.lacks(records, stop, now_s) for each in dropping):
            passed, stop, over = _those_that_fit(body, dropping, now_s)
        for allowance in allowances:
            allowance.take(passed, stop, now_s)
        if self.limits_space:
            self.stored.add(stream, uid, stop)
        if self.space is not None:
            self.space.add(stream, uid, stop)
        if over is None:
            return Admitted(body, records, None)
        key = (stream, uid, *over)
        dropped = self._dropped.setdefault(key, Dropped(*key))
        dropped.records += records - passed
        dropped.bytes += len(body) - stop
        return Admitted(body[:stop], passed, key[2])

    def charge(self, stream: str, uid: int, records: int, size_bytes: int, now_s: float) -> None:
        """Takes tokens for what a sender sent and nobody stores, such as blank lines."""
        for allowance in self._allowances(stream, uid, now_s):
            allowance.charge(records, size_bytes, now_s)

    def take_dropped(self) -> list[Dropped]:
        """Returns what was dropped since the last call."""
        dropped = list(self._dropped.values())
        self._dropped.clear()
        return dropped

    def _allowances(self, stream: str, uid: int, now_s: float) -> Iterator[Allowance | Share]:
        of_stream = self._of_stream(stream)
        if not of_stream.limits_nothing:
            allowance = self._of_streams.get(stream)
            if allowance is None:
                stored = self.stored
                space = Space(of_stream.max_bytes, stored.streams, stored.near_streams, stream)
                allowance = Allowance(of_stream, "stream", space, now_s)
                self._of_streams[stream] = allowance
            yield allowance
        of_user = self._of_user(uid)
        if not of_user.limits_nothing:
            allowance = self._of_users.get(uid)
            if allowance is None:
                self._prune(now_s)
                space_of_user = Space(
                    of_user.max_bytes, self.stored.users, self.stored.near_users, uid
                )
                allowance = Allowance(of_user, "uid", space_of_user, now_s)
                self._of_users[uid] = allowance
            yield allowance
        if self.space is not None and self.space.limits(stream, uid):
            yield Share(self.space, uid, blocks=of_user.over == "block")

    def _of_stream(self, stream: str) -> QuotaConfig:
        return self._streams.get(stream, self._stream)

    def _of_user(self, uid: int) -> QuotaConfig:
        return self._users.get(uid, self._user)

    def _prune(self, now_s: float) -> None:
        """Forgets users whose whole quota is left, as for a new user.

        Allowances of streams need no pruning: `max_streams` bounds them.
        """
        if len(self._of_users) >= _USERS_BEFORE_PRUNING:
            left = {uid: each for uid, each in self._of_users.items() if not each.is_full(now_s)}
            self._of_users = left


def _those_that_fit(
    body: bytes, allowances: list[Allowance | Share], now_s: float
) -> tuple[int, int, tuple[str, Limit] | None]:
    """Returns how many lines of `body` may pass, where the last of them ends, and what stops more.

    The latter is the kind of quota, and its limit.
    """
    passed = stop = 0
    # Not `splitlines`: JSON may contain a carriage return between its tokens.
    for line in body.split(b"\n")[:-1]:
        after = stop + len(line) + 1
        for each in allowances:
            limit = (
                each.lacks(passed + 1, after, now_s) if passed else each.lacks_for_one(after, now_s)
            )
            if limit is not None:
                return passed, stop, (each.of, limit)
        passed, stop = passed + 1, after
    return passed, stop, None


def _any_has_max_bytes(*quotas: QuotaConfig) -> bool:
    return any(quota.max_bytes for quota in quotas)
