"""Sizes, durations and modes as people write them."""

import pytest

from logengine.units import (
    format_duration,
    format_mode,
    format_size,
    parse_duration,
    parse_mode,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0B", 0),
        ("64KiB", 65536),
        ("64 KiB", 65536),
        (" 8MiB ", 8 * 1024**2),
        ("1GiB", 1024**3),
        ("2TiB", 2 * 1024**4),
        ("1KB", 1000),
        ("1MB", 1000**2),
        ("1GB", 1000**3),
        ("1.5KiB", 1536),
        ("4096", 4096),
    ],
)
def test_a_size_is_read_in_its_unit_and_a_bare_number_is_bytes(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "KiB", "-1B", "1 kib", "1Ki", "1e3B", "1.B", "٣KiB", "1" * 20]
)
def test_what_is_no_size_is_refused_with_the_units(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a size such as 64KiB.*KiB, MiB, GiB, TiB"):
        parse_size(text)


def test_a_size_that_no_disk_has_is_refused_with_the_limit() -> None:
    with pytest.raises(ValueError, match="expected at most 1048576TiB"):
        parse_size("1048577TiB")


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [(0, "0B"), (1, "1B"), (1000, "1000B"), (65536, "64KiB"), (3 * 1024**3, "3GiB")],
)
def test_a_size_is_written_in_the_largest_unit_that_is_exact(size_bytes: int, text: str) -> None:
    assert format_size(size_bytes) == text


@pytest.mark.parametrize(
    ("text", "duration_s"),
    [
        ("0ms", 0),
        ("15us", 0.000015),
        ("250ms", 0.25),
        ("10s", 10),
        ("1.5s", 1.5),
        ("5m", 300),
        ("2h", 7200),
        ("30d", 2_592_000),
        ("1w", 604_800),
    ],
)
def test_a_duration_is_read_as_seconds(text: str, duration_s: float) -> None:
    assert parse_duration(text) == duration_s


@pytest.mark.parametrize("text", ["", "10", "s", "-1s", "5 parsecs", "1M", "9" * 400 + "s"])
def test_what_is_no_duration_is_refused_with_the_units(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a duration such as 250ms.*us, ms, s, m, h"):
        parse_duration(text)


def test_a_duration_above_a_century_is_refused_with_the_limit() -> None:
    assert parse_duration("36525d") == 36525 * 86400
    with pytest.raises(ValueError, match="expected at most 36525d"):
        parse_duration("36526d")


@pytest.mark.parametrize(
    ("duration_s", "text"),
    [(0, "0ms"), (0.05, "50ms"), (5, "5s"), (90, "90s"), (604_800, "1w"), (1e-6, "1us")],
)
def test_a_duration_is_written_in_the_largest_unit_that_is_exact(
    duration_s: float, text: str
) -> None:
    assert format_duration(duration_s) == text


def test_modes_are_octal_with_and_without_the_leading_zero() -> None:
    assert parse_mode("0660") == parse_mode("660") == 0o660
    assert format_mode(0o60) == "0060"


@pytest.mark.parametrize("text", ["", "66", "0o666", "0888", "1777", "rw-rw----"])
def test_what_is_no_mode_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="expected permissions in octal such as 0660"):
        parse_mode(text)
