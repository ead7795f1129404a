"""What is written is read back as it was, and what is read is a value or a `ValueError`."""

import contextlib
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from logengine.units import (
    format_duration,
    format_mode,
    format_size,
    parse_count,
    parse_duration,
    parse_mode,
    parse_size,
)

CENTURY_US = 36_525 * 86_400 * 1_000_000
numbers = st.from_regex(r"[0-9]{1,30}(\.[0-9]{0,12})?", fullmatch=True)
units = st.sampled_from(["", "B", "KiB", "TiB", "GB", "us", "ms", "s", "m", "w", "x", " "])
parsers = st.sampled_from([parse_size, parse_duration, parse_mode, parse_count])


@given(st.integers(0, 2**60))
def test_every_size_is_read_back_as_it_was_written(size_bytes: int) -> None:
    assert parse_size(format_size(size_bytes)) == size_bytes


@given(st.integers(0, CENTURY_US))
def test_every_duration_is_read_back_as_it_was_written(duration_us: int) -> None:
    duration_s = duration_us / 1e6
    assert parse_duration(format_duration(duration_s)) == duration_s


@given(st.integers(0, 0o777))
def test_every_mode_is_read_back_as_it_was_written(mode: int) -> None:
    assert parse_mode(format_mode(mode)) == mode


@given(parsers, st.text() | st.builds("{}{}".format, numbers, units))
def test_text_is_a_finite_value_or_a_value_error(parse: Callable[[str], float], text: str) -> None:
    with contextlib.suppress(ValueError):
        assert 0 <= parse(text) <= 2**60
