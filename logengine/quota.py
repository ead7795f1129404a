"""How much a stream and a user may send: token buckets, and what was dropped for want of tokens.

No clock and no timers: `now_s` is an argument, of any clock that never goes back.
"""

from collections.abc import Iterator, Mapping
from math import inf
from typing import Literal, NamedTuple

import msgspec

Over = Literal["block", "drop"]

# So many users are remembered before those are forgotten who could send a whole burst again.
_USERS_BEFORE_PRUNING = 4096


class Quota(msgspec.Struct, frozen=True):
    """What may be sent per second, 0 for as much as comes; `burst_s` seconds' worth at once.

    Bytes are those of the stored lines, envelope included.
    """

    records_per_s: int = 0
    bytes_per_s: int = 0
    burst_s: float = 1.0
    over: Over = "block"

    @property
    def limits_nothing(self) -> bool:
        """Whether it lets everything pass."""
        return not (self.records_per_s or self.bytes_per_s)


class TokenBucket:
    """Tokens that come at a rate, up to so many; full at first. A rate of 0 has no end of them.

    More may be taken than there are: then it is in debt, and what comes goes there first.
    """

    def __init__(self, per_s: float, burst_s: float, now_s: float) -> None:
        self._per_s = per_s
        # At least one: less than a record per burst would let none pass, ever.
        self._most = max(1.0, per_s * burst_s) if per_s else inf
        self._tokens = self._most
        self._as_of_s = now_s

    def tokens(self, now_s: float) -> float:
        """How many there are; below 0 is a debt."""
        if self._per_s and now_s > self._as_of_s:
            self._tokens = min(self._most, self._tokens + (now_s - self._as_of_s) * self._per_s)
            self._as_of_s = now_s
        return self._tokens

    def is_full(self, now_s: float) -> bool:
        """Whether no more fit in."""
        return self.tokens(now_s) >= self._most

    def has_for(self, amount: float, now_s: float) -> bool:
        """Whether `amount` is there."""
        return amount <= self.tokens(now_s)

    def has_for_one(self, amount: float, now_s: float) -> bool:
        """The same for what cannot be cut: a full one gives it, or it never could."""
        return self.has_for(amount, now_s) or self.is_full(now_s)

    def take(self, amount: float, now_s: float) -> None:
        """Takes `amount`, there or not."""
        self.tokens(now_s)
        self._tokens -= amount

    def wait_s(self, now_s: float) -> float:
        """Seconds until there is a whole token; 0 if there is one."""
        missing = 1.0 - self.tokens(now_s)
        return missing / self._per_s if missing > 0 else 0.0


class Allowance:
    """What is left of one quota, of records and of bytes; `of` is "stream" or "uid"."""

    def __init__(self, quota: Quota, of: str, now_s: float) -> None:
        self.of = of
        self.blocks = quota.over == "block"
        self.records = TokenBucket(quota.records_per_s, quota.burst_s, now_s)
        self.bytes = TokenBucket(quota.bytes_per_s, quota.burst_s, now_s)

    def has_for(self, records: int, size_bytes: int, now_s: float) -> bool:
        """Whether so much may be taken."""
        return self.records.has_for(records, now_s) and self.bytes.has_for(size_bytes, now_s)

    def has_for_one(self, size_bytes: int, now_s: float) -> bool:
        """Whether one record may be taken."""
        return self.records.has_for_one(1, now_s) and self.bytes.has_for_one(size_bytes, now_s)

    def take(self, records: int, size_bytes: int, now_s: float) -> None:
        """Takes so much, there or not."""
        self.records.take(records, now_s)
        self.bytes.take(size_bytes, now_s)

    def wait_s(self, now_s: float) -> float:
        """Seconds until there is some of both."""
        return max(self.records.wait_s(now_s), self.bytes.wait_s(now_s))

    def is_full(self, now_s: float) -> bool:
        """Whether a whole burst may be sent."""
        return self.records.is_full(now_s) and self.bytes.is_full(now_s)


class Admitted(NamedTuple):
    """The stored lines that may pass, how many, and which quota kept the others out, if any."""

    body: bytes
    records: int
    over: str | None


class Dropped(msgspec.Struct):
    """What one user's records in one stream lost to one quota since the last report."""

    stream: str
    uid: int
    quota: str
    records: int = 0
    bytes: int = 0


