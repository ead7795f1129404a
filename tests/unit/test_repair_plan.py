"""What a repair is to do, by what was found."""

import hashlib

import msgspec

from logengine.format.producers import numbers_in
from logengine.format.segment import (
    Gap,
    Header,
    UserBytes,
    decode_header,
    encode_header,
    segment_name,
)
from logengine.store.plan import SEGMENT_RECORDS_MAX, Found, plan_recovery
from logengine.upkeep.repair_plan import Examined, plan_repair
from logengine.upkeep.verify import _check_neighbours

TIME = "2026-11-23T20:00:{:02d}.000001Z"
WHEN = "2026-11-25T00:00:00.000001Z"


def header(first: int, last: int) -> Header:
    return Header(
        version=1,
        stream="app",
        first=first,
        count=last - first + 1,
        bytes=0,
        since=TIME.format(first % 60),
        until=TIME.format(last % 60),
        latest=TIME.format(last % 60),
        sha256=hashlib.sha256().hexdigest(),
        producers={"p": last},
    )


def whole(first: int, last: int, *, compressed: bool = False) -> Examined:
    return Examined(first, compressed, header(first, last), None)


def damaged(first: int, last: int | None = None, *, compressed: bool = False) -> Examined:
    return Examined(first, compressed, header(first, last) if last else None, "it is damaged")


def gaps_of(*files: Examined) -> list[tuple[int, int, bool]]:
    plan = plan_repair("app", files, WHEN)
    for gap in plan.gaps:
        decode_header(encode_header(gap), "app")
    return [(gap.first, gap.gap.last, gap.gap.guessed) for gap in plan.gaps if gap.gap]


def removed(*files: Examined) -> list[str]:
    return [each.file.name for each in plan_repair("app", files, WHEN).removals]


def test_a_whole_stream_needs_nothing() -> None:
    assert gaps_of(whole(5, 9), whole(10, 10)) == []
    assert removed(whole(5, 9), whole(10, 10)) == []


def test_a_gap_takes_the_place_of_a_damaged_segment() -> None:
    files = (whole(1, 3), damaged(4, 6), whole(7, 9))
    assert gaps_of(*files) == [(4, 6, False)]
    assert removed(*files) == [segment_name(4)]
    (gap,) = plan_repair("app", files, WHEN).gaps
    assert gap.producers == {"p": 6}
    assert (gap.since, gap.latest) == (TIME.format(4), TIME.format(6))


def test_a_gap_says_of_users_what_was_before_it_and_has_nothing_itself() -> None:
    counted = {1000: UserBytes(40, 2)}
    of_users = msgspec.structs.replace(header(4, 6), users=counted)
    lost = Examined(4, is_compressed=False, header=of_users, damage="it is damaged")
    (gap,) = plan_repair("app", [whole(1, 3), lost, whole(7, 9)], WHEN).gaps
    assert gap.users == {1000: UserBytes(42, 0)}
    kept = Examined(4, is_compressed=False, header=of_users, damage=None)
    (gap,) = plan_repair("app", [kept, damaged(7)], WHEN).gaps
    assert gap.users == {1000: UserBytes(42, 0)}


def test_of_a_damaged_header_the_neighbours_tell() -> None:
    files = (whole(1, 3), damaged(4), whole(7, 9))
    assert gaps_of(*files) == [(4, 6, False)]
    (gap,) = plan_repair("app", files, WHEN).gaps
    assert gap.producers == {"p": 3}
    assert (gap.since, gap.until, gap.latest) == (TIME.format(3), TIME.format(7), TIME.format(7))


def of_users(first: int, last: int, numbers: dict[str, int]) -> Header:
    """A segment with these numbers of `web` by uid, and `p` of an old file."""
    producers_of = {int(uid): {"web": number} for uid, number in numbers.items()}
    return msgspec.structs.replace(header(first, last), producers_of=producers_of)


def examined(found: Header, damage: str | None = None) -> Examined:
    return Examined(found.first, False, found, damage, line=encode_header(found))


def test_a_gap_has_the_producers_of_each_user() -> None:
    before, lost = of_users(1, 3, {"0": 1, "7": 2}), of_users(4, 6, {"0": 4, "7": 2})
    (gap,) = plan_repair("app", [examined(before), examined(lost, "rot"), whole(7, 9)], WHEN).gaps
    assert numbers_in(gap) == numbers_in(lost)
    (gap,) = plan_repair("app", [examined(before), damaged(4)], WHEN).gaps
    assert numbers_in(gap) == numbers_in(before)


def test_a_gap_that_records_were_put_back_into_takes_the_farther_numbers_of_each_user() -> None:
    back = of_users(4, 5, {"0": 8, "7": 1})
    recorded = msgspec.structs.replace(
        of_users(4, 3, {"0": 2, "7": 9}), gap=Gap(last=6, when=WHEN, why="rot")
    )
    compressed = Examined(4, False, back, None, line=encode_header(back))
    gap = Examined(4, True, recorded, None, line=encode_header(recorded))
    plan = plan_repair("app", [whole(1, 3), compressed, gap, whole(7, 9)], WHEN)
    (rest,) = plan.gaps
    assert rest.producers_of == {0: {"web": 8}, 7: {"web": 9}}


def test_a_number_that_goes_back_is_reported_and_left_as_it_is() -> None:
    files = [examined(of_users(1, 3, {"0": 5, "7": 5})), examined(of_users(4, 6, {"0": 1, "7": 6}))]
    assert plan_repair("app", files, WHEN).pieces == []
    (finding,) = _check_neighbours(files[0].header, files[1].header, "f")  # type: ignore[arg-type]
    assert "producer 'web' of uid 0 is at 1, but was at 5" in finding.what
    assert finding.harmless


