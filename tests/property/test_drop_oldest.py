"""Whatever a stream looks like, what is left of it is its newest part, whole."""

from hypothesis import given
from hypothesis import strategies as st

from logengine.store.drop_oldest import StoredSegment, oldest_to_drop


@st.composite
def streams(draw: st.DrawFn) -> list[StoredSegment]:
    """Segments in the order of their names, some of them covered by the one before."""
    stored: list[StoredSegment] = []
    first = draw(st.integers(1, 1000))
    for _ in range(draw(st.integers(0, 12))):
        segment = StoredSegment(first, draw(st.integers(1, 20)), draw(st.integers(0, 9)))
        stored.append(segment)
        for _ in range(draw(st.integers(0, 2))):
            begin = draw(st.integers(stored[-1].first + 1, segment.last + 1))
            if begin <= segment.last:
                count = draw(st.integers(1, segment.last - begin + 1))
                stored.append(StoredSegment(begin, count, 1))
        first = segment.last + 1
    return stored


def held(stored: list[StoredSegment]) -> set[int]:
    return {seq for each in stored for seq in range(each.first, each.last + 1)}


@given(streams(), st.integers(0, 100), st.data())
def test_what_is_left_is_continuous_at_every_step_and_ends_where_it_did(
    stored: list[StoredSegment], wanted_bytes: int, data: st.DataObject
) -> None:
    end = max((segment.last + 1 for segment in stored), default=1)
    next_seq = data.draw(st.integers(1, end))
    dropped = oldest_to_drop(stored, wanted_bytes, next_seq)
    left = list(stored)
    before = held(left)
    for segment in dropped:
        left.remove(segment)
        after = held(left)
        assert after <= before
        # Never a hole, and never gone and back again.
        assert not after or after == set(range(min(after), end))
        before = after
    if next_seq > 1 and next_seq - 1 in held(stored):
        assert next_seq - 1 in before
    assert not dropped or left
