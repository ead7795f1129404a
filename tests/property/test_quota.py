"""No pattern of sending gets more through than a burst and the rate."""

from hypothesis import given
from hypothesis import strategies as st

from logengine.quota import Quota, Quotas

Chunk = tuple[float, list[int]]
chunks = st.lists(st.tuples(st.floats(0, 5), st.lists(st.integers(0, 40), min_size=1)), max_size=30)
TOLERANCE = 1e-6


@given(st.integers(1, 50), st.integers(1, 200), st.floats(0.1, 5), chunks)
def test_what_passes_is_within_burst_and_rate_and_the_rest_is_counted(
    records_per_s: int, bytes_per_s: int, burst_s: float, sent: list[Chunk]
) -> None:
    quota = Quota(records_per_s, bytes_per_s, burst_s, "drop")
    quotas = Quotas(quota, Quota(), {}, {})
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
    quotas = Quotas(Quota(records_per_s=rate, burst_s=burst_s), Quota(), {}, {})
    quotas.admit("app", 1, b"x\n" * taken, taken, 0)
    wait_s = quotas.wait_s("app", 1, 0)
    if wait_s:
        assert quotas.wait_s("app", 1, wait_s * 0.9) > 0
    assert quotas.room("app", 1, wait_s)[0] >= 1 - TOLERANCE