def test_behind_an_unreadable_newest_segment_no_number_is_used_again() -> None:
    end = 4 + SEGMENT_RECORDS_MAX
    assert gaps_of(whole(1, 3), damaged(4)) == [(4, end - 1, True)]
    assert gaps_of(whole(1, 3), damaged(4), whole(end, end + 1)) == [(4, end - 1, True)]
    assert gaps_of(whole(1, 3), damaged(4, 8)) == [(4, 8, False)]
    (gap,) = plan_repair("app", [damaged(4)], WHEN).gaps
    assert plan_recovery("app", [Found(4, gap)]).state.next_seq == end


def test_a_missing_segment_becomes_a_gap_of_its_own() -> None:
    assert gaps_of(whole(1, 3), whole(7, 9)) == [(4, 6, False)]
    assert gaps_of(whole(1, 3), damaged(4, 5), whole(7, 9)) == [(4, 5, False), (6, 6, False)]
    assert gaps_of(damaged(4), damaged(6), whole(9, 9)) == [(4, 5, False), (6, 8, False)]


def test_what_a_damaged_merge_covered_is_served_again() -> None:
    files = (damaged(1, 100), whole(20, 40), whole(101, 110))
    assert gaps_of(*files) == [(1, 19, False), (41, 100, False)]
    assert removed(*files) == [segment_name(1)]
    before, behind = plan_repair("app", files, WHEN).gaps
    assert (before.producers, behind.producers) == ({}, {"p": 100})


def test_leftovers_go_without_a_gap() -> None:
    assert gaps_of(whole(1, 9), whole(3, 5), damaged(6, 9), whole(10, 11)) == []
    assert removed(whole(1, 9), whole(3, 5), damaged(6, 9), whole(10, 11)) == [
        segment_name(3),
        segment_name(6),
    ]


def test_a_damaged_compressed_segment_gives_way_to_the_plain_one() -> None:
    files = (damaged(1, 9, compressed=True), whole(1, 6), whole(10, 11))
    assert gaps_of(*files) == [(7, 9, False)]
    assert removed(*files) == [segment_name(1, compressed=True)]
    both = (whole(1, 9, compressed=True), damaged(1, 6), whole(10, 11))
    assert gaps_of(*both) == []
    assert removed(*both) == [segment_name(1)]


def test_of_two_that_overlap_each_number_stays_once() -> None:
    files = (whole(1, 5), whole(4, 8), whole(9, 9))
    assert gaps_of(*files) == []
    assert removed(*files) == [segment_name(4)]
    (piece,) = plan_repair("app", files, WHEN).pieces
    assert (piece.header.first, piece.header.last, piece.source) == (6, 8, files[1])


def test_a_recorded_gap_is_no_gap() -> None:
    gap = msgspec.structs.replace(header(4, 3), gap=Gap(last=6, when=WHEN, why="rot"))
    assert gaps_of(whole(1, 3), Examined(4, False, gap, None), whole(7, 9)) == []
    recovery = plan_recovery("app", [Found(1, header(1, 3)), Found(4, gap)])
    assert recovery.gaps == []
    assert recovery.state.next_seq == 7
    assert plan_recovery("app", [Found(4, gap), Found(7, header(7, 9))]).gaps == []


def test_a_whole_file_under_a_wrong_name_gets_its_own() -> None:
    wrong = Examined(5, False, header(4, 6), "its header says first 4", is_intact=True)
    plan = plan_repair("app", [whole(1, 3), wrong, whole(7, 9)], WHEN)
    assert plan.links == [(segment_name(5), segment_name(4))]
    assert [each.file.name for each in plan.removals] == [segment_name(5)]
    assert (plan.gaps, plan.pieces) == ([], [])
    # Where another one has that name, its records cannot be had without a moment without both.
    plan = plan_repair("app", [whole(1, 3), damaged(4, 6), wrong, whole(7, 9)], WHEN)
    assert plan.links == []
    assert [(gap.first, gap.last) for gap in plan.gaps] == [(4, 4), (5, 6)]


def test_an_empty_segment_gives_way_to_a_gap_that_goes_on_where_it_stood() -> None:
    empty = msgspec.structs.replace(header(4, 3), producers={"p": 3, "q": 7})
    files = (whole(1, 3), Examined(4, False, empty, None), whole(7, 9))
    plan = plan_repair("app", files, WHEN)
    (gap,) = plan.gaps
    assert (gap.first, gap.last, gap.producers) == (4, 6, {"p": 3, "q": 7})
    assert [each.leftover for each in plan.removals] == [True]
    assert plan_repair("app", files[:2], WHEN).removals == []


def test_what_is_written_never_contradicts_its_neighbours() -> None:
    """A gap for a missing segment, and one for a damaged one behind it: times go on."""
    plan = plan_repair("app", [whole(1, 1), damaged(3, 3), whole(40, 40)], WHEN)
    latest = [gap.latest for gap in plan.gaps]
    assert [(gap.first, gap.last) for gap in plan.gaps] == [(2, 2), (3, 3), (4, 39)]
    assert latest == sorted(latest)
    assert latest[-1] <= TIME.format(40)


def test_records_come_before_a_gap_that_says_they_are_gone() -> None:
    gap = msgspec.structs.replace(header(1, 0), gap=Gap(last=9, when=WHEN, why="rot"))
    recorded = Examined(1, False, gap, None)
    plan = plan_repair("app", [recorded, whole(4, 6)], "2026-11-26T00:00:00.000001Z")
    assert [(each.first, each.last) for each in plan.gaps] == [(1, 3), (7, 9)]
    assert {each.gap.when for each in plan.gaps if each.gap} == {WHEN}
    assert [each.file for each in plan.removals] == [recorded]
