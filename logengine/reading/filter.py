"""Chooses records by a pattern in their stored line and by the values of their fields.

    Filter(Grep(b"time.?out", ignore_case=True), [Where.parse("level=error")])

Takes lines, returns ranges of a body. A body of thousands of records is searched as a whole for a
literal that every chosen line must contain, and only lines with it are examined. If there is no
such literal, every line is examined. No I/O.
"""

import contextlib
import functools
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import msgspec
from msgspec import UNSET, Raw, UnsetType

from logengine.errors import InvalidFilter
from logengine.format.block import Block
from logengine.format.json_object import decode_string, stored_fields
from logengine.format.search_filter import Literals
from logengine.reading.required_literal import required_literal

# Not stored: readers add them.
_ADDED_NAMES = ("_stream", "_seq")
# Characters that JSON may also encode as a backslash and one letter.
_ESCAPED_SHORTLY = re.compile(r'["\\/\x00-\x1f]')


class Grep:
    """A regular expression, or plain text with `fixed`, to find anywhere in a stored line.

    It matches only lines that contain one of `literals`, if there are any. `ignore_case` ignores
    the case of ASCII letters only. Raises `InvalidFilter`.
    """

    def __init__(self, pattern: bytes, *, fixed: bool = False, ignore_case: bool = False) -> None:
        if b"\n" in pattern:
            raise InvalidFilter("a pattern must not contain a newline: no line contains one")
        self.ignore_case = ignore_case
        literal = pattern if fixed else required_literal(pattern)
        self.literals: tuple[bytes, ...] = ()
        if literal:
            self.literals = (literal.lower() if ignore_case else literal,)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about what a pattern may mean in the future
                self._search = re.compile(
                    re.escape(pattern) if fixed else pattern, re.IGNORECASE if ignore_case else 0
                ).search
        except (re.error, OverflowError, RecursionError) as error:
            shown = pattern.decode("utf-8", "backslashreplace")
            raise InvalidFilter(f"{shown!r} is not a regular expression: {error}") from None

    def holds(self, line: bytes) -> bool:
        """Whether the pattern matches in `line`."""
        return self._search(line) is not None


class Where:
    """A condition on the value of a field: that text as a string, or that number, bool or null.

    Numbers are compared as written. `key` is the name of a field of the record or, with dots, of a
    field in a nested object. The condition holds only for lines that contain one of `literals`, if
    there are any.
    """

    ignore_case = False

    def __init__(self, key: str, value: str) -> None:
        self._path = _Path(key)
        self._text = value
        self._json = value.encode("utf-8", "surrogateescape")
        literal = max(_ESCAPED_SHORTLY.split(value), key=len).encode("utf-8", "surrogateescape")
        self.literals: tuple[bytes, ...] = (literal, b"\\u") if literal else ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """The condition written as `KEY=VALUE`. Raises `InvalidFilter`."""
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InvalidFilter(
                f"{text!r} is not a condition; expected KEY=VALUE, for example level=error"
            )
        if key in _ADDED_NAMES:
            raise InvalidFilter(f"{key} is not a field of a record; name streams, or use --after")
        try:
            return cls(key, value)
        except UnicodeEncodeError:
            raise InvalidFilter(f"{text!r} is not UTF-8") from None

    def holds(self, line: bytes) -> bool:
        """Whether the field exists and has the value."""
        return any(map(self._is_value, self._path.values(line)))

    def _is_value(self, raw: bytes) -> bool:
        if raw.startswith(b'"'):
            return decode_string(raw) == self._text
        return raw == self._json and not raw.startswith((b"{", b"["))


