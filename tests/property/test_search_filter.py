"""Search filters against the definition: a frame that contains a literal is never passed over."""

import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logengine.errors import DamagedSearchFilters
from logengine.format.search_filter import (
    Search,
    decode_filters,
    encode_filters,
    frame_filter,
)

SEGMENT = "5" * 64
# What words and ids consist of, what ends them, and what is left out of a filter.
PARTS = [
    *("needle", "Needle", "nebula", "b", "3", "j", "q", "xyz", "error", "é", "日本"),
    *("4bf92f3577b34da6a3ce929d0e0e4736", "7f3a9c", "884123", "000123Z", ".000123", "T18:00", "Z"),
    *(" ", '"', ":", ",", ".", "-", "_", "\\u00e9", "\\n", "\\", '{"', '"}', "_ts", "2026-11-28T"),
]
texts = st.lists(st.sampled_from(PARTS) | st.text('ab39z.Z"\\u', max_size=3), max_size=8).map(
    lambda parts: "".join(parts).encode()
)


def body_of(texts: list[bytes]) -> bytes:
    """A frame's content with a record for each text, and enough others to have a filter."""
    texts = [*texts, *[b"other records %d" % number for number in range(99)]]
    return b"".join(
        b'{"_ts":"2026-11-28T18:00:%02d.%06dZ","m":"%s"}\n' % (number % 60, number * 377, text)
        for number, text in enumerate(texts)
    )


FILLED = [b"word%d" % number for number in range(20)]


@given(st.lists(texts, min_size=1, max_size=4), st.data(), st.booleans())
@example([b"x"], None, False)
def test_no_part_of_a_line_is_passed_over(
    lines: list[bytes], data: st.DataObject | None, other_case: bool
) -> None:
    body = body_of(lines)
    bits = frame_filter(body)
    assert bits
    for line in body.split(b"\n")[: len(lines)]:
        spans = [(0, len(line))]
        if data is not None:
            ends = st.integers(0, len(line))
            spans += [
                (min(span), max(span))
                for span in data.draw(st.lists(st.tuples(ends, ends), max_size=20))
            ]
        for start, stop in spans:
            literal = line[start:stop]
            literal = literal.swapcase() if other_case else literal
            assert Search([[literal]]).may_match(bits), literal
            assert Search([[b"not in any of them", literal], [literal]]).may_match(bits)


@pytest.mark.parametrize("start", range(36))
def test_no_part_of_a_time_is_passed_over(start: int) -> None:
    body = body_of([b"a message"])
    bits = frame_filter(body)
    line = body.split(b"\n")[7]
    for stop in range(start + 1, len(line)):
        assert Search([[line[start:stop]]]).may_match(bits), line[start:stop]


@pytest.mark.parametrize(
    "literal",
    [b"needle", b"NEEDLE", b"zebra", b"rare-token-7f3a9c", b'"0af7651916cd43dd8448eb211c80319c"'],
)
def test_what_is_not_there_is_passed_over(literal: bytes) -> None:
    bits = frame_filter(body_of(FILLED))
    assert not Search([[literal]]).may_match(bits)
    assert not Search([[b"other"], [literal]]).may_match(bits)
    assert Search([[b"other", literal]]).may_match(bits)


@pytest.mark.parametrize("at", [0, 1500, 2999])
def test_no_line_of_a_large_frame_is_passed_over(at: int) -> None:
    lines = [b"line %d" % number for number in range(3000)]
    lines[at] = b"a needle"
    body = body_of(lines)
    assert len(body) > 64 * 1024  # several pieces
    assert Search([[b"needle"]]).may_match(frame_filter(body))


@pytest.mark.parametrize("literal", [b"", b"ab", b"3", b"1234567", b"123456Z", "日本".encode()])
def test_a_literal_without_words_is_in_every_frame(literal: bytes) -> None:
    search = Search([[literal]])
    assert not search.can_skip
    assert search.may_match(frame_filter(body_of(FILLED)))


def test_an_escape_may_hide_a_value() -> None:
    search = Search([[b"needle", b"\\u"]])
    assert search.may_match(frame_filter(body_of([b"\\u006eeedle"])))
    assert not search.may_match(frame_filter(body_of([b"noodle"])))


def test_a_filter_is_at_most_a_64th_of_its_frame() -> None:
    body = body_of([b"%08x" % (number * 2654435761 % 2**32) for number in range(20_000)])
    assert 0 < len(frame_filter(body)) <= len(body) // 64
    assert frame_filter(body[:3000]) == b""
    assert Search([[b"needle"]]).may_match(b"")


def test_a_frame_is_looked_at_in_pieces_that_others_can_come_between() -> None:
    body = body_of(FILLED * 500)
    pieces: list[int] = []
    frame_filter(body, pieces.append)
    assert sum(pieces) == len(body)
    assert max(pieces) < 64 * 1024


@given(st.lists(st.sampled_from([0, 64, 1024, 16384]).map(lambda size: b"\xa5" * size)))
def test_filters_are_read_as_they_were_written(filters: list[bytes]) -> None:
    content = encode_filters(SEGMENT, filters)
    assert decode_filters(content, SEGMENT, "path") == filters
    assert decode_filters(content, "6" * 64, "path") is None


def test_filters_of_a_newer_version_are_ignored() -> None:
    assert (
        decode_filters(with_hash(b'{"_filters":2,"segment":"","bytes":[]}\n'), "", "path") is None
    )


@given(st.data())
def test_any_cut_or_flip_of_filters_is_damage(data: st.DataObject) -> None:
    content = encode_filters(SEGMENT, [b"\xa5" * 64])
    at = data.draw(st.integers(0, len(content) - 1))
    flipped = bytearray(content)
    flipped[at] ^= 1 << data.draw(st.integers(0, 7))
    for damaged in (bytes(flipped), content[:at]):
        with pytest.raises(DamagedSearchFilters):
            decode_filters(damaged, SEGMENT, "path")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}\n",
        b'{"_filters":1,"segment":"%s","bytes":[63]}\n' % SEGMENT.encode() + bytes(63),
        b'{"_filters":1,"segment":"%s","bytes":[64]}\n' % SEGMENT.encode() + bytes(65),
        b'{"_filters":1,"segment":"%s","bytes":[-64,128]}\n' % SEGMENT.encode() + bytes(64),
    ],
)
def test_impossible_filters_are_damage(content: bytes) -> None:
    with pytest.raises(DamagedSearchFilters):
        decode_filters(with_hash(content), SEGMENT, "path")


def with_hash(content: bytes) -> bytes:
    return content + hashlib.sha256(content).digest()
