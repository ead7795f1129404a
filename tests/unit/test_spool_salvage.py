"""What is whole in a damaged segment of a spool, and where it belongs."""

import pytest

from logengine.client.spool_salvage import whole_parts

HEADER = b'{"_segment":1}\n'
LINES = [b'{"n":%d}' % n for n in range(5, 10)]
WHOLE = HEADER + b"\n".join(LINES) + b"\n"


def found(
    content: bytes, last: int | None = 9, *, is_header_whole: bool = True
) -> dict[int, bytes]:
    parts = whole_parts(content, 5, last, is_header_whole=is_header_whole)
    return {
        part.first + index: line
        for part in parts
        for index, line in enumerate(part.lines.splitlines())
    }


def numbered(*places: int) -> dict[int, bytes]:
    return {place: b'{"n":%d}' % place for place in places}


@pytest.mark.parametrize(
    ("content", "places"),
    [
        (WHOLE, (5, 6, 7, 8, 9)),
        (WHOLE.replace(b'{"n":7', b'{"n"*7'), (5, 6, 8, 9)),
        (WHOLE.replace(b'{"n":7}\n', b'{"n":7}+'), (5, 6, 9)),
        (WHOLE[:-12], (5, 6, 7)),
        (WHOLE[: WHOLE.index(b'{"n":8')], (5, 6, 7)),
        (HEADER, ()),
        (b"", ()),
        (bytes(100), ()),
    ],
)
def test_lines_that_are_whole_keep_their_places(content: bytes, places: tuple[int, ...]) -> None:
    assert found(content) == numbered(*places)


def test_a_first_line_that_went_with_the_header_moves_no_other() -> None:
    content = WHOLE.replace(HEADER, HEADER[:-1] + b"+")
    assert found(content, is_header_whole=False) == numbered(6, 7, 8, 9)


def test_text_is_whole_where_there_are_no_objects() -> None:
    assert found(HEADER + b"one\ntw\xffo\nthree\n", 7) == {5: b"one", 7: b"three"}


def test_what_nobody_counted_is_taken_as_it_comes() -> None:
    assert found(WHOLE, None) == numbered(5, 6, 7, 8, 9)
