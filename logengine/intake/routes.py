"""Which stream each record belongs to, by its fields. No sockets and no clock.

    stream = "web-{app}"                       a template, for a socket
    where = 'level >= error', stream = "{app}-errors"     a route, which comes before it

A condition, and a field in braces, see the line as it is stored: with the fields of the envelope,
which the kernel knows, and those of the sender. `docs/routing.md` is the specification.
"""

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import tzinfo
from functools import partial
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from logengine.errors import InvalidFilter
from logengine.filtering.evaluation import Evaluation
from logengine.filtering.fields import Fields
from logengine.filtering.syntax import field_text, parse, parse_field
from logengine.filtering.tree import Expression, Name, Path, paths_of
from logengine.format.record import ENVELOPE_NAMES

# What a name in braces stands for, if it is not simply the field of that name: the first of these
# fields that a record has.
_FIELDS_OF = {
    "comm": ("_comm",),
    "container": ("container_name", "container", "container_id"),
    "uid": ("_uid",),
    "unit": ("_unit", "_user_unit"),
}
_NOT_TEXT = (b"{", b"[", b"null")
_text_decoder = msgspec.json.Decoder(str)
# So many texts are remembered, and only of lines that are not longer.
_TEXTS_MAX = 4096
_LINE_MAX = 4096
_BRACES = re.compile(r"\{([^{}]*)\}")
_KERNEL_NAMES = frozenset(ENVELOPE_NAMES) - {"_ts"}


class Template:
    """The text of a stream's name, with fields of the record in braces.

    Raises `InvalidFilter` if a field is not written as in an expression.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        # Texts and fields by turns; the first and the last are texts.
        texts_and_names = _BRACES.split(text)
        self.texts: Sequence[str] = texts_and_names[::2]
        self.fields: Sequence[Sequence[Path]] = [
            [parse_field(field) for field in _FIELDS_OF.get(name, (name,))]
            for name in texts_and_names[1::2]
        ]
        if any(brace in part for part in self.texts for brace in "{}"):
            raise InvalidFilter(f"{text!r} has a brace without its counterpart")

    @property
    def is_fixed(self) -> bool:
        """Whether it is the same for all records."""
        return not self.fields

    @property
    def paths(self) -> set[Path]:
        """The paths of all its fields."""
        return {path for paths in self.fields for path in paths}


class Route(NamedTuple):
    """Records for which the expression holds go to the stream. None holds for all."""

    where: Expression | None
    stream: Template


def route(where: str | None, stream: str, zone: tzinfo) -> Route:
    """Returns the route as it is written in the configuration.

    Raises `InvalidFilter` if the condition, or a field of `stream`, is not valid.
    """
    return Route(None if where is None else parse(where, zone), Template(stream))


class Routes:
    """Routes in order: the first whose condition holds for a record says where it goes.

    The last one has no condition.
    """

    def __init__(self, routes: Sequence[Route], zone: tzinfo) -> None:
        assert routes[-1].where is None, "every record goes somewhere"
        self.paths = set().union(*(paths_of_route(each) for each in routes))
        self.fixed_streams = [each.stream.text for each in routes if each.stream.is_fixed]
        fields = Fields(self.paths)
        self._decode = fields.decode
        self._places = [
            (
                None if each.where is None else Evaluation(each.where, zone, fields),
                _Place(each.stream, fields),
            )
            for each in routes
        ]
        # Without conditions, the values of the fields decide alone, and most repeat.
        self._get_values: Callable[[Any], tuple[bytes | None, ...]] | None = None
        self._texts: dict[tuple[bytes | None, ...], str | None] = {}
        getters = [fields.getter(path) for path in sorted(self.paths, key=field_text)]
        if len(routes) == 1 and all(getters):
            self._get_values = partial(_values, [get for get in getters if get])

    @property
    def are_of_sender(self) -> bool:
        """Whether all records of one process, received together, go to the same stream."""
        return all(_is_of_kernel(path) for path in self.paths)

    def text_of(self, line: bytes) -> str | None:
        """Returns the text that names the stream of a stored line; None if a field is missing.

        A field counts as missing if it is blank, or no text, number, or truth value. The text is
        not a stream's name yet: `stream_name_from` makes one of it. Never raises.
        """
        record = self._decode(line)
        if self._get_values is None or record is None:
            return self._text_of(record)
        values = self._get_values(record)
        text = self._texts.get(values, "")
        if text == "":  # no template makes an empty text
            text = self._text_of(record)
            if len(line) <= _LINE_MAX:
                if len(self._texts) >= _TEXTS_MAX:
                    self._texts.clear()
                self._texts[values] = text
        return text

    def _text_of(self, record: Any) -> str | None:
        for condition, place in self._places:
            if condition is None or condition.holds_for(record):
                return place.text_of(record)
        raise AssertionError("the last route has no condition")


def _values(getters: Sequence[Callable[[Any], Any]], record: Any) -> tuple[bytes | None, ...]:
    values = [get(record) for get in getters]
    return tuple([None if value is UNSET else bytes(value) for value in values])


class _Place:
    """Where the records of one route go."""

    def __init__(self, template: Template, fields: Fields) -> None:
        self._first, *self._texts = template.texts
        self._finders = [[fields.finder(path) for path in paths] for paths in template.fields]

    def text_of(self, record: Any) -> str | None:
        """Returns the text for what was decoded of a line; None if a field is missing."""
        whole = self._first
        for finds, text in zip(self._finders, self._texts, strict=True):
            value = _first_text(finds, record)
            if value is None:
                return None
            whole += value + text
        return whole


def paths_of_route(each: Route) -> set[Path]:
    """Returns the paths of the fields that a route depends on."""
    return each.stream.paths | (set() if each.where is None else paths_of(each.where))


def names_of_kernel(paths: Iterable[Path]) -> Collection[str]:
    """Returns the names of the envelope among these fields, except `_uid`, sorted."""
    names = {path[0].text for path in paths if isinstance(path[0], Name)}
    return sorted(names & set(ENVELOPE_NAMES) - {"_uid"})


def _is_of_kernel(path: Path) -> bool:
    return len(path) == 1 and isinstance(path[0], Name) and path[0].text in _KERNEL_NAMES


def _first_text(finds: Sequence[Any], record: Any) -> str | None:
    for find in finds:
        for value in find(record) if record is not None else ():
            if text := _text(value):
                return text
    return None


def _text(value: bytes) -> str:
    """Returns a value as text, numbers as they are written; empty for other types."""
    if value.startswith(b'"'):
        return _text_decoder.decode(value).strip()
    return "" if value.startswith(_NOT_TEXT) else value.decode()
