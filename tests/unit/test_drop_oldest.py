"""Which segments go when a stream makes room on a full disk."""

from logengine.store.drop_oldest import StoredSegment, oldest_to_drop

BLOCK = 4096


def segments(*counts: int, first: int = 1) -> list[StoredSegment]:
    made = []
    for count in counts:
        made.append(StoredSegment(first, count, BLOCK))
        first += count
    return made


def firsts(dropped: list[StoredSegment]) -> list[int]:
    return [segment.first for segment in dropped]


def test_as_many_as_needed_go_the_oldest_first() -> None:
    stored = segments(10, 10, 10, 10)
    assert firsts(oldest_to_drop(stored, 1, next_seq=41)) == [1]
    assert firsts(oldest_to_drop(stored, BLOCK + 1, next_seq=41)) == [1, 11]


def test_the_newest_stays_whatever_is_wanted() -> None:
    assert firsts(oldest_to_drop(segments(10, 10, 10), 10**9, next_seq=31)) == [1, 11]
    assert oldest_to_drop(segments(10), 10**9, next_seq=11) == []
    assert oldest_to_drop([], 10**9, next_seq=1) == []


def test_what_may_vanish_is_no_reason_to_remove_what_is_durable() -> None:
    # The last one is of a commit that failed: visible, perhaps, and not durable.
    assert firsts(oldest_to_drop(segments(10, 10, 10), 10**9, next_seq=21)) == [1]


def test_a_segment_that_only_says_where_producers_are_keeps_the_one_before_it() -> None:
    assert firsts(oldest_to_drop(segments(10, 10, 0), 10**9, next_seq=21)) == [1]


def test_a_covered_segment_goes_before_the_one_that_covers_it() -> None:
    merged = StoredSegment(1, 30, BLOCK)
    left = [StoredSegment(11, 10, BLOCK), StoredSegment(21, 10, BLOCK)]
    stored = [merged, *left, *segments(10, 10, first=31)]
    assert firsts(oldest_to_drop(stored, 1, next_seq=51)) == [21, 11, 1]


def test_no_further_segment_is_looked_at_than_needed() -> None:
    looked_at = []

    def stored() -> object:
        for segment in segments(*[10] * 100):
            looked_at.append(segment)
            yield segment

    oldest_to_drop(stored(), 1, next_seq=10**6)  # type: ignore[arg-type]
    assert len(looked_at) == 2
