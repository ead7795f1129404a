"""No pattern of sending gets more through than a burst and the rate."""

from hypothesis import given
from hypothesis import strategies as st

from logengine.intake.quota import QuotaConfig, Quotas

Chunk = tuple[float, list[int]]
chunks = st.lists(st.tuples(st.floats(0, 5), st.lists(st.integers(0, 40), min_size=1)), max_size=30)
TOLERANCE = 1e-6


@given(st.integers(1, 50), st.integers(1, 200), st.floats(0.1, 5), chunks)
def test_what_passes_is_within_burst_and_rate_and_the_rest_is_counted(
    records_per_s: int, bytes_per_s: int, burst_s: float, sent: list[Chunk]
) -> None:
    quota = QuotaConfig(
        records_per_s=records_per_s, bytes_per_s=bytes_per_s, burst=burst_s, over="drop"
    )
    quotas = Quotas(quota, QuotaConfig(), {}, {})
    now_s = 0.0
    records = passed = passed_bytes = largest = 0
    for pause_s, sizes in sent:
        now_s += pause_s
        body = b"".join(b"x" * size + b"\n" for size in sizes)
        admitted = quotas.admit("app", 1, body, len(sizes), now_s)
        assert body.startswith(admitted.body)
        assert admitted.body.count(b"\n") == admitted.records
        assert (admitted.over is None) == (admitted.records == len(sizes))
        records += len(sizes)
        passed += admitted.records
        passed_bytes += len(admitted.body)
        largest = max(largest, *(size + 1 for size in sizes))
    assert passed <= max(1, records_per_s * burst_s) + records_per_s * now_s + TOLERANCE
    # A record larger than a burst passes a full bucket, and leaves a debt.
    most = max(1, bytes_per_s * burst_s) + bytes_per_s * now_s + largest
    assert passed_bytes <= most + TOLERANCE
    assert sum(dropped.records for dropped in quotas.take_dropped()) == records - passed


@given(st.integers(1, 50), st.floats(0.1, 5), st.integers(1, 60))
def test_who_waits_as_long_as_told_may_go_on(rate: int, burst_s: float, taken: int) -> None:
    quotas = Quotas(QuotaConfig(records_per_s=rate, burst=burst_s), QuotaConfig(), {}, {})
    quotas.admit("app", 1, b"x\n" * taken, taken, 0)
    wait_s = quotas.wait_s("app", 1, 0)
    if wait_s:
        assert quotas.wait_s("app", 1, wait_s * 0.9) > 0
    assert quotas.room("app", 1, wait_s)[0] >= 1 - TOLERANCE


looks = st.one_of(
    st.tuples(st.sampled_from("ab"), st.integers(1, 3), st.lists(st.integers(0, 40), min_size=1)),
    st.tuples(st.sampled_from("ab"), st.just(0), st.floats(0, 1)),
)


@given(st.integers(1, 300), st.integers(1, 300), st.lists(looks, max_size=30))
def test_what_is_stored_is_within_its_space_and_what_was_removed_makes_room(
    stream_max: int, user_max: int, steps: list[tuple[str, int, list[int] | float]]
) -> None:
    quotas = Quotas(
        QuotaConfig(max_bytes=stream_max, over="drop"),
        QuotaConfig(max_bytes=user_max, over="drop"),
        {},
        {},
    )
    disk: dict[str, list[tuple[int, int]]] = {"a": [], "b": []}
    sent = dropped = 0
    for stream, uid, value in steps:
        stored = disk[stream]
        if not isinstance(value, list):
            del stored[: int(len(stored) * value)]
            quotas.stored.saw_stream(stream, sum(size for _, size in stored))
            users = {uid for uid, _ in stored}
            seen = {user: sum(size for uid, size in stored if uid == user) for user in users}
            quotas.stored.saw_users(stream, seen)
            continue
        body = b"".join(b"x" * size + b"\n" for size in value)
        admitted = quotas.admit(stream, uid, body, len(value), 0)
        stored += [(uid, len(line)) for line in admitted.body.splitlines(keepends=True)]
        sent += len(value)
        dropped += len(value) - admitted.records
        # No more than fits is taken, and no less: the first one that was dropped would not fit.
        in_stream = sum(size for _, size in stored)
        in_all = sum(size for each in disk.values() for user, size in each if user == uid)
        assert in_stream <= stream_max
        assert in_all <= user_max
        if admitted.over is not None:
            more = value[admitted.records] + 1
            assert in_stream + more > stream_max or in_all + more > user_max
    assert sum(each.records for each in quotas.take_dropped()) == dropped
