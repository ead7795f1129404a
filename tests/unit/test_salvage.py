"""What is whole in a damaged segment: above all, whatever the daemon stores."""

import sys
from collections.abc import Callable

import pytest

from logengine.format.json_object import fault_of_line
from logengine.format.record import envelope, stamp

OPENING = envelope("2026-11-28T08:00:00.000000Z", b"")


def stored(line: bytes) -> bytes:
    return stamp(line + b"\n", OPENING).body.removesuffix(b"\n")


@pytest.mark.parametrize(
    "value",
    [
        b"9" * 5000,
        b"-" + b"9" * 100_000,
        b"1e999999",
        b"0." + b"3" * 5000,
        b"-0",
        rb'"\ud800"',
        rb'"\u0000"',
        b'{"":{"":[]}}',
        b"NaN",
        b'"\xff"',
    ],
)
def test_whatever_is_stored_is_a_record(value: bytes) -> None:
    assert fault_of_line(stored(b'{"a":%s}' % value)) is None
    assert fault_of_line(stored(b'{"a":%s}' % (b"[%s]" % value))) is None


def nested(levels: int, opening: bytes, closing: bytes) -> bytes:
    return b'{"a":%s1%s}' % (opening * levels, closing * levels)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
@pytest.mark.parametrize("levels", [100, sys.getrecursionlimit() - 100, sys.getrecursionlimit()])
def test_what_is_nested_as_deeply_as_is_stored_is_a_record_to_any_caller(
    levels: int, opening: bytes, closing: bytes
) -> None:
    line = stored(nested(levels, opening, closing))

    def deeper(calls: int, then: Callable[[], str | None]) -> str | None:
        return deeper(calls - 1, then) if calls else then()

    assert deeper(300, lambda: fault_of_line(line)) is None


def test_a_line_that_is_nested_beyond_all_measure_is_none() -> None:
    fault = fault_of_line(b'{"_ts":"2026-11-28T08:00:00.000000Z","a":' + b"[" * 1_000_000)
    assert fault is not None
    assert fault.startswith("is not JSON")
