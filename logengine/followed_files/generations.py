"""Decides which files of a path are read, from which byte on, and in what order. No I/O.

A path's file is renamed, copied, truncated, compressed or replaced. Its known files are recognized
by their inode and first bytes, whatever their names; one that was copied or compressed only by its
first bytes, among the names that a rotation gives. What is newer than a known file and not known
was missed, and is read from its start. What is older is not. If none is known, only generations
that were written to since a certain time were missed.

A file that is open and of which nothing was read yet is recognized in the same way. Otherwise it
would be read a second time from its compressed copy, which is not known either.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

from logengine.followed_files.identity import Identity, Inode


class Found(NamedTuple):
    """A file next to its path, or at it.

    `head` has its first bytes, up to `HEAD_BYTES_MAX`, decompressed. `size` is in bytes, None if
    it is compressed. `written_ns` is when it was changed last, `made_ns` when it was made, if the
    file system knows that.
    """

    name: str
    inode: Inode
    head: bytes
    size: int | None
    written_ns: int = 0
    made_ns: int | None = None


class Step(NamedTuple):
    """A file to read from `position` on; `identity` is None if nothing of it is stored."""

    found: Found
    identity: Identity | None
    position: int
    is_copy: bool = False


class Unread(NamedTuple):
    """An open file of which no record was read yet. `head` has its first bytes."""

    inode: Inode
    head: bytes


def plan_reading(
    known: Mapping[Identity, int],
    rotated: Sequence[Found],
    current: Found | None,
    unread: Sequence[Unread] = (),
    since_ns: int | None = None,
) -> list[Step]:
    """Returns the files to read, the oldest first; those at whose end the reader is, too.

    `known` has how many bytes of each file are stored, the least recently active first. `rotated`
    are the older generations, the newest first. `unread` files are open, the oldest first. Where no
    file is known, what was written to after `since_ns`, in ns since the epoch, was missed.
    O(files * known files).
    """
    files = [*reversed(rotated), *([current] if current else [])]
    unread_inodes = {each.inode for each in unread}
    matches = {found: Step(found, None, 0) for found in files if found.inode in unread_inodes}
    unmatched = dict(reversed(list(known.items())))
    for found in files:
        its = {
            identity: position
            for identity, position in unmatched.items()
            if identity.inode == found.inode
        }
        identity = _longest(found, its)
        if identity is not None and found not in matches:
            matches[found] = Step(found, identity, its[identity])
            unmatched = _without(identity, found, unmatched)
    while unmatched:
        inode = next(iter(unmatched)).inode
        its = {each: position for each, position in unmatched.items() if each.inode == inode}
        candidates = ((found, _longest(found, its)) for found in rotated if found not in matches)
        match next(((found, each) for found, each in candidates if each is not None), None):
            case found, identity:
                matches[found] = Step(found, identity, its[identity], is_copy=True)
                unmatched = _without(identity, found, unmatched)
            case None:
                unmatched = {each: unmatched[each] for each in unmatched if each not in its}
    copies = _copies_of(unread, rotated, matches)
    oldest = min((files.index(found) for found in (*matches, *copies)), default=0)
    if not (known or unread):
        oldest = len(rotated) - _missed(rotated, since_ns)
    return [
        matches.get(found) or Step(found, None, 0)
        for found in files[oldest:]
        if found not in copies
        and (
            found in matches
            or found is current
            or not _is_copy(found, files[files.index(found) + 1 :])
        )
    ]


def outlived(
    known: Mapping[Identity, int], in_use: Collection[Identity], count_max: int
) -> list[Identity]:
    """Returns the files to forget, so that no more than `count_max` are known, if possible.

    Only those that are older than all in use: what is newer than a known file, and not known, would
    be read again. A file may be missing for a moment, while it is renamed or compressed.
    """
    older = itertools.takewhile(lambda each: each not in in_use, known)
    return list(itertools.islice(older, max(0, len(known) - count_max)))


def _missed(rotated: Sequence[Found], since_ns: int | None) -> int:
    """Returns how many of the newest generations were written to after `since_ns`."""
    if since_ns is None:
        return 0
    missed = itertools.takewhile(lambda found: found.written_ns > since_ns, rotated)
    return sum(1 for _ in missed)


def _longest(found: Found, identities: Mapping[Identity, int]) -> Identity | None:
    """Returns the one of these identities with their positions that says most about a file."""
    fitting = [each for each in identities if _continues(found, each, identities[each])]
    return max(fitting, key=lambda each: (each.head_bytes, identities[each]), default=None)


def _copies_of(
    unread: Sequence[Unread], rotated: Sequence[Found], others: Collection[Found]
) -> set[Found]:
    """Returns the copies of the unread files that have no name any more: those are open anyway.

    The open file may have got more lines since it was copied.
    """
    named = {found.inode for found in (*rotated, *others)}
    copies: set[Found] = set()
    for each in reversed(unread):
        if each.inode in named:
            continue
        for found in rotated:
            head = found.head.rstrip(b"\0")
            if found not in others and found not in copies and head and each.head.startswith(head):
                copies.add(found)
                break
    return copies


def _continues(found: Found, identity: Identity, position: int) -> bool:
    is_long_enough = found.size is None or found.size >= position
    return is_long_enough and identity.begins(found.head)


def _without(
    identity: Identity, found: Found, known: Mapping[Identity, int]
) -> dict[Identity, int]:
    """Returns the other known files, without what a kill left of `found` when less was read."""
    return {
        each: position
        for each, position in known.items()
        if each != identity
        and not (
            each.inode == identity.inode
            and not each.is_overwritten
            and each.head_bytes < identity.head_bytes
            and each.begins(found.head)
        )
    }


def _is_copy(found: Found, newer: Sequence[Found]) -> bool:
    """Whether a rotated file is the beginning of a `newer` one, as with logrotate's `copy`.

    The newer one may have grown since, but is older than its copy. A file that was complete when
    the newer one was made only begins with the same words. An empty file has nothing to read.
    """
    return not found.head or any(
        other.head.startswith(found.head)
        and (other.made_ns is None or found.written_ns >= other.made_ns)
        for other in newer
    )
