"""What is kept no longer, and in which order it goes."""

from collections.abc import Mapping

import pytest

from logengine.upkeep.retention_plan import (
    Oldest,
    RetentionRule,
    RetentionRules,
    StreamUse,
    next_removal,
)

CUTOFFS = {10.0: "2026-11-20", 20.0: "2026-11-10"}


def use(stream: str, size: int, until: str = "2026-11-15", last: int = 9) -> StreamUse:
    return StreamUse(stream, size, Oldest("1.ndjson.zst", last, size // 2, until))


def going(
    uses: list[StreamUse],
    rules: RetentionRules,
    free: int = 0,
    cursors: Mapping[str, Mapping[str, int]] | None = None,
) -> tuple[str, str, tuple[str, ...]] | None:
    removal = next_removal(uses, rules, CUTOFFS, free, cursors or {})
    return (removal.stream, removal.reason, tuple(removal.passed_over)) if removal else None


def test_without_a_rule_all_stays() -> None:
    assert going([use("app", 10**12)], RetentionRules()) is None


def test_what_is_too_old_goes() -> None:
    rules = RetentionRules(default=RetentionRule(max_age=10.0))
    assert going([use("app", 1), use("web", 1, "2026-11-21")], rules) == ("app", "max_age", ())
    assert going([use("web", 1, "2026-11-21")], rules) is None


def test_a_stream_has_a_rule_of_its_own() -> None:
    rules = RetentionRules(
        default=RetentionRule(max_age=10.0),
        streams={"audit": RetentionRule(max_bytes=100, max_age=20.0)},
    )
    assert going([use("audit", 100)], rules) is None
    assert going([use("audit", 101)], rules) == ("audit", "max_bytes", ())


def test_of_all_streams_together_the_oldest_records_go_first() -> None:
    rules = RetentionRules(max_bytes=100)
    uses = [use("app", 60, "2026-11-03"), use("web", 41, "2026-11-02")]
    assert going(uses, rules) == ("web", "max_bytes of all streams", ())
    assert going([use("app", 60), use("web", 40)], rules) is None


def test_what_a_cursor_has_not_passed_stays_unless_the_disk_is_full() -> None:
    cursors = {"app": {"relay": 8, "other": 9}}
    rules = RetentionRules(
        max_bytes=1, keep_free=50, default=RetentionRule(max_bytes=1, max_age=10.0), streams={}
    )
    assert going([use("app", 100)], rules, free=50, cursors=cursors) is None
    assert going([use("app", 100)], rules, free=49, cursors=cursors) == (
        "app",
        "keep_free",
        ("relay",),
    )
    assert going([use("app", 100)], rules, 50, {"app": {"relay": 9}}) is not None


def test_a_full_disk_takes_what_was_read_before_what_was_not() -> None:
    rules = RetentionRules(keep_free=50)
    uses = [use("app", 100, "2026-11-01"), use("web", 100, "2026-11-02")]
    cursors = {"app": {"relay": 1}}
    assert going(uses, rules, 10, cursors) == ("web", "keep_free", ())


@pytest.mark.parametrize("free", [0, 100])
def test_a_stream_of_which_nothing_may_go_keeps_all(free: int) -> None:
    rules = RetentionRules(1, 50, RetentionRule(max_bytes=1, max_age=10.0))
    assert going([StreamUse("app", 100, None)], rules, free) is None
