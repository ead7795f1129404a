"""Which segments of a stream belong together in a backup."""

import msgspec
import pytest

from logengine.format.segment import Gap, Header
from logengine.upkeep.backup_plan import fault_of

TIME = "2026-11-23T20:00:00.000001Z"
PLAIN = Header(
    version=1,
    stream="app",
    first=1,
    count=4,
    bytes=400,
    since=TIME,
    until=TIME,
    latest=TIME,
    sha256="a" * 64,
)


def plain(first: int, last: int) -> Header:
    return msgspec.structs.replace(PLAIN, first=first, count=last - first + 1)


def sealed(first: int, last: int) -> Header:
    return msgspec.structs.replace(plain(first, last), prev="")


def gap(first: int, last: int) -> Header:
    of_gap = Gap(last=last, when=TIME, why="a test")
    return msgspec.structs.replace(plain(first, first - 1), gap=of_gap)


@pytest.mark.parametrize(
    ("headers", "end"),
    [
        ([], 0),
        ([plain(1, 4)], 4),
        ([plain(1, 4)], 3),
        ([sealed(5, 8), gap(9, 12), sealed(13, 16), plain(17, 20), plain(21, 20)], 20),
        # What a merge has not removed yet.
        ([plain(1, 8), plain(5, 8), plain(9, 12)], 12),
        ([sealed(1, 8), plain(5, 6), plain(7, 8), sealed(9, 12)], 12),
    ],
)
def test_segments_in_a_row_belong_together(headers: list[Header], end: int) -> None:
    assert fault_of(headers, end) is None


@pytest.mark.parametrize(
    ("headers", "end", "fault"),
    [
        ([], 4, "records 1 to 4 are missing"),
        ([plain(1, 4)], 6, "records 5 to 6 are missing"),
        ([plain(1, 4), plain(9, 12)], 12, "records 5 to 8 are missing"),
        ([plain(1, 4), plain(3, 8)], 8, "records 3 to 4 are in two segments"),
        ([plain(1, 4), sealed(5, 8)], 8, "records 1 to 4 are not sealed, but later ones are"),
    ],
)
def test_what_was_taken_before_and_after_a_change_does_not(
    headers: list[Header], end: int, fault: str
) -> None:
    assert str(fault_of(headers, end)) == fault
