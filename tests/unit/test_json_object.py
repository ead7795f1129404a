"""Single cases of the definition of a record, which drawn records meet too seldom."""

import pytest

from logengine.format.json_object import (
    INTEGER_DIGITS_MAX,
    exceeds_limits,
    fault_of_line,
    has_controls,
    object_fields,
    without_controls,
)

TIME = b"2026-11-23T20:00:00.000001Z"


@pytest.mark.parametrize(
    ("alone", "instead"),
    [
        (b"\x7f", b"\\u007f"),
        (b"\xc2\x80", b"\\u0080"),
        (b"\xc2\x9b", b"\\u009b"),
        (b"\xc2\x9f", b"\\u009f"),
    ],
)
def test_a_control_character_in_a_string_is_escaped_if_there_is_no_other(
    alone: bytes, instead: bytes
) -> None:
    assert has_controls(b'{"a":"%s"}' % alone)
    assert without_controls(b'{"a":"%s"}' % alone) == b'{"a":"%s"}' % instead


@pytest.mark.parametrize("alone", [b"\t", b"\r"])
def test_a_control_character_between_tokens_becomes_a_space_if_there_is_no_other(
    alone: bytes,
) -> None:
    assert has_controls(b'{"a":%s1}' % alone)
    assert without_controls(b'{"a":%s1}' % alone) == b'{"a": 1}'


@pytest.mark.parametrize("text", [b' {"a":1}', b'{"a":1} ', b'\r{"a":1}', b'{"a":1}\n'])
def test_an_object_with_something_around_it_is_admitted_only_without_that(text: bytes) -> None:
    assert object_fields(text) is None
    fields = object_fields(text.strip())
    assert fields is not None
    assert bytes(fields["a"]) == b"1"


@pytest.mark.parametrize(
    ("line", "is_sound"),
    [
        (b'{"_ts":"%s","a":1}' % TIME, True),
        (b'{"_ts":"%s"}' % TIME, True),
        (b'{"a":1}', False),
        (b'{"a":1,"_ts":"%s"}' % TIME, False),
        (b'{ "_ts":"%s"}' % TIME, False),
        (b'{"_ts":"%s0"}' % TIME, False),
        (b'{"_ts":"%s"}' % TIME.replace(b"Z", b"z"), False),
        (b'{"_ts":1}', False),
    ],
)
def test_a_stored_record_begins_with_its_time(line: bytes, is_sound: bool) -> None:
    fault = fault_of_line(line)
    assert fault == (None if is_sound else "does not begin with the _ts of the envelope")


_LONGEST = b"9" * INTEGER_DIGITS_MAX


@pytest.mark.parametrize(
    ("text", "exceeds"),
    [
        (b'{"a":' + _LONGEST + b"}", False),
        (b'{"a":-' + _LONGEST + b"}", False),
        (b'{"a":' + _LONGEST + b"9}", True),
        (b'{"a":-' + _LONGEST + b"9}", True),
        (b'{"a":[' + b"1.5," * 9000 + _LONGEST + b"9]}", True),
        (b'{"a":[' + _LONGEST + b"9," + b"1.5," * 9000 + b"1]}", True),
        (b'{"a":[' + _LONGEST + b"," + _LONGEST + b"]}", False),
        (b'{"a":0.' + _LONGEST + b"9}", False),
        (b'{"a":' + _LONGEST + b"9e1}", False),
        (b'{"a":[0.' + _LONGEST + b"9," + _LONGEST + b"9]}", True),
        (b'{"a":[0.' + _LONGEST + b"9,-1e" + _LONGEST + b"9]}", False),
        (b'{"a":"' + _LONGEST + b'9"}', False),
        (b'{"a":"' + _LONGEST + b'9","b":' + _LONGEST + b"9}", True),
    ],
)
def test_an_integer_too_long_exceeds_the_limits_wherever_it_is(text: bytes, exceeds: bool) -> None:
    assert exceeds_limits(text) is exceeds
