"""Who may send how much, and what becomes of more."""

from math import inf

import pytest

from logengine.intake.quota import SCAN_EVERY_S, Dropped, QuotaConfig, Quotas, TokenBucket
from logengine.units import RecordsPerSecond, Size

FREE = QuotaConfig()
APP, USER = "app", 1000


def of_streams(quota: QuotaConfig, **streams: QuotaConfig) -> Quotas:
    return Quotas(quota, FREE, streams, {})


def of_users(quota: QuotaConfig, users: dict[int, QuotaConfig] | None = None) -> Quotas:
    return Quotas(FREE, quota, {}, users or {})


def body(*lines: bytes) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def test_a_bucket_fills_at_its_rate_up_to_a_burst() -> None:
    bucket = TokenBucket(10, 2, now_s=100)
    assert bucket.tokens(100) == 20
    bucket.take(20, 100)
    assert bucket.tokens(100.5) == 5
    assert bucket.tokens(1000) == 20


def test_a_debt_is_paid_before_anything_can_be_taken() -> None:
    bucket = TokenBucket(10, 1, now_s=0)
    bucket.take(30, 0)
    assert bucket.wait_s(0) == pytest.approx(2.1)
    assert bucket.wait_s(2.1) == 0


def test_a_clock_that_stands_or_goes_back_gives_no_tokens() -> None:
    bucket = TokenBucket(10, 1, now_s=100)
    bucket.take(10, 100)
    assert bucket.tokens(100) == bucket.tokens(50) == 0
    assert bucket.tokens(100.1) == pytest.approx(1)


def test_without_a_rate_there_is_no_end() -> None:
    bucket = TokenBucket(0, 1, now_s=0)
    bucket.take(10**12, 0)
    assert bucket.tokens(0) == inf
    assert bucket.wait_s(0) == 0


def test_a_rate_below_one_record_in_a_burst_still_lets_one_pass() -> None:
    bucket = TokenBucket(1, 0.001, now_s=0)
    assert bucket.tokens(0) == 1


def test_who_blocks_is_never_dropped_and_waits_for_what_it_took() -> None:
    quotas = of_streams(QuotaConfig(records_per_s=10))
    lines = body(*[b"x"] * 30)
    assert quotas.admit(APP, USER, lines, 30, 0) == (lines, 30, None)
    assert quotas.wait_s(APP, USER, 0) == pytest.approx(2.1)
    assert quotas.wait_s("other", USER, 0) == 0
    assert quotas.take_dropped() == []


def test_who_drops_is_never_kept_waiting_and_loses_the_end_of_what_it_sent() -> None:
    quotas = of_streams(QuotaConfig(records_per_s=2, over="drop"))
    admitted = quotas.admit(APP, USER, body(b"a", b"bb", b"ccc"), 3, 0)
    assert admitted == (body(b"a", b"bb"), 2, "stream")
    assert quotas.wait_s(APP, USER, 0) == 0
    assert quotas.take_dropped() == [Dropped(APP, USER, "stream", "records_per_s", 1, 4)]
    assert quotas.take_dropped() == []


def test_bytes_are_counted_as_records_are() -> None:
    quotas = of_streams(QuotaConfig(bytes_per_s=10, over="drop"))
    assert quotas.admit(APP, USER, body(b"1234", b"1234", b"1"), 3, 0).records == 2
    assert quotas.admit(APP, USER, body(b"1234"), 1, 0.4).records == 0
    assert quotas.admit(APP, USER, body(b"1234"), 1, 0.5).records == 1


def test_a_record_larger_than_a_burst_passes_a_full_bucket_alone() -> None:
    quotas = of_streams(QuotaConfig(bytes_per_s=10, over="drop"))
    large = b"x" * 100
    assert quotas.admit(APP, USER, body(large, b"1"), 2, 0).records == 1
    assert quotas.admit(APP, USER, body(b"1"), 1, 9).records == 0
    assert quotas.admit(APP, USER, body(b"1"), 1, 10).records == 1


def test_a_carriage_return_ends_no_record() -> None:
    quotas = of_streams(QuotaConfig(records_per_s=1, over="drop"))
    lines = body(b'{"a":\r1}', b"{}")
    assert quotas.admit(APP, USER, lines, 2, 0) == (body(b'{"a":\r1}'), 1, "stream")


def test_a_user_has_one_quota_for_all_streams() -> None:
    quotas = of_users(QuotaConfig(records_per_s=2, over="drop"))
    assert quotas.admit("a", USER, body(b"1"), 1, 0).over is None
    assert quotas.admit("b", USER, body(b"1", b"2"), 2, 0) == (body(b"1"), 1, "uid")
    assert quotas.admit("a", USER + 1, body(b"1"), 1, 0).over is None
    assert quotas.take_dropped() == [Dropped("b", USER, "uid", "records_per_s", 1, 2)]


def test_what_one_quota_drops_takes_nothing_of_another() -> None:
    quotas = Quotas(
        QuotaConfig(records_per_s=10), QuotaConfig(records_per_s=1, over="drop"), {}, {}
    )
    quotas.admit(APP, USER, body(*[b"x"] * 100), 100, 0)
    assert quotas.wait_s(APP, USER, 0) == 0
    assert quotas.room(APP, USER, 0)[0] == 9


def test_a_table_of_its_own_stands_for_itself() -> None:
    quotas = of_streams(QuotaConfig(records_per_s=1, over="drop"), free=FREE)
    assert quotas.admit("free", USER, body(b"1", b"2"), 2, 0).records == 2
    quotas = of_users(QuotaConfig(records_per_s=1, over="drop"), {0: FREE})
    assert quotas.admit(APP, 0, body(b"1", b"2"), 2, 0).records == 2


