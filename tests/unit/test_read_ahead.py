"""What is read ahead comes in order, is bounded, and ends when it is let go of."""

import threading
from collections.abc import Iterator

import pytest

from logengine.reading.read_ahead import ReadAhead
from tests.daemon import eventually
from tests.reading.forked import FORKED, said_by_child

LARGE = 1024 * 1024


class Source:
    """Items that are as large as is said, and which of them were read."""

    def __init__(self, size: int = LARGE) -> None:
        self.size = size
        self.read: list[int] = []

    def __call__(self, key: int) -> int:
        self.read.append(key)
        if key == 13:
            raise OSError(key, "cannot be read")
        return key

    def size_of(self, item: int) -> int:
        return self.size

    def ahead(self, keys: range) -> ReadAhead[int]:
        return ReadAhead(keys, self, self.size_of)


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = threading.active_count()
    yield
    eventually(lambda: threading.active_count() <= before, "the threads to end")


def test_each_key_is_read_once_and_given_in_order() -> None:
    source = Source()
    ahead = source.ahead(range(100, 200))
    assert [ahead.take(key) for key in range(100, 200)] == list(range(100, 200))
    ahead.close()
    assert sorted(source.read) == list(range(100, 200))


@pytest.mark.parametrize("size", [LARGE, 100 * LARGE])
def test_no_more_is_read_ahead_than_has_room(size: int) -> None:
    source = Source(size)
    ahead = source.ahead(range(100, 200))
    ahead.take(100)
    # Two that are larger than all the room may be under way at once.
    wanted = 9 if size == LARGE else 2
    eventually(lambda: len(source.read) >= wanted)
    ahead.take(101)
    eventually(lambda: len(source.read) >= wanted + 1)
    ahead.close()
    assert len(source.read) <= (10 if size == LARGE else 4)


def test_a_forked_child_does_not_wait_for_the_threads_of_its_parent() -> None:
    ahead = Source().ahead(range(100, 200))
    ahead.take(100)
    assert said_by_child(lambda: ahead.take(150)) == FORKED
    with ahead._changed:  # as a thread may at the fork
        assert said_by_child(ahead.close) == "None"
    assert ahead.take(150) == 150
    ahead.close()


def test_small_items_are_read_when_they_are_taken() -> None:
    source = Source(1000)
    ahead = source.ahead(range(10))
    for key in range(10):
        assert ahead.take(key) == key
        assert source.read[-1] == key
    ahead.close()


def test_what_is_passed_by_is_let_go_of() -> None:
    ahead = Source().ahead(range(100, 200))
    for key in (100, 101, 105, 130, 131, 199):
        assert ahead.take(key) == key
    ahead.close()


def test_what_is_passed_by_takes_no_memory() -> None:
    source = Source()
    ahead = source.ahead(range(100, 200))
    ahead.take(100)
    eventually(lambda: len(ahead._items) == 8, "all that has room")
    assert ahead.take(108) == 108
    with ahead._changed:
        assert all(100 + index > 108 for index in ahead._items)
        assert ahead._bytes == len(ahead._items) * LARGE
    ahead.close()


def test_a_key_that_was_passed_is_read_anew() -> None:
    source = Source()
    ahead = source.ahead(range(100, 200, 2))
    for key in (100, 110, 100, 103, 112):
        assert ahead.take(key) == key
    ahead.close()


def test_an_error_comes_to_whoever_takes_it_and_the_rest_goes_on() -> None:
    ahead = Source().ahead(range(10, 20))
    taken: list[int] = []
    for key in range(10, 20):
        if key == 13:
            with pytest.raises(OSError, match="cannot be read"):
                ahead.take(key)
        else:
            taken.append(ahead.take(key))
    assert taken == [10, 11, 12, 14, 15, 16, 17, 18, 19]
    ahead.close()
