"""The producers of a stream: how far each one is, in segment headers, and which are forgotten.

    "producers":{"old":7}                          from versions that did not distinguish users
    "producers_of":{"1000":{"web-1":5120},"0":{"web-1":3}}

A producer is a name of one user in one stream: the same name under two uids is two producers. A
producer without a uid is from an old file, and any user may continue it.

A chunk, which a protocol's sender may send again, is a producer with a name of its own. Its number
is how many records it has; all of them are stored in one commit.

A file that the daemon follows (`[[file]]`) is a producer of the daemon's user. Its number is how
many of its bytes are stored, and it is only forgotten on request: the number 0 does that. Pure
arithmetic.
"""

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from logengine.format.segment import Header

# The end of a name that a client made up for one process: its pid and 8 hexadecimal digits.
_MADE_UP = re.compile(r"-[0-9]+-[0-9a-f]{8}\Z")
_CHUNK = "chunk:"
_CHUNK_HASH_BYTES = 16
# Client names do not begin like this (`protocols.ndjson`).
FILE_PREFIX = "file:"
# How many chunks of a user a stream remembers. They are in the header of every commit, and the
# chunks that a sender may send again after a crash are those that were not acknowledged yet.
CHUNKS_MAX = 128
# What an entry takes in a header at most, besides its name: a colon, a comma, and 18 digits.
_NUMBER_BYTES = 20
# The same for a uid and its braces: `"4294967295":{},`.
_UID_BYTES = 16
# Every user may have this fraction of a stream's room, whatever other users have.
_SHARES = 4
_NAMES_CACHED = 4096


class Producer(NamedTuple):
    """A producer of a stream. `uid` is None if an old file does not give it."""

    uid: int | None
    name: str


# The number of each producer's last record, the least recently active producer first.
Numbers = Mapping[Producer, int]


class Room(msgspec.Struct, frozen=True):
    """How many producers a stream remembers, and how many bytes they take in its headers."""

    count: int
    size_bytes: int


def numbers_in(header: Header) -> dict[Producer, int]:
    """Returns the numbers in a header. Those without a uid come first."""
    numbers = {Producer(None, name): number for name, number in header.producers.items()}
    for uid, named in (header.producers_of or {}).items():
        numbers |= {Producer(uid, name): number for name, number in named.items()}
    return numbers


class HeaderKeys(NamedTuple):
    """The keys of a header that have the producers' numbers."""

    producers: dict[str, int]
    producers_of: dict[int, dict[str, int]] | UnsetType


def header_keys(numbers: Numbers) -> HeaderKeys:
    """Returns `numbers` as they are in a header; the inverse of `numbers_in`."""
    unowned: dict[str, int] = {}
    owned: dict[int, dict[str, int]] = {}
    for (uid, name), number in numbers.items():
        named = unowned if uid is None else owned.setdefault(uid, {})
        named[name] = number
    return HeaderKeys(unowned, owned or UNSET)


def with_numbers(header: Header, numbers: Numbers) -> Header:
    """Returns the header with `numbers` instead of its own."""
    return msgspec.structs.replace(header, **header_keys(numbers)._asdict())


def number_of(numbers: Numbers, producer: Producer) -> int:
    """Returns the number of a producer's last record; 0 if none is known.

    A producer that is not known under its uid continues the one of this name in an old file.
    """
    unowned = Producer(None, producer.name)
    return numbers.get(producer) or numbers.get(unowned, 0)


@lru_cache(_NAMES_CACHED)
def is_made_up(name: str) -> bool:
    """Whether the name was made up for one process or chunk, and nothing later will use it."""
    return name.startswith(_CHUNK) or _MADE_UP.search(name) is not None


def is_followed_file(producer: Producer) -> bool:
    """Whether the producer is a file that the daemon follows."""
    return producer.name.startswith(FILE_PREFIX)


def chunk_name(pid: int, digest: bytes) -> str:
    """Returns the name of a chunk of a process; `digest` is a hash of what the process sent."""
    # Programs make up their chunk ids so badly that two processes may use the same ones.
    said = blake2b(b"%d:%s" % (pid, digest), digest_size=_CHUNK_HASH_BYTES).digest()
    return _CHUNK + urlsafe_b64encode(said).rstrip(b"=").decode()


def advance(
    known: Numbers,
    advanced: Numbers,
    room: Room,
    is_in_use: Callable[[Producer], bool] = lambda _: False,
) -> Numbers:
    """Returns the numbers after `advanced`; those that found no room are forgotten.

    A user that brings a new name loses its own first, once it has more than its share; otherwise
    the user with most does. Of one user's, made-up names go first, then those that were used least
    recently. A producer that is in use stays, unless its user has more than its share and another
    user needs room within its own. Then a new name is forgotten at once.
    """
    if not advanced:
        return known
    numbers = {each: number for each, number in known.items() if each not in advanced}
    numbers |= advanced
    _give_up_files(numbers, known, advanced)
    new = [each for each in advanced if not (each in known or is_followed_file(each))]
    if not new:
        return numbers
    for uid in {each.uid for each in new if each.name.startswith(_CHUNK)}:
        _forget_old_chunks(numbers, uid)
    new = [each for each in new if each in numbers]
    holdings = _Holdings([each for each in numbers if not is_followed_file(each)], room)
    if holdings.are_within:
        return numbers
    for each in new:
        del numbers[each]
        holdings.change(each, -1)
    kept = _Kept(numbers, holdings, is_in_use)
    for each in new:
        kept.add(each, advanced[each])
    for each in advanced:
        if each in numbers:
            del numbers[each]
            numbers[each] = advanced[each]
    return numbers