def test_only_quotas_that_limit_something_count() -> None:
    assert Quotas(FREE, FREE, {"a": FREE}, {0: FREE}).limits_nothing
    assert not Quotas(FREE, FREE, {"a": QuotaConfig(bytes_per_s=1)}, {}).limits_nothing


def test_users_who_may_send_a_whole_burst_are_forgotten() -> None:
    quotas = of_users(QuotaConfig(records_per_s=1, over="drop"))
    for uid in range(10_000):
        quotas.admit(APP, uid, body(b"1"), 1, now_s=uid)
    assert len(quotas._of_users) <= 4096
    assert quotas.admit(APP, 9_999, body(b"1"), 1, now_s=9_999).records == 0


# What may be stored in all.


def test_who_has_no_space_left_and_blocks_waits_until_some_is_seen() -> None:
    quotas = of_streams(QuotaConfig(max_bytes=10))
    assert quotas.room(APP, USER, 0)[1] == 10
    lines = body(*[b"x"] * 6)
    assert quotas.admit(APP, USER, lines, 6, 0) == (lines, 6, None)
    assert quotas.wait_s(APP, USER, 0) == quotas.wait_s(APP, USER, 1000) == SCAN_EVERY_S
    assert quotas.wait_s("other", USER, 0) == 0
    assert quotas.without_space() == ([APP], [])
    quotas.stored.saw_stream(APP, 9)
    assert quotas.wait_s(APP, USER, 0) == 0
    assert quotas.room(APP, USER, 0)[1] == 1
    assert quotas.without_space() == ([], [])


def test_what_finds_no_space_is_dropped_to_the_byte_and_told_of_by_its_limit() -> None:
    quotas = of_streams(QuotaConfig(max_bytes=10, over="drop"))
    assert quotas.admit(APP, USER, body(b"1234", b"1234", b"1"), 3, 0).records == 2
    assert quotas.admit(APP, USER, body(b""), 1, 0) == (b"", 0, "stream")
    assert quotas.wait_s(APP, USER, 0) == 0
    assert quotas.take_dropped() == [Dropped(APP, USER, "stream", "max_bytes", 2, 3)]


def test_a_record_larger_than_all_the_space_never_passes() -> None:
    quotas = of_streams(QuotaConfig(max_bytes=10, over="drop"))
    assert quotas.admit(APP, USER, body(b"x" * 10), 1, 0).records == 0


def test_each_limit_is_told_of_by_itself() -> None:
    quotas = of_streams(QuotaConfig(records_per_s=2, max_bytes=4, over="drop"))
    quotas.admit(APP, USER, body(b"1", b"1", b"1"), 3, 0)
    quotas.admit(APP, USER, body(b"1"), 1, 1)
    limits = [(dropped.limit, dropped.records) for dropped in quotas.take_dropped()]
    assert limits == [("records_per_s", 1), ("max_bytes", 1)]


def test_a_user_has_one_space_in_all_streams() -> None:
    quotas = of_users(QuotaConfig(max_bytes=4, over="drop"))
    assert quotas.admit("a", USER, body(b"1"), 1, 0).over is None
    assert quotas.admit("b", USER, body(b"1", b"2"), 2, 0) == (body(b"1"), 1, "uid")
    assert quotas.admit("b", USER + 1, body(b"1"), 1, 0).over is None
    assert quotas.without_space() == ([], [USER])
    quotas.stored.saw_users("a", {})
    assert quotas.admit("b", USER, body(b"1"), 1, 0).over is None


def test_nothing_is_counted_where_nobody_has_a_max_bytes() -> None:
    quotas = Quotas(QuotaConfig(bytes_per_s=100), QuotaConfig(bytes_per_s=100), {}, {})
    quotas.admit(APP, USER, body(b"1"), 1, 0)
    assert not quotas.limits_space
    assert (quotas.stored.streams, quotas.stored.users) == ({}, {})


def test_only_whoever_is_near_the_end_of_the_space_is_to_be_looked_at() -> None:
    quotas = Quotas(FREE, QuotaConfig(max_bytes=100), {APP: QuotaConfig(max_bytes=50)}, {})
    for stream, uid, size in ((APP, 1, 20), ("b", 1, 20), ("b", 2, 90), ("c", 3, 20)):
        quotas.admit(stream, uid, body(b"x" * (size - 1)), 1, 0)
        quotas.wait_s(stream, uid, 0)
    assert quotas.stored.take_near() == (set(), {"b"})
    assert not quotas.stored.anybody_is_near
    quotas.admit(APP, 1, body(b"x" * 29), 1, 0)
    quotas.wait_s(APP, 1, 0)
    assert quotas.stored.take_near() == ({APP}, set())


def test_what_is_not_stored_takes_tokens_of_a_quota_that_blocks_even_into_debt() -> None:
    quotas = of_users(QuotaConfig(records_per_s=RecordsPerSecond(10), bytes_per_s=Size(1000)))
    quotas.charge(APP, USER, 30, 100, 0)
    assert quotas.wait_s(APP, USER, 0) == pytest.approx(2.1)
    assert quotas.wait_s(APP, USER + 1, 0) == 0


def test_what_is_not_stored_takes_only_the_tokens_left_of_a_quota_that_drops() -> None:
    quotas = of_users(QuotaConfig(records_per_s=RecordsPerSecond(10), over="drop"))
    quotas.charge(APP, USER, 10**6, 0, 0)
    assert quotas.admit(APP, USER, body(b"a"), 1, 0).records == 0
    # A second later as many may pass as ever.
    assert quotas.admit(APP, USER, body(*[b"a"] * 10), 10, 1).records == 10
