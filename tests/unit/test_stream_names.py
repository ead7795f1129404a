"""A hello takes a name for as long as it is used; a record, for good."""

import pytest

from logengine.errors import TooManyStreams
from logengine.intake.shares import Rule, Shares
from logengine.intake.stream_names import StreamNames

ROOT, ONE, TWO = 0, 1000, 1001


class Store:
    """Streams, some of them with records, and queues."""

    def __init__(self, *stored: str) -> None:
        self.generation = 0
        self.stored = set(stored)
        self.empty: set[str] = set()
        self.waiting: set[str] = set()

    @property
    def known(self) -> frozenset[str]:
        return frozenset(self.stored | self.empty)

    def is_known(self, stream: str) -> bool:
        return stream in self.known

    def forget_unused(self, stream: str) -> bool:
        self.empty.discard(stream)
        return stream not in self.stored

    def is_waiting(self, stream: str) -> bool:
        return stream in self.waiting


def names_of(store: Store, streams_max: int = 4, reserved: int = 0) -> StreamNames:
    shares = Shares(Rule(streams_max, reserved), {ROOT})
    return StreamNames(store, store, shares, streams_max)


def test_a_name_is_free_again_when_its_last_connection_has_gone() -> None:
    names = names_of(Store(), streams_max=1)
    names.take("a", "app", ONE)
    names.take("b", "app", TWO)
    names.give_back("a")
    with pytest.raises(TooManyStreams, match="1 of max_streams"):
        names.take("c", "other", TWO)
    names.give_back("b")
    names.give_back("b")
    names.take("c", "other", TWO)


def test_a_name_is_not_free_while_records_wait() -> None:
    store = Store()
    names = names_of(store, streams_max=1)
    names.take("a", "app", ONE)
    store.empty.add("app")
    store.waiting.add("app")
    names.give_back("a")
    names.look_again()
    with pytest.raises(TooManyStreams):
        names.take("b", "other", ONE)
    store.waiting.clear()
    names.look_again()
    assert not store.known
    names.take("b", "other", ONE)


def test_a_name_whose_first_record_is_durable_stays() -> None:
    store = Store()
    names = names_of(store, streams_max=1)
    names.take("a", "app", ONE)
    store.stored.add("app")
    names.give_back("a")
    names.take("b", "app", TWO)
    with pytest.raises(TooManyStreams):
        names.take("c", "other", ONE)


def test_a_stream_that_is_there_costs_nobody_anything() -> None:
    names = names_of(Store("one", "two"), streams_max=2)
    names.take("a", "one", ONE)
    with pytest.raises(TooManyStreams):
        names.take("b", "three", ROOT)


def test_the_stream_of_a_listener_can_always_be_begun() -> None:
    names = names_of(Store(), streams_max=1)
    names.keep("default")
    names.take("a", "app", ONE)
    with pytest.raises(TooManyStreams):
        names.take("b", "other", ONE)
    names.take("b", "default", ONE)


def test_the_reserve_is_for_root() -> None:
    names = names_of(Store("one"), streams_max=4, reserved=2)
    names.take("a", "two", ONE)
    with pytest.raises(TooManyStreams):
        names.take("b", "three", TWO)
    names.take("c", "three", ROOT)
    names.take("d", "four", ROOT)
    with pytest.raises(TooManyStreams):
        names.take("e", "five", ROOT)


def test_in_another_directory_only_what_is_there_or_in_use_counts() -> None:
    store = Store("old")
    names = names_of(store, streams_max=3)
    names.take("a", "app", ONE)
    store.stored.add("app")
    names.give_back("a")
    names.take("b", "used", ONE)
    with pytest.raises(TooManyStreams):
        names.take("c", "other", ONE)
    store.stored.clear()
    store.generation += 1
    names.take("c", "other", ONE)
    names.take("d", "another", ONE)
    with pytest.raises(TooManyStreams):
        names.take("e", "one more", ONE)
