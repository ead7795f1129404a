"""How many bytes of stored lines each user has in a stream, computed from segment headers.

    first segment   "users":{"1000":[0,700]}
    next segment    "users":{"1000":[700,300],"0":[0,40]}

For each user a header has the bytes `before` the segment and the segment's `own`. `before` never
decreases, so two headers give the bytes of a user that are still stored: everything up to the end
of the newest segment, minus what was before the oldest. A user that was forgotten is counted from
0 again; the result may then be too low, never too high. Pure arithmetic.
"""

from collections.abc import Mapping, Sequence

from msgspec import UNSET, UnsetType

from logengine.format.segment import Header, UserBytes

Users = Mapping[int, UserBytes]


def advance_users(
    known: Users, added: Mapping[int, int], users_max: int, *, begins_segment: bool
) -> Users:
    """Returns the users of a segment after `added`, the new bytes of each user in the stream.

    `known` are the users of the newest segment so far: of this one, or, if `begins_segment`, of
    the one before it. The least recently active users come first; above `users_max` they are
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
    """Returns the users of a still empty segment that follows one with `users`."""
    return {uid: UserBytes(each.before + each.own, 0) for uid, each in users.items()}


def merged_users(headers: Sequence[Header]) -> dict[int, UserBytes] | UnsetType:
    """Returns the users of the segment that merges those of `headers`, which are neighbours.

    The next segment must be able to continue from it as from the last of them. If the last one
    has no users, neither has the merged one.
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
                break  # the user was forgotten there, and is counted from 0 again
            before = earlier.before
        merged[uid] = UserBytes(before, each.before + each.own - before)
    return merged


def stored_bytes_of(newest: Users | UnsetType, oldest: Users | UnsetType) -> dict[int, int]:
    """Returns the stored bytes of each user between two segments of a stream, both included.

    A segment that was written before users were counted, or that could not be read, counts as if
    it had no users.
    """
    gone = oldest or {}
    stored: dict[int, int] = {}
    for uid, each in (newest or {}).items():
        counted = each.before + each.own
        before = gone[uid].before if uid in gone else 0
        # Less than before: the user was forgotten in between, and all of it came after that.
        stored[uid] = counted - before if before <= counted else counted
    return stored


_NOTHING = UserBytes(0, 0)
