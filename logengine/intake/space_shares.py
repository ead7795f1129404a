"""Who may still write when the file system is nearly full: pure decisions.

A part of the file system is kept free (`[quota] keep_free`). While more is free, nobody is limited.
Once less is free, the rest of that part is shared out: each user may store as much of it as is left
for all others. So a user who fills the disk is stopped when half of the rest is left, and others go
on. What root and the daemon's user have in reserve is not shared out, and they are never stopped.

Free space is what the last look measured, minus what arrived since. No files and no clock: the
caller looks at the file system and reports what it found.
"""

from collections.abc import Collection, Mapping

import msgspec

# Of the space that is kept free, one part in so many is the reserve of root and the daemon's user.
_RESERVE_PART = 4
# A new stream takes this much besides its lines: a directory, a segment, a mark, each a few blocks.
_NEW_STREAM_BYTES = 16 * 1024
# Any chunk may cost a block or two more than its lines; more frequent looks account for that.
_CHUNK_BYTES = 4096
# The next look is due when this part of the space until the next limit may have been used.
_LOOK_PART = 8
_LOOK_BYTES_MIN = 64 * 1024
# Sharing ends when this part more than the space to be kept is free.
_AGAIN_PART = 8


class SharedSpace(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a restart must not forget: the bytes that were shared out, and who has used how many."""

    bytes: int
    used: Mapping[int, int] = {}


class SpaceShares:
    """The free space of one file system, and the share of each user. Sizes are in bytes.

    The users in `privileged` have no share and are never stopped.
    """

    def __init__(self, privileged: Collection[int]) -> None:
        self._privileged = frozenset(privileged)
        self._kept = 0
        self._measured: int | None = None
        self._arrived = 0  # since the last look that ended had begun
        self._arrived_before_look = 0  # the part of it that a look under way will measure
        self._new_streams = 0  # those bytes of it that are for new streams
        self.until_look = 0  # bytes that may arrive until the next look is due
        self._streams: set[str] = set()
        self._used: dict[int, int] = {}
        self.is_scarce = False

    def forget(self) -> None:
        """Forgets everything: the data directory was replaced."""
        self._kept = self._arrived = self._arrived_before_look = 0
        self._new_streams = self.until_look = 0
        self._measured = None
        self._streams.clear()
        self._used.clear()
        self.is_scarce = False

    def restore(self, shared: SharedSpace) -> None:
        """Continues with what an earlier process shared out, before the first look."""
        self._kept = shared.bytes
        self._used = dict(shared.used)

    @property
    def shared(self) -> SharedSpace | None:
        """What a restart must not forget; None for nothing."""
        return SharedSpace(self._kept, dict(self._used)) if self.is_scarce else None

    @property
    def free(self) -> int:
        """How much is free, as far as known."""
        return (self._measured or 0) - self._arrived

    @property
    def kept(self) -> int:
        """How much is kept free: less than configured if less was free at the start. 0: nothing."""
        return self._kept

    @property
    def reserve(self) -> int:
        """How much of what is kept is not shared out."""
        return self._kept // _RESERVE_PART

    @property
    def left_for_all(self) -> int:
        """How much is left of what is shared out; negative if the reserve is used."""
        return self.free - self.reserve

    @property
    def is_used_up(self) -> bool:
        """Whether nobody but root and the daemon's user may write."""
        return self.is_scarce and self.left_for_all <= 0

    def limits(self, uid: int) -> bool:
        """Whether `uid` has to keep to a share now."""
        return self.is_scarce and uid not in self._privileged

    def left(self, uid: int) -> int:
        """How much a user, who is not privileged, may still store; 0 or less for nothing."""
        return self.left_for_all - self._used.get(uid, 0)

    def users_without(self) -> list[int]:
        """The users who have used up their share."""
        return [uid for uid in self._used if self.left(uid) <= 0] if self.is_scarce else []

    def add(self, stream: str, uid: int, size: int, *, charged: bool = True) -> None:
        """Counts lines of a user that are queued to be stored; `charged` to the user's share."""
        if stream not in self._streams:
            self._streams.add(stream)
            self._new_streams += _NEW_STREAM_BYTES
            size += _NEW_STREAM_BYTES
        self._arrived += size
        self.until_look -= size + _CHUNK_BYTES
        # As `_is_below` finds out; a call of it for each chunk would be dear.
        kept, measured = self._kept, self._measured
        is_below = kept > 0 and measured is not None and measured - self._arrived < kept
        if not (is_below or self.is_scarce):
            return
        self.is_scarce = True
        if charged and uid not in self._privileged:
            self._used[uid] = self._used.get(uid, 0) + size

    def look(self) -> int:
        """Begins a look; returns the bytes of new streams that may not be on disk yet.

        What arrives from now on counts in addition to what the look finds.
        """
        not_stored, self._new_streams = self._new_streams, 0
        self._arrived_before_look = self._arrived
        self.until_look = _LOOK_BYTES_MIN
        return not_stored

    def saw(self, free: int, keep_free: int) -> None:
        """Ends a look: `free` less what is not on disk yet, and how much should be kept free.

        If less was free when the first look was taken, only that is kept and shared out: a disk
        that somebody runs nearly full on purpose goes on working.
        """
        self._measured = free
        self._arrived -= self._arrived_before_look
        self._arrived_before_look = 0
        self._kept = max(0, min(keep_free, max(self._kept, free)))
        again = self._kept // _AGAIN_PART if self.is_scarce else 0
        self.is_scarce = self._is_below(self._kept + again)
        self._settle(max(0, self._kept - self.free))
        limit = self.reserve if self.is_scarce else self._kept
        self.until_look = max(_LOOK_BYTES_MIN, abs(self.free - limit) // _LOOK_PART)

    def _is_below(self, limit: int) -> bool:
        """Whether less than `limit` is free, of which some is kept. Before a look, it is not."""
        return self._measured is not None and self._kept > 0 and self.free < limit

    def _settle(self, gone: int) -> None:
        """Reduces what users have used to what is `gone` in all: some of it may be free again."""
        used = sum(self._used.values())
        if used > gone:
            less = {uid: size * gone // used for uid, size in self._used.items()}
            self._used = {uid: size for uid, size in less.items() if size}
