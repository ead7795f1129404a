"""Finds out which fields records have: how often, of which types, with examples.

Fields in objects, and in objects in arrays, are fields too: `http.status`, `items[*].price`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec
from msgspec import Raw

from logengine.filtering.syntax import field_text
from logengine.filtering.tree import Each, Name, Path
from logengine.format.block import Block
from logengine.format.json_object import stored_fields, stored_items

FIELDS_MAX = 10_000
NAME_CHARACTERS_MAX = 16_000_000  # of all fields
LEVELS_MAX = 20  # of objects and arrays in each other
ELEMENTS_MAX = 100  # of an array
EXAMPLES_MAX = 3
EXAMPLE_BYTES_MAX = 200

# By the first byte of a value.
_TYPES = {
    ord('"'): "string",
    ord("{"): "object",
    ord("["): "array",
    ord("t"): "boolean",
    ord("f"): "boolean",
    ord("n"): "null",
}
_items_decoder = msgspec.json.Decoder(list[Raw])
_fields_decoder = msgspec.json.Decoder(dict[str, Raw])


@dataclass(frozen=True)
class FieldSummary:
    """A field: how many records have it, and how many values of each type there are.

    `examples` are different values as JSON, in the order in which they were found.
    """

    path: Path
    records: int
    types: dict[str, int]
    examples: tuple[bytes, ...]

    @property
    def text(self) -> str:
        """The field as it is written in an expression."""
        return field_text(self.path)


class FieldSurvey:
    """Collects the fields of blocks of records.

    Of fields that are new after `FIELDS_MAX` of them, or after `NAME_CHARACTERS_MAX` of their
    names, only the number of values is known: `others`.
    """

    def __init__(self) -> None:
        self.records = 0
        self.others = 0
        self._count = 0
        self._name_characters = 0
        self._root = _Node()

    def add(self, block: Block) -> None:
        """Adds the fields of the records of a block."""
        decode = _fields_decoder.decode
        for line in block.body[:-1].split(b"\n"):
            self.records += 1
            try:
                fields = decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                # What only earlier versions admitted.
                fields = stored_fields(line) or {}
            self._add(self._root, fields.items(), 1)

    def summaries(self) -> list[FieldSummary]:
        """Returns the fields, the most frequent first."""
        found = list(_summaries(self._root, ()))
        return sorted(found, key=lambda each: (-each.records, each.text))

    def _add(self, node: "_Node", members: Iterable[tuple[str | None, Raw]], level: int) -> None:
        children = node.children
        number = self.records
        for name, raw in members:
            child = children.get(name)
            if child is None and (child := self._new(children, name)) is None:
                self.others += 1
                continue
            value = bytes(raw)
            kind = _TYPES.get(value[0]) or _type_of_number(value)
            types = child.types
            types[kind] = types.get(kind, 0) + 1
            if child.last_record != number:
                child.last_record = number
                child.records += 1
            if kind == "object":
                if level < LEVELS_MAX:
                    self._add(child, (stored_fields(value) or {}).items(), level + 1)
                continue
            examples = child.examples
            if (
                len(examples) < EXAMPLES_MAX
                and len(value) <= EXAMPLE_BYTES_MAX
                and value not in examples
            ):
                examples.append(value)
            if kind == "array" and level < LEVELS_MAX:
                items = _items(value)[:ELEMENTS_MAX]
                self._add(child, ((None, item) for item in items), level + 1)

    def _new(self, children: "dict[str | None, _Node]", name: str | None) -> "_Node | None":
        size = len(name) if name is not None else 0
        if self._count >= FIELDS_MAX or self._name_characters + size > NAME_CHARACTERS_MAX:
            return None
        self._count += 1
        self._name_characters += size
        node = children[name] = _Node()
        return node


class _Node:
    """A field, or what is at the root; its children are by name, of an array's elements by None."""

    __slots__ = ("children", "examples", "last_record", "records", "types")

    def __init__(self) -> None:
        self.children: dict[str | None, _Node] = {}
        self.examples: list[bytes] = []
        self.last_record = 0
        self.records = 0
        self.types: dict[str, int] = {}


def _summaries(node: _Node, path: Path) -> Iterator[FieldSummary]:
    if path:
        types = dict(sorted(node.types.items(), key=lambda each: -each[1]))
        yield FieldSummary(path, node.records, types, tuple(node.examples))
    for name, child in node.children.items():
        # A name with a dot in it is quoted: without, it would be two.
        step = Each() if name is None else Name(name)
        yield from _summaries(child, (*path, step))


def _items(value: bytes) -> list[Raw]:
    try:
        return _items_decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return stored_items(value) or []


def _type_of_number(value: bytes) -> str:
    is_integer = value.isdigit() or value[1:].isdigit()
    return "integer" if is_integer else "number"
