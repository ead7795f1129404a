"""How users share what is limited: connections, stream names, and memory for records.

Part of each is reserved for root and the daemon's own user, the privileged, so that `status` and
their senders always get in. The rest is common. A user may hold at most `uid_share` of what nobody
else holds of it. So one user alone may have nearly everything, and there is always something left
for the next one. The privileged count as one user, and use up their reserve before the common part.

This is the dynamic threshold of shared-memory switches (Choudhury and Hahne, 1998). Users that all
want more than there is converge on equal parts, once the first have given back what they have above
their share: records are committed, and connections give way (`gives_way`). Stream names are not
given back.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

PRIVILEGED = -1  # the holder that stands for root and the daemon's own user; no uid is negative


@dataclass(frozen=True)
class Rule:
    """`capacity` of a thing, shared out. `reserved` of it is for the privileged."""

    capacity: int
    reserved: int
    uid_share: float = 1.0

    @classmethod
    def of(cls, capacity: int, *, reserved_percent: int, uid_percent: int = 100) -> "Rule":
        """Returns the rule with these percentages of `capacity`, and of what is common."""
        return cls(capacity, capacity * reserved_percent // 100, uid_percent / 100)

    def limit(self, own: int, privileged: int, total: int, *, is_privileged: bool) -> float:
        """Returns below which amount a user may take more.

        `own` is what this user holds, all privileged users together if it is one of them;
        `privileged` is what those hold, and `total` what all hold.
        """
        common = self.capacity - self.reserved
        others = total - own
        if is_privileged:
            return self.reserved + max(0.0, self.uid_share * (common - others))
        others -= min(privileged, self.reserved)
        return self.uid_share * (common - others)


class Shares:
    """Counts what each user holds of a thing, under a `rule`.

    `privileged` are the uids of root and of the daemon.
    """

    def __init__(self, rule: Rule, privileged: Collection[int]) -> None:
        self._rule = rule
        self._privileged = frozenset(privileged)
        self._held: dict[int, int] = {}
        self.total = 0

    def holder(self, uid: int) -> int:
        """Returns the holder that `uid` counts as: itself, or `PRIVILEGED`."""
        return PRIVILEGED if uid in self._privileged else uid

    def held(self, holder: int) -> int:
        """Returns how much a holder has."""
        return self._held.get(holder, 0)

    def change(self, uid: int, amount: int) -> None:
        """Adds `amount`, which may be negative, to what a user holds."""
        holder = self.holder(uid)
        held = self._held.get(holder, 0) + amount
        assert held >= 0, "a user gives back no more than it took"
        if held:
            self._held[holder] = held
        else:
            self._held.pop(holder, None)
        self.total += amount

    def limit(self, uid: int, *, unowned: int = 0) -> float:
        """Returns below which amount `uid` may take more; `unowned` is held by nobody known."""
        holder = self.holder(uid)
        return self._rule.limit(
            self.held(holder),
            self.held(PRIVILEGED),
            self.total + unowned,
            is_privileged=holder == PRIVILEGED,
        )

    def has_room(self, uid: int, *, unowned: int = 0) -> bool:
        """Whether `uid` may take one more."""
        return self.held(self.holder(uid)) < self.limit(uid, unowned=unowned)

    def gives_way(self, uid: int) -> int | None:
        """Returns the holder that gives up one for `uid`, which has no room; None if nobody does.

        It is the largest, and then still has no less than `uid`.
        """
        largest = max(self._held, key=self._common, default=None)
        if largest is None or self._common(largest) <= self._common(self.holder(uid)) + 1:
            return None
        return largest

    def is_protected(self, holder: int) -> bool:
        """Whether all that a holder has is from the reserve."""
        return not self._common(holder)

    def smallest(self, holders: Iterable[int]) -> int:
        """Returns which of these holders has the least of the common part."""
        return min(holders, key=self._common)

    def _common(self, holder: int) -> int:
        """Returns how much of the common part a holder has."""
        held = self.held(holder)
        return max(0, held - self._rule.reserved) if holder == PRIVILEGED else held
