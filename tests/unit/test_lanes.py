"""Which streams share a batch: who has little pending does not wait for who has much."""

from collections import Counter, deque
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logengine.store.lanes import UNDER_WAY_MAX, Lane, lane_of, large_users, may_start

MAX_BATCH = 32_000
SMALL_BYTES = 1_000  # a user's part of the small lane
SMALL_STREAMS = 16

uids = st.integers(1, 4)


def large(pending_bytes: Mapping[int, int], streams_of: Mapping[int, int]) -> set[int]:
    owners = list(Counter(streams_of).elements())
    return set(large_users(pending_bytes, lambda: owners, len(owners), max_batch=MAX_BATCH))


def test_a_user_is_large_above_a_part_of_a_batch() -> None:
    assert large({1: SMALL_BYTES - 100, 2: SMALL_BYTES + 1}, {1: 1, 2: 1}) == {2}
    assert large({1: SMALL_BYTES + 1}, {1: 1}) == {1}
    assert large({1: SMALL_BYTES - 100}, {1: 1}) == set()


def test_a_user_with_something_in_many_streams_is_large() -> None:
    assert large({1: 1, 2: 1}, {1: SMALL_STREAMS, 2: SMALL_STREAMS - 1}) == {1}


def test_a_user_whose_bytes_are_all_in_batches_under_way_is_still_large() -> None:
    assert large({1: 2 * SMALL_BYTES}, {}) == {1}


@given(
    st.dictionaries(uids, st.integers(1, 3 * SMALL_BYTES)),
    st.dictionaries(uids, st.integers(1, 2 * SMALL_STREAMS)),
    uids,
)
def test_who_is_large_does_not_depend_on_others(
    pending_bytes: dict[int, int], streams_of: dict[int, int], uid: int
) -> None:
    alone = large(
        {of: size for of, size in pending_bytes.items() if of == uid},
        {of: count for of, count in streams_of.items() if of == uid},
    )
    assert large(pending_bytes, streams_of) & {uid} == alone


@given(st.lists(uids, min_size=1), st.sets(uids), st.booleans())
def test_a_small_batch_has_nothing_of_a_large_user_and_waits_for_no_large_batch(
    waiting: list[int], large: set[int], follows_large: bool
) -> None:
    is_small = lane_of(waiting, large, follows_large=follows_large) is Lane.SMALL
    assert is_small == (not follows_large and large.isdisjoint(waiting))


@given(st.integers(0, 3), st.integers(0, 3), st.booleans(), st.booleans())
def test_for_one_user_alone_the_lanes_are_one(
    own: int, others: int, is_due: bool, is_enough: bool
) -> None:
    starts = may_start(own, others, is_due=is_due, is_enough=is_enough, is_shared=False)
    of_one_lane = may_start(own + others, 0, is_due=is_due, is_enough=is_enough, is_shared=True)
    assert starts == of_one_lane


ENOUGH_BYTES = 8_000


class Model:
    """Streams of some users, and the batches under way; a batch ends after what it depends on."""

    def __init__(self) -> None:
        self.waiting: dict[int, deque[tuple[int, int, int]]] = {}  # uid, bytes, number
        self.under_way: list[tuple[Lane, dict[int, list[tuple[int, int, int]]]]] = []
        self.done: dict[int, list[int]] = {}
        self.numbers: Counter[int] = Counter()

    def add(self, stream: int, uid: int, size: int) -> None:
        self.numbers[stream] += 1
        self.waiting.setdefault(stream, deque()).append((uid, size, self.numbers[stream]))

    @property
    def pending_bytes(self) -> Counter[int]:
        found: Counter[int] = Counter()
        taken = [entries for _, batch in self.under_way for entries in batch.values()]
        for entries in (*self.waiting.values(), *taken):
            for uid, size, _ in entries:
                found[uid] += size
        return found

    def start_all(self) -> None:
        for lane in Lane:
            while self._may_start(lane) and (batch := self._take(lane)):
                self.under_way.append((lane, batch))

    def _may_start(self, lane: Lane) -> bool:
        own = sum(each is lane for each, _ in self.under_way)
        waiting_bytes = sum(size for entries in self.waiting.values() for _, size, _ in entries)
        return may_start(
            own,
            len(self.under_way) - own,
            is_due=True,
            is_enough=waiting_bytes >= ENOUGH_BYTES,
            is_shared=len(self.pending_bytes) > 1,
        )

    def _take(self, lane: Lane) -> dict[int, list[tuple[int, int, int]]]:
        owners = [entries[0][0] for entries in self.waiting.values()]
        large = large_users(self.pending_bytes, lambda: owners, len(owners), max_batch=MAX_BATCH)
        batch = {}
        for stream, entries in list(self.waiting.items()):
            follows_large = any(
                each is Lane.LARGE and stream in taken for each, taken in self.under_way
            )
            users = (uid for uid, _, _ in entries)
            if lane_of(users, large, follows_large=follows_large) is lane:
                batch[stream] = list(self.waiting.pop(stream))
        return batch

    def depends(self, position: int) -> list[int]:
        streams = self.under_way[position][1].keys()
        return [
            before
            for before in range(position)
            if not streams.isdisjoint(self.under_way[before][1].keys())
        ]

    def end_one(self, choice: int) -> None:
        free = [each for each in range(len(self.under_way)) if not self.depends(each)]
        if free:
            _, batch = self.under_way.pop(free[choice % len(free)])
            for stream, entries in batch.items():
                self.done.setdefault(stream, []).extend(number for _, _, number in entries)


steps = st.lists(
    st.one_of(
        st.tuples(st.integers(0, 30), uids, st.sampled_from([10, 100, 900, 5_000])),
        st.integers(0, 9),
    ),
    max_size=120,
)


@given(steps)
def test_nothing_starves_everything_keeps_its_order_and_the_batches_are_bounded(
    steps: list[tuple[int, int, int] | int],
) -> None:
    model = Model()
    for step in steps:
        if isinstance(step, int):
            model.end_one(step)
        else:
            model.add(*step)
        model.start_all()
        lanes = Counter(lane for lane, _ in model.under_way)
        assert all(lanes[lane] <= UNDER_WAY_MAX for lane in Lane)
        # Whatever waits has a batch under way whose end starts the next one of its lane.
        assert model.under_way or not model.waiting
        for position, (lane, _) in enumerate(model.under_way):
            before = {model.under_way[each][0] for each in model.depends(position)}
            assert lane is Lane.LARGE or Lane.LARGE not in before
    while model.under_way:
        model.end_one(0)
        model.start_all()
    assert not model.waiting
    for stream, count in model.numbers.items():
        assert model.done[stream] == list(range(1, count + 1))


@pytest.mark.parametrize("much", [3 * SMALL_BYTES, 3 * ENOUGH_BYTES])
def test_one_record_has_a_batch_at_once_however_much_of_others_is_under_way(much: int) -> None:
    model = Model()
    for _ in range(10):
        model.add(1, 1, much)
        model.start_all()
    model.add(2, 2, 10)
    model.start_all()
    assert model.under_way[-1] == (Lane.SMALL, {2: [(2, 10, 1)]})
    assert not model.depends(len(model.under_way) - 1)
