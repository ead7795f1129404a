"""The producers of a stream: how far each one is, in segment headers, and which are forgotten.

    "producers":{"old":7}                          from versions that did not distinguish users
    "producers_of":{"1000":{"web-1":5120},"0":{"web-1":3}}

A producer is a name of one user in one stream: the same name under two uids is two producers. A
producer without a uid is from an old file, and any user may continue it. Pure arithmetic.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import NamedTuple

import msgspec
from msgspec import UNSET, UnsetType

from logengine.format.segment import Header

# The end of a name that a client made up for one process: its pid and 8 hexadecimal digits.
_MADE_UP = re.compile(r"-[0-9]+-[0-9a-f]{8}\Z")
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


class _Held(NamedTuple):
    """What some producers take of a stream's room."""

    entries: int = 0
    size_bytes: int = 0

    def plus(self, entries: int, size_bytes: int) -> "_Held":
        return _Held(self.entries + entries, self.size_bytes + size_bytes)

    def exceeds(self, room: Room, shares: int = 1) -> bool:
        """Whether it is more than one of `shares` equal parts of `room`."""
        return self.entries * shares > room.count or self.size_bytes * shares > room.size_bytes

    def weight(self, room: Room) -> int:
        """How much of `room` it takes, for comparisons."""
        return max(self.entries * room.size_bytes, self.size_bytes * room.count)


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
    """Whether a client made the name up for one process, and no later process will use it."""
    return _MADE_UP.search(name) is not None


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
    new = [each for each in advanced if each not in known]
    if not new or not _held(numbers).exceeds(room):
        return numbers
    kept = _Kept((each for each in numbers if each in known), room, is_in_use)
    for each in new:
        kept.add(each)
    return {each: number for each, number in numbers.items() if each in kept.producers}


class _Kept:
    """The producers that a full stream still remembers, least recently active first."""

    def __init__(
        self, producers: Iterable[Producer], room: Room, is_in_use: Callable[[Producer], bool]
    ) -> None:
        self.producers = dict.fromkeys(producers)
        self._room = room
        self._is_in_use = is_in_use
        self._held: dict[int | None, _Held] = {}
        for each in self.producers:
            self._count(each, 1)

    def add(self, new: Producer) -> None:
        """Adds a producer; forgets others, or this one, until there is room."""
        self.producers[new] = None
        self._count(new, 1)
        while self._is_full():
            forgotten = next(self._least_wanted(new.uid), new)
            self._forget(forgotten)
            # What is older than the forgotten number must not come back in its place.
            unowned = Producer(None, forgotten.name)
            if unowned in self.producers:
                self._forget(unowned)
            if forgotten == new:
                return

    def _is_full(self) -> bool:
        held = _Held(
            sum(each.entries for each in self._held.values()),
            sum(each.size_bytes for each in self._held.values()),
        )
        return held.exceeds(self._room)

    def _count(self, producer: Producer, change: int) -> None:
        held = self._held.get(producer.uid, _Held(0, _uid_bytes(producer.uid)))
        held = held.plus(change, change * _entry_bytes(producer.name))
        if held.entries:
            self._held[producer.uid] = held
        else:
            del self._held[producer.uid]

    def _forget(self, producer: Producer) -> None:
        del self.producers[producer]
        self._count(producer, -1)

    def _least_wanted(self, bringing: int | None) -> Iterator[Producer]:
        """Yields whom to forget for a new producer of the user `bringing`, best first."""
        by_weight = sorted(
            self._held, key=lambda uid: (-self._held[uid].weight(self._room), uid != bringing)
        )
        if self._has_more_than_share(bringing):
            yield from self._unused_of(bringing)
            own = self._held[bringing].weight(self._room)
            for uid in by_weight:
                if uid is None or self._held[uid].weight(self._room) > own:
                    yield from self._unused_of(uid)
            return
        for uid in by_weight:
            if self._has_more_than_share(uid):
                yield from self._unused_of(uid)
                yield from self._made_up_first(each for each in self.producers if each.uid == uid)
        for uid in by_weight:
            yield from self._unused_of(uid)

    def _has_more_than_share(self, uid: int | None) -> bool:
        return uid is None or self._held[uid].exceeds(self._room, _SHARES)

    def _unused_of(self, uid: int | None) -> Iterator[Producer]:
        of_user = (each for each in self.producers if each.uid == uid)
        return self._made_up_first(each for each in of_user if not self._is_in_use(each))

    def _made_up_first(self, producers: Iterable[Producer]) -> Iterator[Producer]:
        given: list[Producer] = []
        for each in producers:
            if is_made_up(each.name):
                yield each
            else:
                given.append(each)
        yield from given


def _held(producers: Iterable[Producer]) -> _Held:
    """Returns what `producers` take together."""
    uids: set[int | None] = set()
    count = size_bytes = 0
    for uid, name in producers:
        uids.add(uid)
        count += 1
        size_bytes += _entry_bytes(name)
    return _Held(count, size_bytes + sum(map(_uid_bytes, uids)))


def _uid_bytes(uid: int | None) -> int:
    return 0 if uid is None else _UID_BYTES


@lru_cache(_NAMES_CACHED)
def _entry_bytes(name: str) -> int:
    """Returns how many bytes a producer takes in a header at most."""
    return len(msgspec.json.encode(name)) + _NUMBER_BYTES
