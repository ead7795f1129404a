"""Finds the values of fields in a stored line, as JSON, decoding only what is on the way to them.

All fields of an expression that are keys of the record are found in one pass over its line.
"""

import contextlib
import functools
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from logengine.filtering.tree import Each, Index, Name, Path, Step
from logengine.format.json_object import stored_fields, stored_items

_items_decoder = msgspec.json.Decoder(list[Raw])


class Fields:
    """Decodes lines, for finders of fields at `paths`."""

    def __init__(self, paths: Iterable[Path]) -> None:
        names = {name for path in paths for name, _ in _branches(path)}
        self._members = _Members(sorted(names))
        self.decode = self._members.decode

    def getter(self, path: Path) -> Callable[[Any], Any] | None:
        """Returns the function that gets the value at `path`, raw or unset, if it is one key.

        It takes half the time of a finder.
        """
        branches = _branches(path)
        is_one_key = len(branches) == 1 and not branches[0][1]
        return self._members.getter(branches[0][0]) if is_one_key else None

    def finder(self, path: Path) -> Callable[[Any], Sequence[bytes]]:
        """Returns the function that finds the values at `path` in what `decode` returned."""
        branches = [(self._members.getter(name), rest) for name, rest in _branches(path)]

        def find(record: Any) -> Sequence[bytes]:
            found: list[bytes] = []
            for get, rest in branches:
                value = get(record)
                if value is not UNSET:
                    found += _values(bytes(value), rest)
            return found

        return find


class _Members:
    """Some members of a JSON object, as raw JSON."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = names
        self._places = {name: place for place, name in enumerate(names)}
        fields = [
            (f"field{place}", Raw | UnsetType, msgspec.field(default=UNSET))
            for place in range(len(names))
        ]
        renamed = {f"field{place}": name for place, name in enumerate(names)}
        self._plain = msgspec.defstruct("Members", fields, gc=False)
        self._decoder: msgspec.json.Decoder[msgspec.Struct] | None = None
        # msgspec has no fields with names that JSON escapes: a quote, a backslash, a control.
        with contextlib.suppress(ValueError):
            self._decoder = msgspec.json.Decoder(
                msgspec.defstruct("Members", fields, rename=renamed, gc=False)
            )

    def getter(self, name: str) -> Callable[[Any], Any]:
        """Returns the function that gets a member from what `decode` returned."""
        return operator.attrgetter(f"field{self._places[name]}")

    def decode(self, json: bytes) -> Any:
        """Returns the members, unset where there is none; None if `json` is not an object."""
        if self._decoder is not None:
            try:  # `suppress` takes twice the time of the rest
                return self._decoder.decode(json)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                pass  # not an object, or one that only earlier versions admitted
        known = stored_fields(json)
        if known is None:
            return None
        return self._plain(*[known.get(name, UNSET) for name in self._names])


def _branches(path: Sequence[Step]) -> list[tuple[str, Path]]:
    """Returns the keys that a path may begin with, each with the rest of the path.

    `a.b` is a field of that name, or `b` in an object `a`.
    """
    first = path[0]
    assert isinstance(first, Name)
    if first.is_quoted:
        return [(first.text, tuple(path[1:]))]
    branches = []
    key: list[str] = []
    for stop, step in enumerate(path, 1):
        if not isinstance(step, Name) or step.is_quoted:
            break
        key.append(step.text)
        branches.append((".".join(key), tuple(path[stop:])))
    return branches


def _values(json: bytes, path: Path) -> list[bytes]:
    """Returns the values at `path` in a value."""
    if not path:
        return [json]
    if isinstance(path[0], Name):
        if not json.startswith(b"{"):
            return []
        members, branches = _object(path)
        record = members.decode(json)
        return [
            found
            for get, rest in branches
            if record is not None and (value := get(record)) is not UNSET
            for found in _values(bytes(value), rest)
        ]
    if not json.startswith(b"["):
        return []
    return [found for item in _picked(json, path[0]) for found in _values(bytes(item), path[1:])]


@functools.lru_cache(maxsize=1024)
def _object(path: Path) -> tuple[_Members, list[tuple[Callable[[Any], Any], Path]]]:
    branches = _branches(path)
    members = _Members([name for name, _ in branches])
    return members, [(members.getter(name), rest) for name, rest in branches]


def _picked(json: bytes, step: Index | Each | Name) -> Sequence[Raw]:
    try:
        items = _items_decoder.decode(json)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        items = stored_items(json) or []
    if isinstance(step, Each):
        return items
    assert isinstance(step, Index)
    is_there = -len(items) <= step.index < len(items)
    return [items[step.index]] if is_there else []
