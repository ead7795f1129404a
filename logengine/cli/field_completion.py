"""Completes names and values of fields, from the newest records of the streams.

Completing happens while somebody waits at a prompt: only the end of each stream is read, and no
further stream once the time is over. What cannot be read completes nothing.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from logengine.aggregation.counting import Counting, parse_by
from logengine.aggregation.field_survey import FieldSurvey
from logengine.cli.options import resolve_data
from logengine.cli.table import text_of
from logengine.errors import InvalidFilter, LogEngineError
from logengine.filtering.levels import LEVEL_NAMES, is_level_field
from logengine.filtering.syntax import parse, parse_field
from logengine.filtering.tree import last_name
from logengine.format.block import Block
from logengine.local_zone import LOCAL_ZONE
from logengine.reading import Problem, read, stream_names

_RECORDS_OF_STREAM = 200
_READ_S_MAX = 0.1
_VALUES_MAX = 50
_VALUE_CHARACTERS_MAX = 60

OPERATORS = ("==", "!=", "<", "<=", ">", ">=", "~", "!~", "in (")
_FIELD = r"(?P<field>(?:[^\s=<>!~()\[\]\"',&|]|\[[^\]\s]*\])+)"
_BEGUN = r"(?P<value>\"[^\"]*|'[^']*|[^\s()\"',]*)$"
_OF_OPERATOR = re.compile(rf"{_FIELD}\s*(?:==|!=|<=|>=|!~|<|>|~|=)\s*{_BEGUN}")
_OF_LIST = re.compile(rf"{_FIELD}\s+(?:not\s+)?in\s*\((?:[^()]*,)?\s*{_BEGUN}")
_OF_KEY = re.compile(r"(?P<field>[^\s=<>!~()\"']+)=(?P<value>[^\s\"'=<>!~]*)")
_NAME = re.compile(r"(?:^|(?<=[\s(]))(?P<name>[^\s=<>!~()\"',&|]*)$")
_BARE = re.compile(r"[A-Za-z_/][A-Za-z0-9_./:@-]*|-?[0-9]+(?:\.[0-9]+)?|true|false|null")
_KEYWORDS = ("and", "or", "not", "in", "has")


class Known(NamedTuple):
    """What is known of the records: the names of fields, and the values of one, in JSON."""

    names: Callable[[], Sequence[str]]
    values: Callable[[str], Sequence[bytes]]


def known_fields(data: Path | None, streams: Sequence[str]) -> Known:
    """Returns what the newest records of these streams say, read when it is asked for."""
    return Known(lambda: field_names(data, streams), lambda field: _values(data, streams, field))


def field_names(data: Path | None, streams: Sequence[str]) -> list[str]:
    """Returns the fields of the newest records, as in expressions, the most frequent first."""
    survey = FieldSurvey()
    for block in _newest(data, streams):
        survey.add(block)
    return [each.text for each in sorted(survey.summaries(), key=lambda each: -each.records)]


def completed_expressions(text: str, known: Known) -> list[str]:
    """Returns what an expression that begins with `text` may go on with, with `text` in front."""
    if found := _OF_KEY.fullmatch(text):
        # This condition compares with the value as it is written, without quotes.
        shown = [text_of(each) for each in known.values(found["field"])]
        return [
            f"{found['field']}={each}"
            for each in shown
            if each.startswith(found["value"]) and _is_short(each)
        ]
    if found := _OF_LIST.search(text) or _OF_OPERATOR.search(text):
        before = text[: found.start("value")]
        return [before + each for each in _literals(found["field"], known, found["value"])]
    named = _NAME.search(text)
    if named is None:
        return []
    before, name = text[: named.start()], named["name"]
    if before.strip() and _is_complete(before):
        # Not a single one: a shell would close the quotes after it.
        return [] if name else [f"{before}and", f"{before}or"]
    return [before + each for each in _conditions(name, known, is_first=not before.strip())]


def _conditions(name: str, known: Known, *, is_first: bool) -> list[str]:
    """Returns the fields whose names begin so; once it can only be one, also its operators."""
    matching = [each for each in known.names() if each.startswith(name)]
    if not matching or (len(matching) > 1 and name not in matching):
        return matching
    field = name if name in matching else matching[0]
    longer = [each for each in matching if each != field]
    key = [f"{field}="] if is_first else []
    return [*longer, *key, *(f"{field} {operator}" for operator in OPERATORS)]


def _literals(field: str, known: Known, begun: str) -> Iterator[str]:
    """Yields values as an expression has them, those that begin as the one that is begun."""
    values = list(known.values(field))
    try:
        name = last_name(parse_field(field))
    except InvalidFilter:
        return
    if is_level_field(name):
        levels = [msgspec.json.encode(each) for each in LEVEL_NAMES]
        values = [*levels, *(each for each in values if each not in levels)]
    quote = begun[:1] if begun[:1] in ("'", '"') else ""
    for value in values:
        text = text_of(value)
        if not _is_short(text):
            continue
        is_bare = bool(_BARE.fullmatch(text)) and text not in _KEYWORDS
        is_text = value.startswith(b'"')
        if not is_bare and not is_text:
            continue  # objects and arrays are equal to nothing
        if quote or not is_bare or (is_text and (text[0] in "-0123456789" or text in "truefalse")):
            mark = quote or '"'
            escaped = text.replace("\\", "\\\\").replace(mark, f"\\{mark}")
            written = f"{mark}{escaped}{mark}"
        else:
            written = text
        if written.startswith(begun):
            yield written


def _is_short(text: str) -> bool:
    return text.isprintable() and len(text) <= _VALUE_CHARACTERS_MAX


def _is_complete(text: str) -> bool:
    try:
        parse(text, LOCAL_ZONE)
    except InvalidFilter:
        return False
    return True


def _values(data: Path | None, streams: Sequence[str], field: str) -> list[bytes]:
    """Returns the values of a field in the newest records, the most frequent first."""
    try:
        counting = Counting(parse_by([field]))
    except LogEngineError:
        return []
    for block in _newest(data, streams):
        counting.add(block)
    groups = counting.groups()[:_VALUES_MAX]
    return [value for group in groups if group.values for value in group.values if value]


def _newest(data: Path | None, streams: Sequence[str]) -> Iterator[Block]:
    deadline_s = time.monotonic() + _READ_S_MAX
    try:
        directory = resolve_data(data)
        for stream in stream_names(*streams, data=directory):
            newest = read(stream, data=directory, last=_RECORDS_OF_STREAM, on_problem=_ignore)
            yield from newest.blocks()
            if time.monotonic() > deadline_s:
                return
    except (OSError, LogEngineError):
        return


def _ignore(_problem: Problem) -> None:
    """Ignores what is damaged: commands that print records report it."""
