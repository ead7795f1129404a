"""The records on the screen of `logengine top`: what moves, what is counted, what is kept."""

from logengine.format.block import Record
from logengine.top.window import RecordWindow


def records(first: int, last: int, size: int = 10) -> list[Record]:
    return [Record("app", seq, b"x" * size) for seq in range(first, last + 1)]


def seqs(window: RecordWindow) -> list[int]:
    return [record.seq for record in window.records]


def made(last: int = 10, height: int = 4, kept_max: int = 100) -> RecordWindow:
    window = RecordWindow(kept_max)
    window.resize(height)
    window.replace(records(1, last), cursor=last - 1, is_joined=True)
    return window


def shown(window: RecordWindow) -> list[int]:
    return [record.seq for record in window.shown()]


def test_the_newest_is_followed() -> None:
    window = made()
    window.arrive(records(11, 12), 2)
    assert window.selected == records(12, 12)[0]
    assert shown(window) == [9, 10, 11, 12]
    assert (window.is_live, window.new) == (True, 0)


def test_nothing_moves_while_an_earlier_record_is_selected() -> None:
    window = made()
    window.select(5)
    before = shown(window)
    window.arrive(records(11, 13), 3)
    assert (shown(window), window.cursor, window.new) == (before, 5, 3)
    assert window.take_new()
    assert seqs(window) == list(range(1, 14))
    assert (window.new, window.is_live) == (0, True)


def test_nothing_moves_while_it_is_paused() -> None:
    window = made()
    window.is_paused = True
    window.arrive(records(11, 11), 1)
    assert (shown(window), window.new) == ([7, 8, 9, 10], 1)
    window.take_new()
    assert (shown(window), window.is_paused) == ([8, 9, 10, 11], False)


def test_what_arrives_after_what_waits_waits_too() -> None:
    window = made()
    window.select(0)
    window.arrive(records(11, 11), 1)
    window.select(9)  # the last that is shown, while another one waits
    window.arrive(records(12, 12), 1)
    assert (seqs(window)[-1], window.new) == (10, 2)


def test_of_too_many_that_wait_the_last_are_kept_and_no_hole_is_shown() -> None:
    window = made(kept_max=10)
    window.select(0)
    for first in range(11, 41, 5):
        window.arrive(records(first, first + 4), 5)
    assert window.new == 30
    assert window.take_new()
    assert seqs(window) == list(range(31, 41))


def test_a_burst_of_which_only_the_last_were_kept_shows_no_hole() -> None:
    window = made()
    window.arrive(records(1000, 1005), 995)
    assert seqs(window) == list(range(1000, 1006))


def test_the_records_in_memory_are_bounded() -> None:
    window = made(kept_max=20)
    for first in range(11, 101, 10):
        window.arrive(records(first, first + 9), 10)
    assert seqs(window) == list(range(81, 101))
    window = RecordWindow(1000, bytes_max=500)
    window.arrive(records(1, 9, size=100), 9)
    assert seqs(window) == [5, 6, 7, 8, 9]
    window.arrive(records(10, 10, size=1000), 1)  # one is always kept
    assert seqs(window) == [10]


def test_earlier_records_come_in_above_and_the_screen_stays() -> None:
    window = RecordWindow(100)
    window.resize(4)
    window.replace(records(11, 20), cursor=0, is_joined=True)
    before = shown(window)
    window.prepend(records(5, 10))
    assert (seqs(window)[0], shown(window), window.selected) == (5, before, records(11, 11)[0])
    assert window.is_joined


def test_too_many_earlier_records_separate_it_from_the_newest() -> None:
    window = RecordWindow(10)
    window.resize(4)
    window.replace(records(11, 20), cursor=0, is_joined=True)
    window.prepend(records(6, 10))
    assert seqs(window) == list(range(6, 16))
    assert not window.is_joined
    window.select(9)
    assert not window.is_live
    window.arrive(records(21, 22), 2)
    assert (window.new, window.take_new()) == (2, False)


def test_later_records_come_in_below() -> None:
    window = RecordWindow(10)
    window.resize(4)
    window.replace(records(1, 10), cursor=9, is_joined=False)
    window.extend(records(11, 14))
    assert seqs(window) == list(range(5, 15))
    assert window.selected == records(10, 10)[0]
    assert shown(window) == [7, 8, 9, 10]


def test_the_selected_record_is_on_the_screen_whatever_its_height() -> None:
    window = made(last=50)
    for height in (1, 30, 100, 7):
        window.resize(height)
        assert window.selected in window.shown()
    for index in (-5, 3, 1000):
        window.select(index)
        assert window.selected in window.shown()
    window.replace([], cursor=0, is_joined=True)
    assert (window.selected, list(window.shown())) == (None, [])


def test_what_was_searched_for_is_shown_with_what_is_around() -> None:
    window = made(last=100, height=12)
    window.select(50)
    window.show_around()
    assert shown(window) == list(range(47, 59))
    window.select(0)
    window.show_around()
    assert shown(window) == list(range(1, 13))
    window.select(99)
    window.show_around()
    assert shown(window) == list(range(89, 101))
