"""Counts records by the values of fields and by time.

A value is counted as it is written in JSON, and what means the same is put together at the end: the
spellings of a text, of a number, and of a level.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from itertools import repeat
from typing import Any

import msgspec
from msgspec import UNSET

from logengine.aggregation.time_buckets import TimeBuckets
from logengine.errors import InvalidOption
from logengine.filtering.comparison import rank_of
from logengine.filtering.fields import Fields
from logengine.filtering.levels import LEVEL_NAMES, is_level_field
from logengine.filtering.syntax import field_text, parse_field
from logengine.filtering.tree import Each, Name, Path, last_name
from logengine.format.block import Block
from logengine.format.json_object import decode_string
from logengine.format.own_time import record_times

GROUPS_MAX = 100_000
GROUP_BYTES_MAX = 64 * 1024 * 1024  # of the values of all groups
FIELDS_MAX = 8

STREAM: Path = (Name("_stream"),)
_LEVELS = [msgspec.json.encode(name) for name in LEVEL_NAMES]
_DIGITS_MAX = 1000
_PLAIN_INTEGER = re.compile(rb"-?[1-9][0-9]*|0")

Value = bytes | None  # as JSON; None if the record has no such field


@dataclass(frozen=True)
class Group:
    """Records with the same `values`, one for each field, in the bucket that begins at `start`.

    `values` is None for all others, which are counted together.
    """

    start: str | None
    values: tuple[Value, ...] | None
    count: int


def parse_by(texts: Sequence[str]) -> list[Path]:
    """Returns the fields to count by; `_stream` is the stream that a record is in.

    Raises `InvalidFilter` for what is no field, and `InvalidOption` for too many.
    """
    paths = [STREAM if text == "_stream" else parse_field(text) for text in texts]
    if len(paths) > FIELDS_MAX:
        raise InvalidOption(f"there are {len(paths)} fields to count by; expected at most 8")
    each = [field_text(path) for path in paths if Each() in path]
    if len(each) > 1:
        raise InvalidOption(
            f"{' and '.join(each)} have many values in a record; expected one such field"
        )
    return paths


class Counting:
    """Counts the records of blocks, by the fields `by` and by `buckets` of their times.

    A time is `_ts`; unless `by_arrival`, that of `format.own_time`.

    A record is in one group for each element of a field with `[*]`, and otherwise in one alone.
    """

    def __init__(
        self,
        by: Sequence[Path] = (),
        buckets: TimeBuckets | None = None,
        *,
        by_arrival: bool = True,
    ) -> None:
        self.by = tuple(by)
        self.records = 0
        self.is_limited = False
        self._buckets = buckets
        self._by_arrival = by_arrival
        self._counts: dict[tuple[Any, ...], int] = {}
        self._others: Counter[str | None] = Counter()
        self._bytes = 0
        self._decode: Callable[[bytes], Any] | None = None
        self._columns: list[tuple[Path, Callable[[Any], Any] | None]] = []
        fields = Fields(path for path in self.by if path != STREAM)
        for path in self.by:
            self._columns.append((path, None if path == STREAM else _values_of(fields, path)))
            if path != STREAM:
                self._decode = fields.decode

    def add(self, block: Block) -> None:
        """Counts the records of a block. Takes O(bytes)."""
        self.records += block.count
        if not self.by and self._buckets is None:
            return
        buckets = self._buckets
        for (time, *values), count in Counter(self._keys(block)).items():
            start = buckets.start(time) if buckets else None
            self._add((start, *values), count)

    def groups(self) -> list[Group]:
        """Returns the groups, the earliest first, of one time the most frequent first.

        Without fields and buckets, it is one group of all records.
        """
        if not self.by and self._buckets is None:
            return [Group(None, (), self.records)]
        folded: Counter[tuple[Any, ...]] = Counter()
        meanings = [_meaning_at(path) for path in self.by]
        for (start, *values), count in self._counts.items():
            meant = [
                None if value is None else meaning(value)
                for meaning, value in zip(meanings, values, strict=True)
            ]
            folded[start, *meant] += count
        groups = [Group(start, tuple(values), count) for (start, *values), count in folded.items()]
        groups += [Group(start, None, count) for start, count in self._others.items()]
        return sorted(groups, key=_order)

    def _keys(self, block: Block) -> Iterable[tuple[Any, ...]]:
        """Returns the group of each record: the part of its time, and its values."""
        lines = block.body[:-1].split(b"\n")
        columns: list[Iterable[Any]] = []
        if self._buckets and not self._by_arrival:
            part = self._buckets.part_of_timestamp
            times = record_times(block.body, lines)
            columns.append([time[part].encode() for time in times])
        elif self._buckets:
            part = self._buckets.part
            columns.append([line[part] for line in lines])
        else:
            columns.append(repeat(None, len(lines)))
        records = [self._decode(line) for line in lines] if self._decode else []
        each = None
        for path, values_of in self._columns:
            if values_of is None:
                columns.append(repeat(block.stream.encode(), len(lines)))
                continue
            if Each() in path:
                each = len(columns)
            columns.append(map(values_of, records))
        rows = zip(*columns, strict=True)
        return rows if each is None else _spread(rows, each)

    def _add(self, key: tuple[Any, ...], count: int) -> None:
        counts = self._counts
        if key in counts:
            counts[key] += count
            return
        size = sum(len(value) for value in key[1:] if value is not None)
        if len(counts) < GROUPS_MAX and self._bytes + size <= GROUP_BYTES_MAX:
            counts[key] = count
            self._bytes += size
            return
        self.is_limited = True
        start = key[0]
        is_known = start in self._others or len(self._others) < GROUPS_MAX
        self._others[start if is_known else None] += count


def _meaning_at(path: Path) -> Callable[[bytes], bytes]:
    """Returns the function that gives one spelling to all values at `path` that mean the same."""
    if path == STREAM:
        return lambda name: msgspec.json.encode(name.decode())
    field = last_name(path)
    if not is_level_field(field):
        return plain_spelling

    def meaning_of_level(value: bytes) -> bytes:
        rank = rank_of(value, field)
        return plain_spelling(value) if rank is None else _LEVELS[rank]

    return meaning_of_level


def plain_spelling(value: bytes) -> bytes:
    """Returns JSON of the same text or number, the same for all spellings; others as they are."""
    if value.startswith(b'"'):
        if b"\\" not in value:
            return value
        # Half of a surrogate pair has no other spelling.
        text = decode_string(value)
        try:
            return msgspec.json.encode(text)
        except UnicodeEncodeError:
            return value
    if value[0] not in b"-0123456789" or _PLAIN_INTEGER.fullmatch(value):
        return value
    return _plain_number(value)


def _plain_number(value: bytes) -> bytes:
    try:
        number = Decimal(value.decode())
    except InvalidOperation:  # an exponent of twenty digits
        return value
    _, digits, exponent = number.as_tuple()
    assert isinstance(exponent, int)
    if len(digits) > _DIGITS_MAX or abs(exponent) > _DIGITS_MAX:
        return value
    if not number:
        return b"0"
    plain = f"{number:f}"
    return (plain.rstrip("0").rstrip(".") if "." in plain else plain).encode()


def _values_of(fields: Fields, path: Path) -> Callable[[Any], Any]:
    """Returns the function that gets a record's value at `path`, or with `[*]` all of them."""
    find = fields.finder(path)
    if Each() in path:
        meaning = _meaning_at(path)

        def find_all(record: Any) -> Sequence[Value]:
            found = find(record) if record is not None else ()
            return list(dict.fromkeys(map(meaning, found))) or [None]

        return find_all
    get = fields.getter(path)
    if get is not None:

        def find_key(record: Any) -> Value:
            value = UNSET if record is None else get(record)
            return None if value is UNSET else bytes(value)

        return find_key

    def find_first(record: Any) -> Value:
        found = find(record) if record is not None else ()
        return found[0] if found else None

    return find_first


