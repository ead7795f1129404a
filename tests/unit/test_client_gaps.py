"""Ranges of places that hold nothing."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logengine.client.gaps import as_text, gaps_between, joined, without

PLACES = 30
RANGES = st.lists(
    st.tuples(st.integers(1, PLACES), st.integers(0, 6)).map(lambda of: (of[0], of[0] + of[1]))
)


def places(ranges: list[tuple[int, int]]) -> set[int]:
    return {place for first, last in ranges for place in range(first, last + 1)}


@given(RANGES, st.integers(1, PLACES), st.integers(0, PLACES))
def test_a_gap_is_what_is_held_nowhere(held: list[tuple[int, int]], begin: int, end: int) -> None:
    gaps = gaps_between(joined(held), begin, end)
    assert places(gaps) == set(range(begin, end + 1)) - places(held)
    assert gaps == joined(gaps)


@given(RANGES, RANGES)
def test_what_is_known_is_left_out_in_whatever_order(
    gaps: list[tuple[int, int]], known: list[tuple[int, int]]
) -> None:
    assert places(without(joined(gaps), known)) == places(gaps) - places(known)


@given(RANGES)
def test_joined_ranges_are_the_same_places_as_few_as_can_be(ranges: list[tuple[int, int]]) -> None:
    found = joined(ranges)
    assert places(found) == places(ranges)
    assert all(before[1] + 1 < after[0] for before, after in pairwise(found))


@pytest.mark.parametrize(
    ("gaps", "offset", "text"),
    [([(3, 3)], 0, "3"), ([(3, 5), (9, 9)], 0, "3 to 5, 9"), ([(3, 5)], 100, "103 to 105")],
)
def test_ranges_are_said_as_numbers(gaps: list[tuple[int, int]], offset: int, text: str) -> None:
    assert as_text(gaps, offset) == text
