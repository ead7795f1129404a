"""The hand-over of records, interrupted wherever an application can be."""

import gc
import sys
import threading
from types import FrameType
from typing import Any

import pytest

from logengine.client.handover import Handover


def handover() -> Handover:
    return Handover(records_max=10**9, bytes_max=10**12)


def put(into: Handover, line: bytes) -> int:
    place: int = into.take(line)[1]
    return place


def test_places_are_those_of_the_order_in_which_the_lines_come_out() -> None:
    box = handover()
    assert [put(box, b"%d\n" % n) for n in range(1, 4)] == [1, 2, 3]
    assert box.taken == 3
    assert box.drain() == [b"1\n", b"2\n", b"3\n"]
    assert put(box, b"4\n") == 4
    assert box.drain() == [b"4\n"]


def interrupting(box: Handover, places: dict[bytes, int], every: int) -> Any:
    """A trace function that puts a line in at every so manieth bytecode of the hand-over's."""
    state = {"count": 0, "inside": False}

    def trace(frame: FrameType, event: str, _: object) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode" and not state["inside"]:
            state["count"] += 1
            if state["count"] % every == 0:
                state["inside"] = True
                line = b"within %d\n" % len(places)
                places[line] = put(box, line)
                state["inside"] = False
        return trace

    return trace


@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_a_record_put_in_at_any_bytecode_of_another_takes_its_own_place(every: int) -> None:
    box = handover()
    places: dict[bytes, int] = {}
    before = sys.gettrace()
    sys.settrace(interrupting(box, places, every))
    try:
        for n in range(200):
            line = b"outer %d\n" % n
            places[line] = put(box, line)
    finally:
        sys.settrace(before)
    assert len(places) > 250
    drained = box.drain()
    assert {line: place for place, line in enumerate(drained, 1)} == places


def test_a_record_put_in_while_others_are_taken_out_is_not_lost() -> None:
    box = handover()
    places: dict[bytes, int] = {}
    drained: list[bytes] = []
    before = sys.gettrace()
    for n in range(50):
        line = b"outer %d\n" % n
        places[line] = put(box, line)
        sys.settrace(interrupting(box, places, 31))
        try:
            drained += box.drain()
        finally:
            sys.settrace(before)
    drained += box.drain()
    assert {line: place for place, line in enumerate(drained, 1)} == places


def test_a_record_put_in_by_a_collection_takes_its_own_place() -> None:
    box = handover()
    places: dict[bytes, int] = {}

    class Session:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            line = b"del %d\n" % len(places)
            places[line] = put(box, line)

    thresholds = gc.get_threshold()
    gc.set_threshold(1)
    try:
        for n in range(2000):
            Session()
            line = b"outer %d\n" % n
            places[line] = put(box, line)
    finally:
        gc.set_threshold(*thresholds)
    assert len(places) > 3000
    drained = box.drain()
    assert {line: place for place, line in enumerate(drained, 1)} == places


def test_threads_take_places_of_their_own() -> None:
    box = handover()
    places: dict[bytes, int] = {}

    def work(thread: int) -> None:
        for n in range(5000):
            line = b"%d %d\n" % (thread, n)
            places[line] = put(box, line)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    drained: list[bytes] = []
    while any(thread.is_alive() for thread in threads) or len(box):
        drained += box.drain()
    assert {line: place for place, line in enumerate(drained, 1)} == places


def test_what_is_put_in_too_late_can_be_taken_back_once() -> None:
    box = handover()
    first, second = box.take(b"1\n"), box.take(b"1\n")
    assert box.withdraw(second)
    assert not box.withdraw(second)
    assert box.drain() == [b"1\n"]
    assert not box.withdraw(first)


def test_there_is_no_room_beyond_the_bounds_and_none_after_the_end() -> None:
    box = Handover(records_max=2, bytes_max=1000)
    for _ in range(2):
        assert box.has_room(10)
        box.take(b"x" * 10)
    assert not box.has_room(10)
    box.drain()
    box.bound(held_bytes=20, released_records=0)
    assert not box.has_room(10)
    box.bound(held_bytes=0, released_records=2)
    assert box.has_room(1000)
    assert not box.has_room(1001)
    box.close()
    box.bound(held_bytes=0, released_records=2)
    assert not box.has_room(0)


def test_whoever_sleeps_is_woken_by_the_first_record_or_by_enough_of_them() -> None:
    box = handover()
    assert box.sleep(held_bytes=0, wake_bytes=1)
    box.take(b"1\n")
    assert box.taken_bytes >= box.wake_bytes
    assert not box.sleep(held_bytes=0, wake_bytes=1)
    box.drain()
    assert box.sleep(held_bytes=2, wake_bytes=8)
    box.take(b"12345\n")
    assert box.taken_bytes >= box.wake_bytes
    box.wake()
    box.take(b"x" * 10_000)
    assert box.taken_bytes < box.wake_bytes


def test_drops_are_counted_exactly() -> None:
    box = handover()
    for _ in range(3):
        box.drop()
    assert box.dropped == 3
