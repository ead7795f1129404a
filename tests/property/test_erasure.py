"""Segments with tombstones in the place of some records."""

import itertools
import json

import msgspec
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from logengine.format.block import Block, runs
from logengine.format.compression import compress_body, split_header
from logengine.format.producers import numbers_in
from logengine.format.record import envelope, stamp
from logengine.format.segment import check_body, decode_header, header_sha256, timestamp_of
from logengine.upkeep.erase_plan import Mark, erase, is_tombstone, to_be_erased
from tests.property.test_salvage import FIRST, stored

MARK = Mark("2026-11-25T00:00:00.000001Z", 'ann "the boss"', "a password\n")
texts = st.lists(st.text(max_size=20), min_size=1, max_size=9)


@given(texts, st.sets(st.integers(FIRST, FIRST + 8)))
def test_what_is_not_erased_stays_as_it_was(texts: list[str], seqs: set[int]) -> None:
    content, lines, header = stored(texts)
    body = content[content.index(b"\n") + 1 :]
    seqs = {seq for seq in seqs if seq <= header.last}
    anew, _, new_body = b"".join(erase(header, body, body, seqs, MARK, "")).partition(b"\n")
    new_header = decode_header(anew, "app")
    check_body(new_header, new_body, "app")
    assert (new_header.first, new_header.count) == (header.first, header.count)
    assert (new_header.latest, numbers_in(new_header)) == (header.latest, numbers_in(header))
    for seq, (line, before) in enumerate(
        zip(new_body.splitlines(), lines, strict=True), header.first
    ):
        assert timestamp_of(line) == timestamp_of(before)
        assert is_tombstone(line) == (seq in seqs)
        if seq in seqs:
            told = json.loads(line)["_erased"]
            assert told == {"when": MARK.when, "by": MARK.by, "why": MARK.why}
        else:
            assert line == before


def test_only_the_frames_that_hold_it_are_written_anew() -> None:
    plain, lines, header = stored([f"{number} " + "x" * 400_000 for number in range(9)])
    body = plain[plain.index(b"\n") + 1 :]
    frames = list(compress_body([line + b"\n" for line in lines], 1))
    assert len(frames) == 3
    header = msgspec.structs.replace(header, frames=tuple(each.frame for each in frames))
    stored_frames = b"".join(each.content for each in frames)
    first, *contents = erase(header, body, stored_frames, {FIRST + 4}, MARK, "a" * 64)
    assert [contents[0], contents[-1]] == [frames[0].content, frames[2].content]
    split = split_header(first, "app", 1 << 20)
    assert split is not None
    again = decode_header(split[0], "app")
    assert again.erased
    assert (again.erased.original, again.erased.count) == ("a" * 64, 1)
    new_body = b"".join(map(zstandard.decompress, contents))
    check_body(again, new_body, "app")
    # What it was before the first erasure stays known through the next.
    anew = erase(again, new_body, b"".join(contents), {FIRST}, MARK, header_sha256(split[0]))
    split = split_header(anew[0], "app", 1 << 20)
    assert split is not None
    twice = decode_header(split[0], "app")
    assert twice.erased
    assert (twice.erased.original, twice.erased.count) == ("a" * 64, 2)


def test_no_sender_can_set_a_tombstone() -> None:
    stamped = stamp(b'{"_erased":{"when":"never"}}\n', envelope(MARK.when, b""))
    assert not is_tombstone(stamped.body)
    assert b'"__erased"' in stamped.body


def test_tombstones_are_not_erased_again() -> None:
    content, _, header = stored(["a", "b", "c"])
    body = content[content.index(b"\n") + 1 :]
    new_body = erase(header, body, body, {FIRST + 1}, MARK, "")[1]
    assert to_be_erased([Block("app", FIRST, 3, new_body)]) == [FIRST, FIRST + 2]


@given(st.sets(st.integers(1, 30)))
def test_runs_are_all_numbers_and_only_those(seqs: set[int]) -> None:
    found = list(runs(sorted(seqs)))
    assert {seq for first, last in found for seq in range(first, last + 1)} == seqs
    assert all(after[0] > before[1] + 1 for before, after in itertools.pairwise(found))
