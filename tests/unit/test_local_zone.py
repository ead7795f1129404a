"""Local times across changes to and from summer time."""

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logengine.cli.selection import Time
from logengine.format.text_time import leading_time
from logengine.format.timestamp import parse_time
from logengine.local_zone import LOCAL_ZONE, local_now
from tests.daemon import Daemon

# Central Europe: +1 hour, +2 from the last Sunday in March to that in October. Needs no tzdata.
BERLIN = "CET-1CEST,M3.5.0,M10.5.0/3"
WINTER = datetime(2026, 11, 28, 12, 0, tzinfo=LOCAL_ZONE)
SINCE_1997 = datetime(1997, 1, 1, tzinfo=UTC)  # since then the rule is as above
MINUTE = timedelta(minutes=1)
SUMMER = datetime(2026, 7, 1, 12, 0, tzinfo=LOCAL_ZONE)


@pytest.fixture(autouse=True, scope="module")
def berlin() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = BERLIN
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.parametrize(
    ("text", "timestamp"),
    [
        ("2026-07-01 12:00", "2026-07-01T10:00:00.000000Z"),
        ("2026-12-01 12:00", "2026-12-01T11:00:00.000000Z"),
        ("2026-07-01", "2026-06-30T22:00:00.000000Z"),
        ("2026-07-01 12:00Z", "2026-07-01T12:00:00.000000Z"),
        # Skipped: the clocks went from 02:00 to 03:00.
        ("2026-03-29 02:30", "2026-03-29T01:30:00.000000Z"),
        ("2026-03-29 03:30", "2026-03-29T01:30:00.000000Z"),
    ],
)
@pytest.mark.parametrize("now", [WINTER, SUMMER])
def test_a_local_time_gets_the_offset_of_that_time(
    text: str, timestamp: str, now: datetime
) -> None:
    assert parse_time(text, now) == timestamp
    assert parse_time(text, now, is_end=True) == timestamp


def test_a_range_of_a_time_that_occurred_twice_has_both() -> None:
    assert parse_time("2026-10-25 02:30", WINTER) == "2026-10-25T00:30:00.000000Z"
    assert parse_time("2026-10-25 02:30", WINTER, is_end=True) == "2026-10-25T01:30:00.000000Z"


def test_days_and_hours_before_now_are_not_confused_by_a_change() -> None:
    now = datetime(2026, 10, 25, 12, 0, tzinfo=LOCAL_ZONE)
    assert parse_time("today", now) == "2026-10-24T22:00:00.000000Z"
    assert parse_time("yesterday", now) == "2026-10-23T22:00:00.000000Z"
    assert parse_time("12h", now) == "2026-10-24T23:00:00.000000Z"
    assert parse_time("now", now) == "2026-10-25T11:00:00.000000Z"


@pytest.mark.parametrize(
    "text", ["0001-01-01", "9999-12-31 23:59:59-05:00", "0001-01-01 00:00+1:00"]
)
def test_a_time_at_the_ends_of_the_calendar_is_a_value_error_or_a_time(text: str) -> None:
    with pytest.raises(ValueError, match=text[:4]):
        parse_time(text, WINTER)


@pytest.mark.parametrize("now", [WINTER, SUMMER])
def test_a_line_of_a_log_gets_the_offset_of_that_time(now: datetime) -> None:
    assert leading_time("2026-03-28 12:00:00 x", now) == "2026-03-28T11:00:00.000000Z"
    assert leading_time("Jun 30 12:00:00 host x", now) == "2026-06-30T10:00:00.000000Z"
    assert leading_time("Jan 15 12:00:00 host x", now) == "2026-01-15T11:00:00.000000Z"
    assert leading_time("2026-03-29 02:30:00 x", now) == "2026-03-29T01:30:00.000000Z"
    assert leading_time("2026-10-25 02:30:00 x", now) == "2026-10-25T00:30:00.000000Z"


@given(minutes=st.integers(0, 40 * 366 * 1440), fold=st.sampled_from([0, 1]))
@example(minutes=int((datetime(2026, 3, 29, 2, 30, tzinfo=UTC) - SINCE_1997) / MINUTE), fold=0)
@example(minutes=int((datetime(2026, 10, 25, 2, 30, tzinfo=UTC) - SINCE_1997) / MINUTE), fold=1)
def test_the_zone_has_the_rules_of_the_system(minutes: int, fold: int) -> None:
    utc = SINCE_1997 + minutes * MINUTE
    moment = utc.replace(tzinfo=None, fold=fold)
    assert LOCAL_ZONE.utcoffset(moment) == ZoneInfo("Europe/Berlin").utcoffset(moment)
    assert utc.astimezone(LOCAL_ZONE).astimezone(UTC) == utc


def test_now_is_now() -> None:
    assert abs(local_now() - datetime.now(UTC)) < timedelta(minutes=1)


def test_an_import_resolves_local_times_by_the_zone(root: Path, daemon: Daemon) -> None:
    log = root / "old.log"
    log.write_text("2026-07-01 12:00:00 summer\n2026-01-15 12:00:00 winter\n")
    daemon.cli("import", str(log), "-s", "old", TZ=BERLIN)
    times = [record["time"] for record in daemon.values("old")]
    assert times == ["2026-07-01T10:00:00.000000Z", "2026-01-15T11:00:00.000000Z"]


@pytest.mark.parametrize("is_end", [False, True])
def test_the_command_line_has_the_zone_with_its_rules(is_end: bool) -> None:
    assert Time(is_end=is_end).convert("2026-07-01", None, None) == "2026-06-30T22:00:00.000000Z"
    assert Time(is_end=is_end).convert("2026-01-01", None, None) == "2025-12-31T23:00:00.000000Z"
    assert Time(is_end=is_end).convert("2026-10-25 02:30", None, None) == (
        "2026-10-25T01:30:00.000000Z" if is_end else "2026-10-25T00:30:00.000000Z"
    )
