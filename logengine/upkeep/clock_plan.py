"""Which time retention relies on, although the clock may be wrong: pure decisions.

A wrong clock must not make records old. So a time is carried on by the kernel's clock of this boot,
which nobody can set. If the wall clock differs from it, the lesser of the two counts. If they
differ for a day in which the daemon runs and the wall clock makes no further jump, the wall clock
is believed.
"""

import msgspec

BELIEVED_AFTER_S = 24 * 3600.0
# Clocks that differ by less are the same: time servers adjust clocks all the time.
SAME_S = 60.0


class KnownTime(msgspec.Struct, frozen=True):
    """What is known about the time at one moment; times are in nanoseconds since the epoch.

    `believed_ns` is the time that was believed, carried on. `wall_ns` is what the wall clock said.
    `doubted_s` is for how long the two have differed while the daemon ran, without another jump.
    """

    believed_ns: int
    wall_ns: int
    doubted_s: float = 0.0

    @property
    def is_doubted(self) -> bool:
        """Whether the wall clock differs from the believed time."""
        return self.believed_ns != self.wall_ns

    @property
    def ahead_s(self) -> float:
        """By how much the wall clock is ahead of the believed time; negative if it is behind."""
        return (self.wall_ns - self.believed_ns) / 1e9

    @property
    def now_ns(self) -> int:
        """The time by which ages are judged: it makes nothing older than either clock does."""
        return min(self.believed_ns, self.wall_ns)


def known_after(before: KnownTime, wall_ns: int, passed_s: float, *, ran: bool) -> KnownTime:
    """Returns what is known once `passed_s` have passed, and the wall clock says `wall_ns`.

    `ran` says whether the daemon ran meanwhile. If it did not, more time may have passed than is
    known, because the machine may have been off: a clock that is then ahead has not jumped again.
    """
    passed_ns = int(passed_s * 1e9)
    believed_ns = before.believed_ns + passed_ns
    agreed = KnownTime(wall_ns, wall_ns)
    if abs(wall_ns - believed_ns) <= SAME_S * 1e9:
        return agreed
    jump_s = (wall_ns - before.wall_ns - passed_ns) / 1e9
    has_jumped = jump_s < -SAME_S or (ran and jump_s > SAME_S)
    doubted_s = 0.0 if has_jumped else before.doubted_s + (passed_s if ran else 0.0)
    if doubted_s >= BELIEVED_AFTER_S:
        return agreed
    return KnownTime(believed_ns, wall_ns, doubted_s)


def first_known(wall_ns: int, newest_ns: int | None) -> KnownTime:
    """Returns what is known if nothing was noted; `newest_ns` is the time of the newest record.

    A record from the future says nothing about the time.
    """
    if newest_ns is None or newest_ns > wall_ns or wall_ns - newest_ns <= SAME_S * 1e9:
        return KnownTime(wall_ns, wall_ns)
    return KnownTime(newest_ns, wall_ns)