class Filter:
    """Chooses records that `grep` matches and for which all `wheres` hold.

    With `invert`, it chooses those that `grep` does not match.
    """

    def __init__(
        self, grep: Grep | None = None, wheres: Sequence[Where] = (), *, invert: bool = False
    ) -> None:
        self._conditions: list[Grep | Where] = [*wheres]
        self._excluding = grep if invert else None
        if grep is not None and not invert:
            self._conditions.append(grep)
        # The longest literal is probably in the fewest lines.
        self._conditions.sort(key=lambda each: -len(each.literals[0]) if each.literals else 1)

    @classmethod
    def of(
        cls,
        where: "Filter | str | Iterable[str]" = (),
        grep: str | bytes | None = None,
        *,
        fixed: bool = False,
        ignore_case: bool = False,
        invert: bool = False,
    ) -> "Filter":
        """The filter that the arguments of `read` and the options of the command line describe.

        `where` is one or more conditions `KEY=VALUE`, or a complete filter, which excludes the
        other arguments. `grep` is the pattern of a `Grep`. Raises `InvalidFilter`.
        """
        if grep is None and (fixed or ignore_case or invert):
            raise InvalidFilter("fixed, ignore_case and invert need grep; give a pattern")
        if isinstance(where, Filter):
            if grep is not None:
                raise InvalidFilter("where is already a complete Filter; put grep into it")
            return where
        conditions = [where] if isinstance(where, str) else where
        if isinstance(grep, str):
            grep = grep.encode("utf-8", "surrogateescape")
        pattern = None if grep is None else Grep(grep, fixed=fixed, ignore_case=ignore_case)
        return cls(pattern, [Where.parse(condition) for condition in conditions], invert=invert)

    @property
    def chooses_all(self) -> bool:
        """Whether every record is chosen."""
        return not self._conditions and self._excluding is None

    @property
    def literals(self) -> Literals:
        """Every chosen line contains, of each of these, at least one literal.

        Only the case of ASCII letters may differ.
        """
        return [each.literals for each in self._conditions if each.literals]

    def choose(self, block: Block) -> Iterator[Block]:
        """The chosen records of a block, as blocks of adjacent records."""
        return iter([block]) if self.chooses_all else block.parts(self.ranges(block.body))

    def ranges(self, body: bytes) -> Iterator[tuple[int, int]]:
        """The chosen lines of a body, as byte ranges (start, exclusive stop), in order.

        Adjacent lines are one range.
        """
        if self._excluding is None:
            return _joined(_lines_of(self._conditions, body))
        if not self._conditions:
            return _between(_joined(_lines_of([self._excluding], body)), len(body))
        excluded = self._excluding
        return _joined(
            (start, stop)
            for start, stop in _lines_of(self._conditions, body)
            if not excluded.holds(body[start : stop - 1])
        )


class _Path:
    """The fields that a key may mean: `a.b` is a field of that name, or `b` in an object `a`."""

    def __init__(self, key: str) -> None:
        names = key.split(".")
        stops = range(1, len(names) + 1)
        self._names = [".".join(names[:stop]) for stop in stops]
        self._rests = [".".join(names[stop:]) for stop in stops]
        fields = [
            (f"field{stop}", Raw | UnsetType, msgspec.field(default=UNSET, name=name))
            for stop, name in zip(stops, self._names, strict=True)
        ]
        self._decoder: msgspec.json.Decoder[msgspec.Struct] | None = None
        # msgspec has no fields with names that JSON escapes: a quote, a backslash, a control.
        try:
            self._decoder = msgspec.json.Decoder(msgspec.defstruct("Fields", fields))
        except UnicodeEncodeError:
            raise
        except ValueError:
            pass

    def values(self, json: bytes) -> Iterator[bytes]:
        """The values of these fields as JSON; nothing if `json` is not an object."""
        if not json.startswith(b"{"):
            return
        for rest, value in zip(self._rests, self._fields(json), strict=True):
            if value is UNSET:
                continue
            if rest:
                yield from _path(rest).values(bytes(value))
            else:
                yield bytes(value)

    def _fields(self, json: bytes) -> tuple[Any, ...]:
        if self._decoder is not None:
            # What msgspec does not read is an object that only earlier versions admitted.
            with contextlib.suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                return msgspec.structs.astuple(self._decoder.decode(json))
        known = stored_fields(json) or {}
        return tuple(known.get(name, UNSET) for name in self._names)


_path = functools.cache(_Path)


def _lines_of(conditions: Sequence[Grep | Where], body: bytes) -> Iterator[tuple[int, int]]:
    """The lines for which all conditions hold, each with its newline."""
    lead = conditions[0]
    lines = _lines_with(lead, body) if lead.literals else _lines(body)
    for start, stop in lines:
        line = body[start : stop - 1]
        if all(condition.holds(line) for condition in conditions):
            yield start, stop


def _lines(body: bytes) -> Iterator[tuple[int, int]]:
    start = 0
    while stop := body.find(b"\n", start) + 1:
        yield start, stop
        start = stop


def _lines_with(condition: Grep | Where, body: bytes) -> Iterator[tuple[int, int]]:
    """The lines that contain a literal of the condition."""
    text = body.lower() if condition.ignore_case else body
    hits = {literal: text.find(literal) for literal in condition.literals}
    place = 0
    while (hit := min((each for each in hits.values() if each >= 0), default=-1)) >= 0:
        start = text.rfind(b"\n", place, hit) + 1 or place
        place = text.find(b"\n", hit) + 1
        yield start, place
        for literal, found in hits.items():
            if 0 <= found < place:
                hits[literal] = text.find(literal, place)


def _joined(ranges: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """The ranges, with adjacent ones joined."""
    begin = end = 0
    for start, stop in ranges:
        if start != end:
            if begin < end:
                yield begin, end
            begin = start
        end = stop
    if begin < end:
        yield begin, end


def _between(ranges: Iterable[tuple[int, int]], length: int) -> Iterator[tuple[int, int]]:
    """The ranges of `length` bytes that are in none of the given ranges."""
    place = 0
    for start, stop in ranges:
        if place < start:
            yield place, start
        place = stop
    if place < length:
        yield place, length
