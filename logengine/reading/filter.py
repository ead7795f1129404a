"""Chooses records by patterns in their stored line and by expressions about their fields.

    Filter([Grep(b"time.?out", ignore_case=True)], [Where("level >= error")])

Takes lines, returns ranges of a body. A body of thousands of records is searched as a whole for
what every chosen line must contain, and only lines with it are examined. If there is no such
thing, every line is examined. No I/O.
"""

import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from datetime import tzinfo

from logengine.errors import InvalidFilter
from logengine.format.block import Block
from logengine.format.search_filter import Literals
from logengine.local_zone import LOCAL_ZONE
from logengine.printable import excerpt
from logengine.reading.required_literal import required_literal
from logengine.reading.search import ALL_LINES, Search

# What is wrong with a pattern may name a group of it.
_PROBLEM_CHARACTERS_MAX = 120

Patterns = str | bytes | Iterable[str | bytes] | None


class Grep:
    """A regular expression, or plain text with `fixed`, to find anywhere in a stored line.

    It matches only lines that `search` finds. `ignore_case` ignores the case of ASCII letters only.
    Raises `InvalidFilter`.
    """

    def __init__(self, pattern: bytes, *, fixed: bool = False, ignore_case: bool = False) -> None:
        if b"\n" in pattern:
            raise InvalidFilter("a pattern must not contain a newline: no line contains one")
        literal = pattern if fixed else required_literal(pattern)
        self.search = Search.of_text(literal, ignore_case=ignore_case)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about what a pattern may mean in the future
                self._match = re.compile(
                    re.escape(pattern) if fixed else pattern, re.IGNORECASE if ignore_case else 0
                ).search
        except (re.error, OverflowError, RecursionError) as error:
            place = (error.pos or 0) if isinstance(error, re.error) else 0
            before, shown = (_shown(each) for each in (pattern[:place], pattern))
            raise InvalidFilter(
                f"{excerpt(shown, len(before))!r} is not a regular expression: "
                f"{excerpt(str(error), characters_max=_PROBLEM_CHARACTERS_MAX)}"
            ) from None

    def holds(self, line: bytes) -> bool:
        """Whether the pattern matches in `line`."""
        return self._match(line) is not None


def _shown(pattern: bytes) -> str:
    return pattern.decode("utf-8", "backslashreplace")


class Where:
    """One or more expressions that must all hold for a record. See `docs/filter.md`.

    They hold only for lines that `search` finds. A time without an offset is in `zone`. Raises
    `InvalidFilter`.
    """

    def __init__(self, *texts: str, zone: tzinfo = LOCAL_ZONE) -> None:
        # Loaded on first use: a command without an expression starts faster.
        from logengine.filtering.evaluation import Evaluation
        from logengine.filtering.syntax import all_of, parse
        from logengine.reading.expression_search import search_for

        expression = all_of([parse(text, zone) for text in texts])
        self.search = search_for(expression)
        self.holds = Evaluation(expression, zone).holds


class Filter:
    """Chooses records that all `greps` match, and for which all `wheres` hold.

    With `invert`, it chooses those that none of the `greps` matches.
    """

    def __init__(
        self, greps: Sequence[Grep] = (), wheres: Sequence[Where] = (), *, invert: bool = False
    ) -> None:
        self._conditions: list[Grep | Where] = [*wheres]
        self._excluding: list[Grep] = []
        if invert:
            self._excluding += greps
        else:
            self._conditions += greps
        self._conditions.sort(key=lambda each: each.search.order)

    @classmethod
    def of(
        cls,
        where: "Filter | str | Iterable[str]" = (),
        grep: Patterns = None,
        *,
        fixed: bool = False,
        ignore_case: bool = False,
        invert: bool = False,
    ) -> "Filter":
        """The filter that the arguments of `read` and the options of the command line describe.

        `where` is one or more expressions, or a complete filter, which excludes the other
        arguments. `grep` is the pattern of a `Grep`, or several. Raises `InvalidFilter`.
        """
        patterns = [] if grep is None else [grep] if isinstance(grep, str | bytes) else list(grep)
        if not patterns and (fixed or ignore_case or invert):
            raise InvalidFilter("fixed, ignore_case and invert need grep; give a pattern")
        if isinstance(where, Filter):
            if patterns:
                raise InvalidFilter("where is already a complete Filter; put grep into it")
            return where
        expressions = [where] if isinstance(where, str) else list(where)
        greps = [
            Grep(
                each.encode("utf-8", "surrogateescape") if isinstance(each, str) else each,
                fixed=fixed,
                ignore_case=ignore_case,
            )
            for each in patterns
        ]
        return cls(greps, [Where(*expressions)] if expressions else [], invert=invert)

    @property
    def chooses_all(self) -> bool:
        """Whether every record is chosen."""
        return not (self._conditions or self._excluding)

    @property
    def literals(self) -> Literals:
        """Every chosen line contains, of each of these, at least one literal.

        Only the case of ASCII letters may differ.
        """
        searches = [each.search for each in self._conditions]
        return [each.literals for each in searches if each.literals and not each.patterns]

    def choose(self, block: Block) -> Iterator[Block]:
        """The chosen records of a block, as blocks of adjacent records."""
        return iter([block]) if self.chooses_all else block.parts(self.ranges(block.body))

    def ranges(self, body: bytes) -> Iterator[tuple[int, int]]:
        """The chosen lines of a body, as byte ranges (start, exclusive stop), in order.

        Adjacent lines are one range.
        """
        if not self._conditions and len(self._excluding) == 1:
            return _between(_joined(_lines_of(self._excluding, body)), len(body))
        lines = _lines_of(self._conditions, body) if self._conditions else ALL_LINES.lines(body)
        return _joined(
            (start, stop)
            for start, stop in lines
            if not any(each.holds(body[start : stop - 1]) for each in self._excluding)
        )


def _lines_of(conditions: Sequence[Grep | Where], body: bytes) -> Iterator[tuple[int, int]]:
    """The lines for which all conditions hold, each with its newline."""
    holds = conditions[0].holds
    others = [condition.holds for condition in conditions[1:]]
    for start, stop in conditions[0].search.lines(body):
        line = body[start : stop - 1]
        if holds(line) and (not others or all(each(line) for each in others)):
            yield start, stop


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
