"""Which time retention relies on, although the clock may be wrong."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logengine.format.segment import FORMAT_VERSION, Header, encode_header, segment_name
from logengine.format.timestamp import format_timestamp, parse_timestamp
from logengine.upkeep.clock_plan import BELIEVED_AFTER_S, KnownTime, first_known, known_after
from logengine.upkeep.retention_clock import CLOCK_NAME, RetentionClock
from logengine.upkeep.retention_plan import last_written

S = 1_000_000_000
HOUR = 3600 * S
DAY = 24 * HOUR
YEAR = 365 * DAY
START = 1_795_000_000 * S
EVERY_S = 1800.0


def timestamp(time_ns: int) -> str:
    return format_timestamp(time_ns)


def after_looks(walls: Iterable[int], every_s: float = EVERY_S) -> KnownTime:
    """What is known after looks at a clock that agreed at `START`, `every_s` apart."""
    known = KnownTime(START, START)
    for wall_ns in walls:
        known = known_after(known, wall_ns, every_s, ran=True)
    return known


def running(hours: float, ahead_ns: int = 0, since: int = START) -> list[int]:
    """What a clock says that is ahead, at each look."""
    looks = int(hours * 3600 / EVERY_S)
    return [since + int(n * EVERY_S) * S + ahead_ns for n in range(1, looks + 1)]


def test_a_clock_that_runs_is_believed() -> None:
    assert after_looks(running(100)).now_ns == START + 100 * HOUR


@pytest.mark.parametrize("ahead_ns", [HOUR, YEAR, 73 * YEAR, -HOUR, -50 * YEAR])
def test_a_jump_makes_nothing_old_for_a_day_and_is_believed_after_it(ahead_ns: int) -> None:
    jumped = after_looks(running(23, ahead_ns))
    assert jumped.is_doubted
    assert jumped.now_ns == START + 23 * HOUR + min(0, ahead_ns)
    believed = after_looks(running(25, ahead_ns))
    assert believed == KnownTime(START + 25 * HOUR + ahead_ns, START + 25 * HOUR + ahead_ns)


def test_a_clock_that_jumps_again_is_doubted_for_another_day() -> None:
    ahead = running(23, YEAR)
    further = running(23, 2 * YEAR, START + 23 * HOUR)
    assert after_looks(ahead + further).now_ns == START + 46 * HOUR
    back = running(1, 0, START + 23 * HOUR)
    again = running(23, YEAR, START + 24 * HOUR)
    assert not after_looks(ahead + back).is_doubted
    assert after_looks(ahead + back + again).now_ns == START + 47 * HOUR


def test_a_clock_that_jumps_back_too_far_is_doubted_for_another_day() -> None:
    behind = running(23, -YEAR, START + 23 * HOUR)
    assert after_looks(running(23, YEAR) + behind).is_doubted


def test_a_clock_that_a_time_server_adjusts_is_believed() -> None:
    assert after_looks(running(1, 30 * S)) == KnownTime(
        START + HOUR + 30 * S, START + HOUR + 30 * S
    )


def test_time_in_which_the_daemon_did_not_run_makes_no_clock_believed() -> None:
    known = after_looks(running(1, YEAR))
    known = known_after(known, known.wall_ns + 25 * HOUR, 25 * 3600, ran=False)
    assert known.is_doubted
    assert known.now_ns == START + 26 * HOUR


def test_a_machine_that_is_off_at_night_is_believed_after_it_ran_for_a_day() -> None:
    known = KnownTime(START, START)
    wall_ns = START
    for _ in range(4):
        wall_ns += 16 * HOUR
        known = known_after(known, wall_ns, 0, ran=False)
        for _ in range(8):
            wall_ns += HOUR
            known = known_after(known, wall_ns, 3600, ran=True)
    assert known.now_ns > wall_ns - 2 * DAY


def test_without_a_note_the_newest_record_says_what_is_known() -> None:
    assert first_known(START, None).now_ns == START
    assert first_known(START + 73 * YEAR, START).now_ns == START
    assert first_known(START, START + 73 * YEAR).now_ns == START
    assert not first_known(START, START - 5 * S).is_doubted


@given(st.lists(st.tuples(st.integers(0, 46), st.sampled_from([0, HOUR, YEAR, 73 * YEAR]))))
def test_looks_ahead_of_less_than_a_day_make_nothing_old(spans: list[tuple[int, int]]) -> None:
    known = KnownTime(START, START)
    true_ns = START
    for looks, ahead_ns in spans:
        for ahead in [ahead_ns] * looks + [0]:
            true_ns += int(EVERY_S) * S
            known = known_after(known, true_ns + ahead, EVERY_S, ran=True)
            assert known.now_ns <= true_ns
        assert known.now_ns == true_ns


@given(
    st.lists(st.tuples(st.floats(0, 1e6), st.integers(0, 80 * YEAR), st.booleans()), max_size=20)
)
def test_whatever_happened_a_clock_that_runs_for_a_day_is_believed(
    steps: list[tuple[float, int, bool]],
) -> None:
    known = KnownTime(START, START)
    for passed_s, wall_ns, ran in steps:
        known = known_after(known, wall_ns, passed_s, ran=ran)
    wall_ns = known.wall_ns
    for _ in range(int(BELIEVED_AFTER_S / EVERY_S) + 1):
        wall_ns += int(EVERY_S * S)
        known = known_after(known, wall_ns, EVERY_S, ran=True)
    assert known.now_ns == wall_ns


class Clocks:
    """The wall clock, and that of a boot."""

    def __init__(self) -> None:
        self.wall_ns = START
        self.boot_s = 100.0

    def passes(self, hours: float) -> None:
        self.wall_ns += int(hours * HOUR)
        self.boot_s += hours * 3600

    def of(self, data: Path, boot_id: str = "one", *, notes: bool = True) -> RetentionClock:
        return RetentionClock(
            data,
            notes=notes,
            boot_id=boot_id,
            clock_ns=lambda: self.wall_ns,
            boot_clock_s=lambda: self.boot_s,
        )


def test_what_is_known_survives_a_restart_and_a_boot(tmp_path: Path) -> None:
    clocks = Clocks()
    assert clocks.of(tmp_path).now_ns() == START
    clocks.passes(5)
    clocks.wall_ns += 73 * YEAR
    assert clocks.of(tmp_path).now_ns() == START + 5 * HOUR
    clocks.passes(1)
    clocks.boot_s = 3.0
    booted = clocks.of(tmp_path, "two")
    assert booted.now_ns() == START + 5 * HOUR
    clocks.passes(25)
    booted.look()
    clocks.wall_ns -= 73 * YEAR
    assert clocks.of(tmp_path, "two").now_ns() <= clocks.wall_ns
    clocks.wall_ns += 73 * YEAR
    again = clocks.of(tmp_path, "two")
    again.believe()
    assert clocks.of(tmp_path, "two").now_ns() == clocks.wall_ns


def test_the_clock_of_another_boot_says_nothing(tmp_path: Path) -> None:
    clocks = Clocks()
    clocks.of(tmp_path).look()
    clocks.wall_ns += YEAR
    clocks.boot_s += 9 * 3600
    assert clocks.of(tmp_path, "two").now_ns() == START
    assert clocks.of(tmp_path, "").now_ns() == START


def test_who_is_told_to_believe_the_clock_believes_it_after_a_restart(tmp_path: Path) -> None:
    clocks = Clocks()
    clock = clocks.of(tmp_path)
    clock.look()
    clocks.wall_ns += YEAR
    assert clock.look().is_doubted
    clock.believe()
    assert clocks.of(tmp_path).now_ns() == START + YEAR


@pytest.mark.parametrize("content", [b"", b"nonsense", b'{"believed":1}', b"\xff" * 5000])
def test_a_note_that_is_broken_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / CLOCK_NAME).write_bytes(content)
    clocks = Clocks()
    assert clocks.of(tmp_path).now_ns() == START
    assert json.loads((tmp_path / CLOCK_NAME).read_bytes())["believed"] == timestamp(START)


def test_what_is_known_is_noted_every_ten_minutes(tmp_path: Path) -> None:
    def noted() -> str:
        text = json.loads((tmp_path / CLOCK_NAME).read_bytes())["believed"]
        assert isinstance(text, str)
        return text

    clocks = Clocks()
    clock = clocks.of(tmp_path)
    clock.look()
    clocks.passes(0.15)
    clock.look()
    assert noted() == timestamp(START)
    clocks.passes(0.15)
    clock.look()
    assert noted() == timestamp(clocks.wall_ns)


def test_without_a_note_the_newest_record_that_is_not_from_the_future_counts(
    tmp_path: Path,
) -> None:
    for stream, time_ns in (("old", START - 9 * DAY), ("app", START - 2 * DAY), ("odd", 2 * START)):
        time = timestamp(time_ns)
        header = Header(
            version=FORMAT_VERSION,
            stream=stream,
            first=1,
            count=0,
            bytes=0,
            since=time,
            until=time,
            latest=time,
            sha256=hashlib.sha256().hexdigest(),
        )
        (tmp_path / stream).mkdir()
        (tmp_path / stream / segment_name(1)).write_bytes(encode_header(header))
    assert Clocks().of(tmp_path).now_ns() == START - 2 * DAY


def test_who_only_looks_notes_nothing(tmp_path: Path) -> None:
    assert Clocks().of(tmp_path, notes=False).now_ns() == START
    assert not (tmp_path / CLOCK_NAME).exists()


@given(st.integers(0, 253_402_300_799 * 1_000_000))
def test_a_timestamp_is_parsed_exactly(time_us: int) -> None:
    assert parse_timestamp(format_timestamp(time_us * 1000)) == time_us * 1000


# When a segment was written -----------------------------------------------------------------

NEVER = "9999"


def written(
    untils: list[str], now: str, *, before: str = "", file_time: str = NEVER
) -> list[str | None]:
    """When each segment was written at the latest, once those before it are gone."""
    found = []
    for at in range(len(untils)):
        latest = max([before, *untils[: at + 1]])
        found.append(last_written(latest, untils[at:], file_time, now))
    return found


def test_a_segment_from_the_future_is_no_younger_than_the_next() -> None:
    assert written(["2026-01", "2099", "2099", "2026-02"], "2026-05") == [
        "2026-01",
        "2026-02",
        "2026-02",
        "2026-02",
    ]


def test_a_segment_of_1970_is_as_young_as_the_next() -> None:
    assert written(["2026-01", "1970", "1970", "2026-02"], "2026-05") == [
        "2026-01",
        "2026-02",
        "2026-02",
        "2026-02",
    ]
    # Those before it stay as young as they were.
    assert written(["2026-01", "1970"], "2026-05")[0] == "2026-01"


def test_a_clock_that_was_an_hour_ahead_or_behind_makes_nothing_older() -> None:
    ahead = written(["10:00", "11:30", "10:45", "11:00", "12:00"], "13:00")
    assert ahead == ["10:00", "11:30", "12:00", "12:00", "12:00"]
    behind = written(["10:00", "09:30", "11:00"], "13:00")
    assert behind == ["10:00", "11:00", "11:00"]


def test_if_no_segment_has_a_possible_time_that_of_the_file_counts() -> None:
    assert written(["2099"], "2026-05", file_time="2026-04") == ["2026-04"]
    assert written(["2099"], "2026-05", file_time="2099") == [None]
    assert written(["1970"], "2026-05", before="2026-03", file_time="2026-04") == ["2026-04"]
    assert written(["1970"], "2026-05", before="2026-03", file_time="1970") == [None]


steps = st.lists(
    st.tuples(st.integers(1, 9), st.sampled_from(["right", "wrong"]), st.integers(0, 5000)),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize("kind", ["ahead", "1970"])
@given(steps=steps)
def test_nothing_counts_as_older_than_it_is(kind: str, steps: list[tuple[int, str, int]]) -> None:
    true = 3000
    untils: list[str] = []
    times: list[int] = []
    right: list[bool] = []
    for passed, state, error in steps:
        true += passed
        wrong = true + error if kind == "ahead" else error % 1000
        is_right = state == "right" or (kind == "1970" and not times)
        times.append(true)
        right.append(is_right)
        untils.append(f"{true if is_right else wrong:06}")
    now = true + 1
    for at, found in enumerate(written(untils, f"{now:06}")):
        if found is not None:
            assert int(found) >= times[at]
            assert int(found) <= now
        else:
            # Nothing was written with a right clock since, or the clock was ahead by so little
            # that its time has come: then it is not known which of the two was right.
            assert not right[-1] or untils[-1] < max(untils)