class Quotas:
    """The quotas of all streams and users, and how much of each is left.

    `streams` and `users` are those that differ from `stream` and `user`, which hold for each
    of the others. A user's quota is one for all streams and connections together.
    """

    def __init__(
        self,
        stream: Quota,
        user: Quota,
        streams: Mapping[str, Quota],
        users: Mapping[int, Quota],
    ) -> None:
        self._stream = stream
        self._user = user
        self._streams = streams
        self._users = users
        self._of_streams: dict[str, Allowance] = {}
        self._of_users: dict[int, Allowance] = {}
        self._dropped: dict[tuple[str, int, str], Dropped] = {}

    @property
    def limits_nothing(self) -> bool:
        """Whether nobody has a quota at all."""
        quotas = (self._stream, self._user, *self._streams.values(), *self._users.values())
        return all(quota.limits_nothing for quota in quotas)

    def wait_s(self, stream: str, uid: int, now_s: float) -> float:
        """Seconds until a sender may be read, as those quotas have it that block; 0 for now."""
        return max(
            (each.wait_s(now_s) for each in self._allowances(stream, uid, now_s) if each.blocks),
            default=0.0,
        )

    def room(self, stream: str, uid: int, now_s: float) -> tuple[float, float]:
        """Records and bytes that may be read of a sender now, as those have it that block."""
        records = size_bytes = inf
        for allowance in self._allowances(stream, uid, now_s):
            if allowance.blocks:
                records = min(records, allowance.records.tokens(now_s))
                size_bytes = min(size_bytes, allowance.bytes.tokens(now_s))
        return records, size_bytes

    def admit(self, stream: str, uid: int, body: bytes, records: int, now_s: float) -> Admitted:
        """The stored lines of `body` that may pass: those before the first that may not.

        What does not is counted, for the report. O(1) if everything passes.
        """
        allowances = list(self._allowances(stream, uid, now_s))
        dropping = [each for each in allowances if not each.blocks]
        passed, stop, over = records, len(body), None
        if not all(each.has_for(records, stop, now_s) for each in dropping):
            passed, stop, over = _those_that_fit(body, dropping, now_s)
        for allowance in allowances:
            allowance.take(passed, stop, now_s)
        if over is None:
            return Admitted(body, records, None)
        key = (stream, uid, over)
        dropped = self._dropped.setdefault(key, Dropped(*key))
        dropped.records += records - passed
        dropped.bytes += len(body) - stop
        return Admitted(body[:stop], passed, over)

    def take_dropped(self) -> list[Dropped]:
        """What was dropped since it was asked for last."""
        dropped = list(self._dropped.values())
        self._dropped.clear()
        return dropped

    def _allowances(self, stream: str, uid: int, now_s: float) -> Iterator[Allowance]:
        of_stream = self._streams.get(stream, self._stream)
        if not of_stream.limits_nothing:
            allowance = self._of_streams.get(stream)
            if allowance is None:
                allowance = self._of_streams[stream] = Allowance(of_stream, "stream", now_s)
            yield allowance
        of_user = self._users.get(uid, self._user)
        if not of_user.limits_nothing:
            allowance = self._of_users.get(uid)
            if allowance is None:
                self._prune(now_s)
                allowance = self._of_users[uid] = Allowance(of_user, "uid", now_s)
            yield allowance

    def _prune(self, now_s: float) -> None:
        """Forgets who has all of a quota, as a new one would; streams are bounded by themselves."""
        if len(self._of_users) >= _USERS_BEFORE_PRUNING:
            left = {uid: each for uid, each in self._of_users.items() if not each.is_full(now_s)}
            self._of_users = left


def _those_that_fit(
    body: bytes, allowances: list[Allowance], now_s: float
) -> tuple[int, int, str | None]:
    """How many lines of `body` may be taken, where the last of them ends, and what forbids more."""
    passed = stop = 0
    # Not `splitlines`: JSON may have a carriage return between its tokens.
    for line in body.split(b"\n")[:-1]:
        after = stop + len(line) + 1
        for each in allowances:
            fits = (
                each.has_for_one(after, now_s)
                if not passed
                else each.has_for(passed + 1, after, now_s)
            )
            if not fits:
                return passed, stop, each.of
        passed, stop = passed + 1, after
    return passed, stop, None
