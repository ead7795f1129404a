"""The queue between a thread that follows and a page that takes."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from logengine.format.block import Block
from logengine.reading import Batch, Filter, Problem, Report
from logengine.web.live import _WAITING_RECORDS_MAX, LiveFeed
from tests.reading.streams import line


class Follows:
    """Stands in for a `Following`: these batches, and then the end."""

    def __init__(self, *batches: Batch) -> None:
        self._batches = batches
        self.report: Report | None = None

    def follow(self, report: Report) -> Any:
        self.report = report
        return self

    def batches(self) -> Iterator[Batch]:
        assert self.report is not None
        self.report(Problem("app", "something is gone"))
        yield from self._batches

    def stop(self) -> None:
        pass


def batch(first: int, count: int) -> Batch:
    body = b"".join(line(n, n % 60) + b"\n" for n in range(first, first + count))
    return Batch(Block("app", first, count, body), {})


def ended(feed: LiveFeed) -> LiveFeed:
    feed.start()
    deadline = time.monotonic() + 20
    while not feed.is_ended:
        assert time.monotonic() < deadline
    return feed


def do_nothing() -> None:
    pass


def test_a_page_gets_what_the_filter_chooses_and_what_is_gone() -> None:
    feed = ended(LiveFeed(Follows(batch(1, 5)).follow, Filter.of("n > 3"), do_nothing))
    items = feed.take(100).items
    assert [str(each) for each in items[:1]] == ["app: something is gone"]
    assert [getattr(each, "seq", None) for each in items[1:]] == [4, 5]
    assert not feed.has_more


def test_a_slow_page_learns_how_many_it_missed_and_where_to_read_them() -> None:
    count = 3 * _WAITING_RECORDS_MAX
    changes: list[int] = []
    changed: Callable[[], None] = lambda: changes.append(1)  # noqa: E731
    feed = ended(LiveFeed(Follows(batch(7, count)).follow, Filter(), changed))
    arrived = feed.take(10**9)
    assert len(arrived.items) == _WAITING_RECORDS_MAX
    assert arrived.dropped == count + 1 - _WAITING_RECORDS_MAX
    assert arrived.dropped_from == {"app": 7}
    assert feed.take(10**9).dropped == 0
    assert changes
