"""How many bytes of stored lines each user has in a stream, as its headers say: pure arithmetic.

    first segment   "users":{"1000":[0,700]}
    next segment    "users":{"1000":[700,300],"0":[0,40]}

Of each user the bytes `before` a segment, and its `own`. `before` never goes back, so what is
still stored of a user is told by two headers: all up to the newest one's end, without what was
before the oldest. A user who was forgotten is counted anew, from 0: then too little is known of
him, never too much.
"""

from collections.abc import Mapping, Sequence

from msgspec import UNSET, UnsetType

from logengine.format.segment import Header, UserBytes

Users = Mapping[int, UserBytes]


def advance_users(
    known: Users, added: Mapping[int, int], users_max: int, *, begins_segment: bool
) -> Users:
    """What a segment says that adds so many bytes of each user to a stream.

    `known` is what the newest one says so far: this one itself, or the one before it where it
    `begins_segment`. Ordered, the least recently active first; above `users_max` those are
    forgotten.
    """
    if begins_segment:
        known = ended_users(known)
    elif not added:
        return known
    users = {uid: each for uid, each in known.items() if uid not in added}
    for uid, size_bytes in added.items():
        each = known.get(uid, _NOTHING)
        users[uid] = UserBytes(each.before, each.own + size_bytes)
    for forgotten in list(users)[: max(0, len(users) - users_max)]:
        del users[forgotten]
    return users


def ended_users(users: Users) -> Users:
    """What a segment behind one with `users` says, while it has no record of its own."""
    return {uid: UserBytes(each.before + each.own, 0) for uid, each in users.items()}


def merged_users(headers: Sequence[Header]) -> dict[int, UserBytes] | UnsetType:
    """What a segment says that has the records of `headers`, which are neighbours.

    It is to go on where the last of them does, and says nothing if that one does not.
    """
    last = headers[-1]
    if last.users is UNSET:
        return UNSET
    merged: dict[int, UserBytes] = {}
    for uid, each in last.users.items():
        before = each.before
        for header in reversed(headers[:-1]):
            earlier = (header.users or {}).get(uid)
            if earlier is None or earlier.before + earlier.own != before:
                break  # he was forgotten there, and is counted anew
            before = earlier.before
        merged[uid] = UserBytes(before, each.before + each.own - before)
    return merged


def stored_bytes_of(newest: Users | UnsetType, oldest: Users | UnsetType) -> dict[int, int]:
    """What is stored of each user between two segments of a stream, both included.

    As far as it was counted: of a segment from before that, or of one that could not be read,
    it is as if it had nothing.
    """
    gone = oldest or {}
    stored: dict[int, int] = {}
    for uid, each in (newest or {}).items():
        counted = each.before + each.own
        before = gone[uid].before if uid in gone else 0
        # Less than was there before: he was forgotten since, and all of it is from after that.
        stored[uid] = counted - before if before <= counted else counted
    return stored


_NOTHING = UserBytes(0, 0)
