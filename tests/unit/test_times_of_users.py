"""Times as people write them."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from logengine.format.timestamp import parse_time

# A Saturday, at 15:30 in a zone two hours east of UTC.
ZONE = timezone(timedelta(hours=2))
FIRST = datetime(1, 1, 1, tzinfo=UTC)
LAST = datetime(9999, 12, 31, 23, 59, tzinfo=UTC)
NOW = datetime(2026, 11, 28, 15, 30, tzinfo=ZONE)


@pytest.mark.parametrize(
    ("text", "since", "until"),
    [
        ("14:00", "28T12:00", "28T12:00"),
        ("14:00:05", "28T12:00:05", "28T12:00:05"),
        ("9:05", "28T07:05", "28T07:05"),
        ("15:30", "28T13:30", "28T13:30"),
        ("23:00", "27T21:00", "28T21:00"),
        ("yesterday 14:00", "27T12:00", "27T12:00"),
        ("yesterday 23:00", "27T21:00", "27T21:00"),
        ("Today 23:00", "28T21:00", "28T21:00"),
        ("tomorrow 01:00", "28T23:00", "28T23:00"),
        ("2026-11-20", "19T22:00", "19T22:00"),
        ("2026-11-20 14:00", "20T12:00", "20T12:00"),
        ("2026-11-20T14:00:00Z", "20T14:00", "20T14:00"),
        ("2026-11-20 14:00+0500", "20T09:00", "20T09:00"),
        ("today", "27T22:00", "27T22:00"),
        ("yesterday", "26T22:00", "26T22:00"),
        ("tomorrow", "28T22:00", "28T22:00"),
        ("now", "28T13:30", "28T13:30"),
        ("10m", "28T13:20", "28T13:20"),
        ("10m ago", "28T13:20", "28T13:20"),
        ("1h30m", "28T12:00", "28T12:00"),
        ("-1h30m", "28T12:00", "28T12:00"),
        ("1h30m ago", "28T12:00", "28T12:00"),
        ("1h 30min ago", "28T12:00", "28T12:00"),
        ("1.5 hours ago", "28T12:00", "28T12:00"),
        ("2 days", "26T13:30", "26T13:30"),
        ("1w", "21T13:30", "21T13:30"),
        ("90s", "28T13:28:30", "28T13:28:30"),
        ("@1795867200", "28T12:00", "28T12:00"),
        (" 14:00 ", "28T12:00", "28T12:00"),
    ],
)
def test_what_people_write_is_a_time(text: str, since: str, until: str) -> None:
    def stamp(short: str) -> str:
        clock = short if short.count(":") > 1 else f"{short}:00"
        return f"2026-11-{clock}.000000Z"

    assert parse_time(text, NOW) == stamp(since)
    assert parse_time(text, NOW, is_end=True) == stamp(until)


def test_fractions_are_kept_to_the_microsecond() -> None:
    assert parse_time("14:00:00.25", NOW).endswith("12:00:00.250000Z")
    assert parse_time("14:00:00,123", NOW).endswith("12:00:00.123000Z")
    assert parse_time("@1795867200.0000019", NOW).endswith("12:00:00.000001Z")


@pytest.mark.parametrize(
    "text",
    [
        *("soon", "", "ago", "-", "@", "@-5", "@1e9", "25:00", "14:60", "14", "yesterday 25:00"),
        *(
            "yesterday 10m",
            "10",
            "10x",
            "1h30",
            "10mm",
            "now ago",
            "2026-13-01",
            "2026-11-20 25:00",
        ),
        *("9" * 400 + "s", "9" * 19 + "w", "@" + "9" * 19, "14:00 yesterday", "\u0661:00"),
    ],
)
def test_what_is_no_time_is_refused_with_what_would_be_one(text: str) -> None:
    with pytest.raises(ValueError, match="expected '14:00', "):
        parse_time(text, NOW)


@pytest.mark.parametrize(
    ("now", "text"),
    [
        (FIRST, "yesterday"),
        (FIRST, "yesterday 01:00"),
        (FIRST, "23:59"),
        (FIRST, "1w"),
        (LAST, "tomorrow"),
        (LAST, "tomorrow 01:00"),
    ],
)
def test_a_time_outside_the_calendar_is_refused(now: datetime, text: str) -> None:
    with pytest.raises(ValueError, match="outside the years 1 to 9999"):
        parse_time(text, now)


def test_boot_is_when_the_machine_was_started() -> None:
    started = datetime(2026, 11, 28, 3, 4, 5, tzinfo=UTC)
    for text in ("boot", " Boot "):
        assert parse_time(text, NOW, booted=lambda: started) == "2026-11-28T03:04:05.000000Z"
    with pytest.raises(ValueError, match="is not a time"):
        parse_time("boot", NOW)


@pytest.mark.parametrize("text", ["23:00", "15:31", "15:30:00.000001"])
@pytest.mark.parametrize("is_end", [False, True])
def test_where_a_day_is_needed_a_time_that_is_still_to_come_is_refused(
    text: str, *, is_end: bool
) -> None:
    with pytest.raises(ValueError, match=f"write 'yesterday {text}' or 'today {text}'"):
        parse_time(text, NOW, is_end=is_end, needs_day=True)
    for allowed in (f"yesterday {text}", f"today {text}", "15:30", "14:00"):
        assert parse_time(allowed, NOW, is_end=is_end, needs_day=True) == parse_time(
            allowed, NOW, is_end=is_end
        )
