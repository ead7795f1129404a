"""A block gives the same records whole, split, cut and with their places in front."""

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from logengine.errors import DamagedSegment
from logengine.format import block as block_module
from logengine.format.block import Block, with_place

texts = st.lists(st.text(st.characters(codec="utf-8", exclude_characters='\n"\\'), max_size=20))


def block_of(values: list[str], first: int) -> Block:
    body = b"".join(b'{"_ts":"%d","x":"%s"}\n' % (n, x.encode()) for n, x in enumerate(values))
    return Block("app", first, len(values), body)


@given(texts, st.integers(1, 10**12), st.integers(1, 90))
def test_places_in_pieces_are_those_of_each_record(
    values: list[str], first: int, piece_bytes: int
) -> None:
    block = block_of(values, first)
    with patch.object(block_module, "_PIECE_BYTES", piece_bytes):
        pieces = list(block.with_places())
    assert b"".join(pieces) == b"".join(with_place(each) + b"\n" for each in block.records())


@given(texts, st.integers(1, 9), st.integers(0, 30))
def test_a_block_begun_later_has_the_rest(values: list[str], first: int, seq: int) -> None:
    block = block_of(values, first)
    if seq <= block.first + block.count:
        rest = block.begin_at(seq)
        assert list(rest.records()) == [each for each in block.records() if each.seq >= seq]


@given(texts, st.data())
def test_parts_know_their_numbers(values: list[str], source: st.DataObject) -> None:
    block = block_of(values, 7)
    chosen = source.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values)))
    ranges = []
    place = 0
    for line, is_chosen in zip(block.lines(), chosen, strict=True):
        ranges.append((place, place + is_chosen * (len(line) + 1)))
        place += len(line) + 1
    parts = [record for part in block.parts(ranges) for record in part.records()]
    expected = zip(block.records(), chosen, strict=True)
    assert parts == [record for record, is_chosen in expected if is_chosen]


@pytest.mark.parametrize("body", [b'{"_ts":"0"}\n', b'{"_ts":"0"}\n{"_ts":"1"}', b'{"a":1}\n' * 2])
def test_records_that_are_not_as_many_as_said_are_damage(body: bytes) -> None:
    block = Block("app", 1, 2, body)
    with pytest.raises(DamagedSegment, match="are not the 2 that"):
        list(block.with_places())
    with pytest.raises(DamagedSegment, match="are not the 3 that"):
        Block("app", 1, 3, body).lines()