def _spread(rows: Iterable[tuple[Any, ...]], each: int) -> Iterator[tuple[Any, ...]]:
    """Yields a row for each of the values in this column."""
    for row in rows:
        for value in row[each]:
            yield (*row[:each], value, *row[each + 1 :])


def keep_most_frequent(groups: Sequence[Group], most: int) -> list[Group]:
    """Returns the groups of the most frequent values, in all buckets; others become one of each."""
    totals: Counter[tuple[Value, ...]] = Counter()
    for group in groups:
        if group.values is not None:
            totals[group.values] += group.count
    kept = set(sorted(totals, key=lambda values: (-totals[values], _text_order(values)))[:most])
    others: Counter[str | None] = Counter()
    chosen = []
    for group in groups:
        if group.values in kept:
            chosen.append(group)
        else:
            others[group.start] += group.count
    chosen += [Group(start, None, count) for start, count in others.items()]
    return sorted(chosen, key=_order)


def rank_in(value: Value) -> int | None:
    """Returns the rank of a level as `Counting.groups` returns it; None of anything else."""
    return _LEVELS.index(value) if value in _LEVELS else None


def _order(group: Group) -> tuple[Any, ...]:
    is_other = group.values is None
    return group.start or "", is_other, -group.count, _text_order(group.values or ())


def _text_order(values: tuple[Value, ...]) -> tuple[bytes, ...]:
    return tuple(value or b"" for value in values)
