"""The time that a line of text begins with."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from logengine.format.text_time import leading_time

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=timezone(timedelta(hours=1)))


@pytest.mark.parametrize(
    ("line", "time"),
    [
        ("2026-11-23T20:00:00Z started", "2026-11-23T20:00:00.000000Z"),
        ("2026-11-23T20:00:00.123456789+02:00 x", "2026-11-23T18:00:00.123456Z"),
        ("2026-11-23 20:00:00,123 INFO x", "2026-11-23T19:00:00.123000Z"),
        ("2026-11-23 20:00:00 -0500 x", "2026-11-24T01:00:00.000000Z"),
        ("2026-11-23 20:00:00 Zebra", "2026-11-23T19:00:00.000000Z"),
        ("[2026-11-23 20:00:00] x", "2026-11-23T19:00:00.000000Z"),
        ("<165>1 2026-11-23T20:00:00.5Z host app - - x", "2026-11-23T20:00:00.500000Z"),
        ("Nov 23 20:00:00 host app[1]: x", "2026-11-23T19:00:00.000000Z"),
        ("<13>Nov  3 20:00:00 host x", "2026-11-03T19:00:00.000000Z"),
        ("Nov 26 11:59:59 a clock that is ahead", "2026-11-26T10:59:59.000000Z"),
        ("Dec 31 23:59:59 of last year", "2025-12-31T22:59:59.000000Z"),
        ("Feb 29 00:00:00 of a leap year", "2024-02-28T23:00:00.000000Z"),
        (
            '1.2.3.4 - ann [23/Nov/2026:20:00:00 +0100] "GET / HTTP/1.1" 200 5',
            "2026-11-23T19:00:00.000000Z",
        ),
        ("2026/11/23 20:00:00 [error] 7#7: x", "2026-11-23T19:00:00.000000Z"),
        ("2026-11-23T23:59:60Z a leap second", "2026-11-23T23:59:59.000000Z"),
        ("2026-13-23T20:00:00Z no month", None),
        ("Feb 30 20:00:00 no day", None),
        ("0000-01-01T00:00:00Z", None),
        ("0001-01-01T00:00:00+23:00", None),
        ("2026-11-23T20:00:00+99:00", None),
        ("at 2026-11-23T20:00:00Z", None),
        ("x" * 600 + "[23/Nov/2026:20:00:00 +0100]", None),
        ("", None),
    ],
)
def test_the_time_of_a_line(line: str, time: str | None) -> None:
    assert leading_time(line, NOW) == time


def test_a_line_of_december_read_in_january_is_of_the_year_before() -> None:
    now = datetime(2027, 1, 1, 0, 0, 5, tzinfo=UTC)
    assert leading_time("Dec 31 23:59:59 x", now) == "2026-12-31T23:59:59.000000Z"
    assert leading_time("Jan  1 00:00:04 x", now) == "2027-01-01T00:00:04.000000Z"
