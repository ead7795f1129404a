"""What becomes of whatever an application sends: always one line, always a record."""

import collections
import datetime as dt
import enum
import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from logengine.client.encoding import encode_line, encode_record, represent


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError


class Failing(collections.abc.Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise RuntimeError

    def __len__(self) -> int:
        raise RuntimeError

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError

    def __repr__(self) -> str:
        return "failing"


class Proxy:
    """As web frameworks have them, used outside of a request."""

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        raise RuntimeError

    def __repr__(self) -> str:
        return "proxy"


class FailingDict(dict[str, int]):
    items = Failing.__iter__  # type: ignore[assignment]


class FailingList(list[int]):
    __iter__ = Failing.__iter__  # type: ignore[assignment]


class FailingText(str):
    __slots__ = ()
    encode = Failing.__iter__  # type: ignore[assignment]


class Odd(enum.Enum):
    OBJECT = object()
    NAME = "name"


def sent(record: dict[Any, Any]) -> Any:
    line = encode_record(record)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    line.decode()
    return json.loads(line)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (2**64, 2**64),
        (-(2**300), -(2**300)),
        (b"\xff\x00", "/wA="),
        ("\udcff", "\\udcff"),
        ("line\nbreak", "line\nbreak"),
        ({1, 2}, [1, 2]),
        (dt.datetime(2026, 11, 23, 20, tzinfo=dt.UTC), "2026-11-23T20:00:00Z"),
        (Odd.NAME, "name"),
        (Unprintable(), "<Unprintable whose repr raises RuntimeError>"),
        (msgspec.Raw(b'{"a":1}'), {"a": 1}),
        (msgspec.Raw(b"{\n}"), "b'{\\n}'"),
        ({("a", 1): "\ud800"}, {"('a', 1)": "\\ud800"}),
        (ValueError("no"), "ValueError('no')"),
    ],
)
def test_a_value_becomes(value: object, expected: object) -> None:
    assert sent({"value": value, "other": 1}) == {"value": expected, "other": 1}


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (Failing, "failing"),
        (Proxy, "proxy"),
        (lambda: FailingDict(a=1), "{'a': 1}"),
        (lambda: FailingList([1]), "[1]"),
        (lambda: FailingText("text"), "text"),
    ],
)
def test_a_value_whose_own_code_raises_costs_the_others_nothing(
    make: Callable[[], object], expected: object
) -> None:
    # The lone surrogate makes the encoder give up on the record as a whole.
    found = sent({"value": [make()], "other": "\ud800"})
    assert found == {"value": [expected], "other": "\\ud800"}


def test_a_number_of_more_digits_than_python_writes_is_hexadecimal() -> None:
    assert sent({"value": 10**5000}) == {"value": hex(10**5000)}


def test_what_lies_in_itself_ends() -> None:
    itself: dict[str, Any] = {"n": 1}
    itself["again"] = [itself]
    assert sent(itself) == {"n": 1, "again": ["..."]}


def test_what_is_nested_too_deeply_is_cut() -> None:
    deep: dict[str, Any] = {}
    inner = deep
    for _ in range(100_000):
        inner["a"] = {}
        inner = inner["a"]
    line = encode_record(deep)
    assert line.count(b'{"a":') == 100
    assert b'"..."' in line


def test_any_mapping_is_a_record() -> None:
    assert sent(collections.ChainMap({"a": 1}, {"b": 2})) == {"a": 1, "b": 2}  # type: ignore[arg-type]
    assert sent(collections.OrderedDict(a=1)) == {"a": 1}


@pytest.mark.parametrize("record", [None, 1, "text", [1]])
def test_anything_else_is_not(record: Any) -> None:
    with pytest.raises(TypeError, match="a record is a dict or bytes"):
        encode_record(record)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"", b""),
        (b" \t\r\n\n", b""),
        (b"text", b"text\n"),
        (b"text\n\n", b"text\n"),
        (b'{"a":\n[1,\n2]}', b'{"a":[1,2]}\n'),
        (b'{"a":1}\n{"b":2}', b'{"message":"{\\"a\\":1}\\n{\\"b\\":2}"}\n'),
        (b"[1,\n2]", b'{"message":"[1,\\n2]"}\n'),
        (b"\xff\nx", b'{"message":"\\\\xff\\nx"}\n'),
    ],
)
def test_bytes_are_one_line(line: bytes, expected: bytes) -> None:
    assert encode_line(line) == expected


def test_a_repr_is_always_there() -> None:
    assert represent(Unprintable()) == "<Unprintable whose repr raises RuntimeError>"


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None), max_size=20)
    | st.binary(max_size=10)
    | st.just(object()),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.tuples(inner)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.tuples(st.integers()), inner)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.text(st.characters(codec=None), max_size=10) | st.integers(), ANYTHING))
def test_every_dict_becomes_one_line_of_json(record: dict[Any, Any]) -> None:
    assert isinstance(sent(record), dict)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
).filter(lambda value: "Infinity" not in json.dumps(value))


@given(st.dictionaries(st.text(), JSON))
def test_what_json_has_is_kept(record: dict[str, Any]) -> None:
    assert sent(record) == record


@given(st.dictionaries(st.text(), JSON, min_size=1))
def test_an_object_over_several_lines_is_the_same_object(record: dict[str, Any]) -> None:
    line = encode_line(json.dumps(record, indent=2).encode())
    assert line.count(b"\n") == 1
    assert json.loads(line) == record