def _give_up_files(numbers: dict[Producer, int], known: Numbers, advanced: Numbers) -> None:
    """Forgets files whose number is 0, and what the daemon knew of a file as another user.

    A file with a number of each user could be read on from an older one.
    """
    for each, number in advanced.items():
        if not (number and each in known) and is_followed_file(each):
            same = [other for other in numbers if other.name == each.name]
            for other in same:
                if not advanced.get(other):
                    del numbers[other]


def _forget_old_chunks(numbers: dict[Producer, int], uid: int | None) -> None:
    chunks = [each for each in numbers if each.uid == uid and each.name.startswith(_CHUNK)]
    for each in chunks[:-CHUNKS_MAX]:
        del numbers[each]


class _Holdings:
    """What each user takes of a stream's room: entries, and bytes of header."""

    def __init__(self, producers: Collection[Producer], room: Room) -> None:
        self._room = room
        self._entries: dict[int | None, int] = {}
        self._bytes: dict[int | None, int] = {}
        for uid, name in producers:
            self._entries[uid] = self._entries.get(uid, 0) + 1
            self._bytes[uid] = self._bytes.get(uid, _uid_bytes(uid)) + _entry_bytes(name)
        self._total_entries = sum(self._entries.values())
        self._total_bytes = sum(self._bytes.values())

    @property
    def are_within(self) -> bool:
        """Whether all of it fits."""
        room = self._room
        return self._total_entries <= room.count and self._total_bytes <= room.size_bytes

    def change(self, producer: Producer, entries: int) -> None:
        """Adds a producer, with 1, or removes it, with -1."""
        uid, name = producer
        before = self._entries.get(uid, 0)
        size_bytes = entries * _entry_bytes(name)
        if 0 in (before, before + entries):
            size_bytes += entries * _uid_bytes(uid)
        self._entries[uid] = before + entries
        self._bytes[uid] = self._bytes.get(uid, 0) + size_bytes
        self._total_entries += entries
        self._total_bytes += size_bytes

    def weight(self, uid: int | None) -> int:
        """How much of the room a user takes, for comparisons."""
        room = self._room
        return max(self._entries[uid] * room.size_bytes, self._bytes[uid] * room.count)

    def exceeds_share(self, uid: int | None) -> bool:
        """Whether a user has more than its share. Entries without a uid have no share."""
        room = self._room
        return uid is None or self.weight(uid) * _SHARES > room.count * room.size_bytes

    def by_weight(self, first: int | None) -> list[int | None]:
        """Returns the users, those that take most first; of equal ones `first` is the first."""
        return sorted(self._entries, key=lambda uid: (-self.weight(uid), uid != first))


class _Kept:
    """The producers that a full stream still remembers, least recently active first."""

    def __init__(
        self,
        numbers: dict[Producer, int],
        holdings: _Holdings,
        is_in_use: Callable[[Producer], bool],
    ) -> None:
        self._producers = numbers
        self._is_in_use = is_in_use
        self._holdings = holdings

    def add(self, new: Producer, number: int) -> None:
        """Adds a producer; forgets others, or this one, until there is room."""
        self._producers[new] = number
        self._holdings.change(new, 1)
        while not self._holdings.are_within:
            forgotten = next(self._least_wanted(new.uid), new)
            # What is older than the forgotten number must not come back in its place.
            for each in (forgotten, Producer(None, forgotten.name)):
                if each in self._producers:
                    del self._producers[each]
                    self._holdings.change(each, -1)
            if forgotten == new:
                return

    def _least_wanted(self, bringing: int | None) -> Iterator[Producer]:
        """Yields whom to forget for a new producer of the user `bringing`, best first."""
        holdings = self._holdings
        if holdings.exceeds_share(bringing):
            yield from self._unused_of(bringing)
            own = holdings.weight(bringing)
            for uid in holdings.by_weight(bringing):
                if uid is None or holdings.weight(uid) > own:
                    yield from self._unused_of(uid)
            return
        by_weight = holdings.by_weight(bringing)
        for uid in filter(holdings.exceeds_share, by_weight):
            yield from self._unused_of(uid)
            yield from self._made_up_first(uid)
        for uid in by_weight:
            yield from self._unused_of(uid)

    def _unused_of(self, uid: int | None) -> Iterator[Producer]:
        return (each for each in self._made_up_first(uid) if not self._is_in_use(each))

    def _made_up_first(self, uid: int | None) -> Iterator[Producer]:
        given: list[Producer] = []
        for each in self._producers:
            if each.uid == uid and not is_followed_file(each):
                if is_made_up(each.name):
                    yield each
                else:
                    given.append(each)
        yield from given


def _uid_bytes(uid: int | None) -> int:
    return 0 if uid is None else _UID_BYTES


@lru_cache(_NAMES_CACHED)
def _entry_bytes(name: str) -> int:
    """Returns how many bytes a producer takes in a header at most."""
    return len(msgspec.json.encode(name)) + _NUMBER_BYTES
