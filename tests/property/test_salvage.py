"""What is salvaged of a damaged segment, and under which numbers."""

from collections.abc import Sequence

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from logengine.errors import DamagedSegment
from logengine.format.producers import Producer
from logengine.format.segment import Header, decode_header
from logengine.store.plan import Addition, StreamState, append
from logengine.upkeep.salvage import Salvage, encode_salvage, salvage
from tests.compressed import compressed

TIME = "2026-11-23T20:00:00.000001Z"
FIRST = 7


def stored(texts: Sequence[str]) -> tuple[bytes, list[bytes], Header]:
    """A plain segment, its lines, and its header."""
    lines = [
        b'{"_ts":"%s","message":%s}' % (TIME.encode(), msgspec.json.encode(text)) for text in texts
    ]
    body = b"".join(line + b"\n" for line in lines)
    addition = Addition([body], len(lines), TIME, TIME, {Producer(0, "p"): 3})
    state = StreamState("app", next_seq=FIRST, latest=TIME)
    plan, _ = append(state, addition, rewrite_limit=0, max_producers=4)
    content = b"".join(plan.render())
    return content, lines, decode_header(content.partition(b"\n")[0], "app")


@st.composite
def damages(draw: st.DrawFn, length: int) -> tuple[int, int, str]:
    """Where damage begins and ends, and of which kind it is."""
    start = draw(st.integers(0, length - 1))
    kind = draw(st.sampled_from(["flip", "cut", "zero", "behind"]))
    return start, start + 1 if kind == "flip" else length, kind


def damaged(content: bytes, start: int, kind: str, bit: int) -> bytes:
    match kind:
        case "flip":
            return content[:start] + bytes([content[start] ^ 1 << bit]) + content[start + 1 :]
        case "cut":
            return content[:start]
        case "zero":
            return content[:start] + bytes(len(content) - start)
        case _:
            return content + content[start:]


texts = st.lists(st.text(max_size=20), min_size=1, max_size=8)


def header_of(content: bytes) -> Header | None:
    try:
        return decode_header(content.partition(b"\n")[0], "app")
    except DamagedSegment:
        return None


@given(texts, st.data(), st.integers(0, 7))
def test_a_sure_number_is_that_of_the_line(texts: list[str], data: st.DataObject, bit: int) -> None:
    content, lines, _ = stored(texts)
    start, stop, kind = data.draw(damages(len(content)))
    rotten = damaged(content, start, kind, bit)
    found = salvage(rotten, FIRST, header_of(rotten), compressed=False)
    place = content.index(b"\n") + 1
    untouched = {}
    for seq, line in enumerate(lines, FIRST):
        if kind == "behind" or stop <= place or start > place + len(line):
            untouched[seq] = line
        place += len(line) + 1
    for each in found.lines:
        if each.is_sure and each.seq in untouched:
            assert each.line == untouched[each.seq]
    if header_of(rotten) is not None:
        here = {each.seq: each.line for each in found.lines if each.is_sure}
        assert untouched.items() <= here.items()


@given(texts, st.data(), st.integers(0, 7))
def test_frames_are_salvaged_as_far_as_they_are_whole(
    texts: list[str], data: st.DataObject, bit: int
) -> None:
    plain, lines, _ = stored(texts)
    content = compressed(plain)
    start, _, kind = data.draw(damages(len(content)))
    rotten = damaged(content, start, kind, bit)
    for header in (None, header_in(content)):
        found = salvage(rotten, FIRST, header, compressed=True)
        sure = {each.seq: each.line for each in found.lines if each.is_sure}
        if kind == "behind" and header is not None:
            assert sure == dict(enumerate(lines, FIRST))
            assert all(each.is_proven for each in found.lines)
        if header is None:
            assert not sure
        for each in found.lines:
            assert not each.is_proven or lines[each.seq - FIRST] == each.line


def header_in(content: bytes) -> Header:
    from logengine.format.compression import split_header

    split = split_header(content, "app", 1 << 20)
    assert split is not None
    return decode_header(split[0], "app")


def test_frames_behind_a_broken_one_have_sure_numbers() -> None:
    from logengine.format.compression import compress_body, encode_compressed_header, with_frames

    texts = [f"{number} " + "x" * 400_000 for number in range(9)]
    _, lines, header = stored(texts)
    frames = list(compress_body([line + b"\n" for line in lines], 1))
    assert len(frames) == 3
    header = with_frames(header, frames)
    start = encode_compressed_header(header)
    broken = bytearray(frames[1].content)
    broken[len(broken) // 2] ^= 0xFF
    content = start + frames[0].content + bytes(broken) + frames[2].content
    found = salvage(content, FIRST, header, compressed=True)
    sure = {each.seq: each.line for each in found.lines if each.is_sure}
    wanted = dict(enumerate(lines, FIRST))
    assert {FIRST, FIRST + 1, FIRST + 2, FIRST + 6, FIRST + 7, FIRST + 8} <= sure.keys()
    assert sure.items() <= wanted.items()
    proven = [each.seq - FIRST for each in found.lines if each.is_proven]
    assert proven == [0, 1, 2, 6, 7, 8]
    # Without the table of frames the same lines are found, but nobody knows their numbers.
    lost = salvage(content[5:], FIRST, None, compressed=True)
    assert [each.line for each in lost.lines if each.line in lines[:3] + lines[6:]] == (
        lines[:3] + lines[6:]
    )
    assert not any(each.is_sure for each in lost.lines)


def test_a_guessed_number_has_another_key() -> None:
    content, lines, header = stored(["a", "b", "c", "d"])
    rotten = content.replace(b'"b"', b'"b').replace(b'"c"', b'"c')
    found = salvage(rotten, FIRST, header, compressed=False)
    assert found.broken == 2
    assert [(each.seq, each.is_sure) for each in found.lines] == [(7, True), (10, False)]
    assert b"".join(encode_salvage(found, "app")).splitlines() == [
        b'{"_stream":"app","_seq":7,' + lines[0][1:],
        b'{"_stream":"app","_seq_guessed":10,' + lines[3][1:],
    ]


def test_nothing_is_found_in_nothing() -> None:
    assert salvage(b"", 1, None, compressed=False) == Salvage([], 0)
    assert salvage(bytes(4096), 1, None, compressed=True) == Salvage([], 0)
