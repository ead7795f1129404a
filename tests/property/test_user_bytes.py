"""What headers say of the bytes of each user, however a stream is written, merged and cut."""

from collections import Counter

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from logengine.format.segment import Header, UserBytes, decode_header
from logengine.format.user_bytes import stored_bytes_of
from logengine.store.plan import Addition, StreamState, append, state_after, with_active
from logengine.upkeep.compaction_plan import merged_header

TIME = "2026-11-23T20:00:00.000001Z"
MANY = 100

LIMIT = 40

sizes = st.dictionaries(st.integers(0, 3), st.integers(2, 60), max_size=2)
commits = st.tuples(st.just("commit"), sizes)
others = st.tuples(
    st.sampled_from(["merge", "remove", "restart", "evict", "stop counting", "count"]),
    st.integers(0, 9),
)
lives = st.lists(st.one_of(commits, commits, commits, others), min_size=5, max_size=60)


class Stream:
    """A stream as its segments' headers, and what each user really has in each of them."""

    def __init__(self, users_max: int) -> None:
        self.users_max = users_max
        self.state = StreamState("app")
        self.headers: dict[int, Header] = {}
        self.bodies: dict[int, bytes] = {}
        self.truth: dict[int, Counter[int]] = {}
        self.counts = True

    def commit(self, sizes: dict[int, int]) -> None:
        lines = b"".join(b"x" * (size - 1) + b"\n" for size in sizes.values())
        plan, self.state = append(
            self.state,
            Addition([lines], len(sizes), TIME, TIME, users=sizes if self.counts else UNSET),
            rewrite_limit=LIMIT,
            max_producers=1,
            max_users=self.users_max,
        )
        head, *pieces = plan.render()
        self.headers[plan.first] = decode_header(head, "file")
        self.bodies[plan.first] = b"".join(pieces)
        # What was begun under this name and is empty, or active, is in it once more.
        truth = self.truth.setdefault(plan.first, Counter())
        if self.counts:
            truth.update(sizes)

    def merge(self, place: int) -> None:
        ended = [first for first in self.headers if first != max(self.headers)]
        at = place % max(1, len(ended))
        parts = ended[at : at + 2 + place % 3]
        if len(parts) < 2:
            return
        merged = merged_header([self.headers[first] for first in parts], "0" * 64)
        self.headers[parts[0]] = merged
        for first in parts[1:]:
            del self.headers[first]
            self.truth[parts[0]] += self.truth.pop(first)

    def remove(self) -> None:
        if len(self.headers) > 1:
            oldest = min(self.headers)
            del self.headers[oldest], self.truth[oldest]

    def restart(self, place: int) -> None:
        if self.headers:
            newest = max(self.headers)
            header, body = self.headers[newest], self.bodies[newest]
            self.state = state_after(header)
            if place % 2 and len(body) < LIMIT:
                self.state = with_active(self.state, header, body)

    def known(self) -> dict[int, int]:
        oldest = self.headers[min(self.headers)].users if self.headers else UNSET
        return stored_bytes_of(self.state.users, oldest)

    def stored(self) -> Counter[int]:
        total: Counter[int] = Counter()
        for truth in self.truth.values():
            total += truth
        return total


def lived(life: list[tuple[str, dict[int, int] | int]], users_max: int) -> Stream:
    stream = Stream(users_max)
    for step, value in life:
        if isinstance(value, dict):
            stream.commit(value)
        elif step == "merge":
            stream.merge(value)
        elif step == "remove":
            stream.remove()
        elif step == "restart":
            stream.restart(value)
        elif step == "evict":
            stream.state = stream.state.without_active()
        else:
            stream.counts = step == "count"
    return stream


@given(lives)
def test_two_headers_tell_what_is_stored_of_each_user(
    life: list[tuple[str, dict[int, int] | int]],
) -> None:
    stream = lived(life, MANY)
    known = {uid: size for uid, size in stream.known().items() if size}
    assert known == dict(stream.stored())


@given(lives, st.integers(1, 2))
def test_of_who_was_forgotten_less_is_known_and_never_more(
    life: list[tuple[str, dict[int, int] | int]], users_max: int
) -> None:
    stream = lived(life, users_max)
    stored = stream.stored()
    assert all(0 <= size <= stored[uid] for uid, size in stream.known().items())
    assert all(len(header.users or {}) <= users_max for header in stream.headers.values())


@given(lives)
def test_what_was_before_a_segment_never_goes_back(
    life: list[tuple[str, dict[int, int] | int]],
) -> None:
    stream = lived(life, MANY)
    before: dict[int, UserBytes] = {}
    for _, header in sorted(stream.headers.items()):
        users = header.users or {}
        assert before.keys() <= users.keys()
        for uid, each in before.items():
            assert users[uid].before == each.before + each.own
        before = users


def header_with(users: dict[int, UserBytes]) -> Header:
    stream = Stream(MANY)
    stream.commit({0: 2})
    return msgspec.structs.replace(stream.headers[1], users=users)


def test_a_merge_says_of_who_was_forgotten_in_it_what_was_counted_since() -> None:
    first = header_with({1: UserBytes(5000, 10), 2: UserBytes(7, 3)})
    between = header_with({2: UserBytes(10, 5)})
    last = header_with({2: UserBytes(15, 0), 1: UserBytes(0, 300)})
    merged = merged_header([first, between, last], "0" * 64).users
    assert merged == {2: UserBytes(7, 8), 1: UserBytes(0, 300)}
    forgotten_within = header_with({1: UserBytes(0, 20)})
    merged = merged_header([first, forgotten_within], "0" * 64).users
    assert merged == {1: UserBytes(0, 20)}


def test_who_was_forgotten_since_the_oldest_has_what_was_counted_since() -> None:
    assert stored_bytes_of({1: UserBytes(0, 300)}, {1: UserBytes(5000, 10)}) == {1: 300}
    assert stored_bytes_of({1: UserBytes(0, 300)}, UNSET) == {1: 300}
    assert stored_bytes_of(UNSET, {1: UserBytes(5000, 10)}) == {}


def test_the_least_recently_active_users_are_forgotten_first() -> None:
    stream = Stream(users_max=2)
    for uid in (1, 2, 1, 3):
        stream.commit({uid: 10})
    assert list(stream.headers[1].users or {}) == [1, 3]


def test_a_stream_whose_users_are_not_counted_says_nothing_of_them() -> None:
    stream = Stream(users_max=2)
    stream.counts = False
    stream.commit({1: 10})
    assert b"users" not in msgspec.json.encode(stream.headers[1])
    assert stream.known() == {}
