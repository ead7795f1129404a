"""Batches of records as bytes: the first record after a hole says what is gone, and why."""

import json
from typing import Any

from logengine.format.block import Block, Record
from logengine.reading.batch import Chunk, PendingGaps
from logengine.reading.problem import Gone, Problem

TIME = "2026-11-23T20:00:00.000001Z"
REMOVED = Gone(2, 4, "removed")
RECORDED = Gone(7, 8, "recorded", "the disk was full")
DAMAGED = Gone(9, 9, "damaged")


def line(seq: int) -> bytes:
    return b'{"_ts":"%s","n":%d}' % (TIME.encode(), seq)


def records(*seqs: int) -> list[Record]:
    return [Record("app", seq, line(seq)) for seq in seqs]


def block(first: int, last: int, stream: str = "app") -> Block:
    lines = [line(seq) + b"\n" for seq in range(first, last + 1)]
    return Block(stream, first, len(lines), b"".join(lines))


def noted(*gone: Gone) -> PendingGaps:
    gaps = PendingGaps()
    for each in gone:
        gaps.add(Problem("app", "x", gone=each))
    return gaps


def shown(gaps: PendingGaps, *chunks: Chunk) -> dict[int, Any]:
    """What is said of gaps, by the record that says it; every line is a record."""
    lines = b"".join(piece for chunk in chunks for piece in gaps.batch(chunk).json())
    found = [json.loads(each) for each in lines.splitlines()]
    for record in found:
        assert {"_stream", "_seq", "_ts", "n"} <= record.keys()
    return {record["_seq"]: record["_gaps"] for record in found if "_gaps" in record}


def test_the_first_record_after_a_hole_says_so_and_no_other() -> None:
    assert shown(noted(REMOVED), block(5, 6), block(10, 11)) == {
        5: [{"first": 2, "last": 4, "reason": "removed"}]
    }


def test_neighbouring_holes_are_said_each_with_its_reason() -> None:
    assert shown(noted(RECORDED, DAMAGED), block(10, 10)) == {
        10: [
            {"first": 7, "last": 8, "reason": "recorded", "why": "the disk was full"},
            {"first": 9, "last": 9, "reason": "damaged"},
        ]
    }


def test_a_hole_that_was_read_ahead_is_said_in_its_place() -> None:
    assert list(shown(noted(RECORDED), records(5, 6), records(9, 10))) == [9]
    assert list(shown(noted(RECORDED), records(5, 6, 9, 10))) == [9]


def test_a_hole_of_another_stream_is_not_said() -> None:
    assert shown(noted(REMOVED), block(5, 6, "web")) == {}


def test_a_problem_without_numbers_is_no_hole() -> None:
    gaps = PendingGaps()
    gaps.add(Problem("app", "a file cannot be read"))
    assert shown(gaps, block(5, 6)) == {}


def test_holes_that_no_record_comes_after_are_bounded() -> None:
    gaps = noted(*(Gone(seq, seq, "removed") for seq in range(1, 3001)))
    (said,) = shown(gaps, block(4000, 4000)).values()
    assert [said[0]["first"], said[-1]["first"]] == [2001, 3000]


def test_raw_is_as_stored() -> None:
    gaps = noted(REMOVED)
    assert b"".join(gaps.batch(block(5, 6)).raw()) == block(5, 6).body
    assert b"".join(gaps.batch(records(5, 6)).raw()) == block(5, 6).body


def test_a_block_and_its_records_are_the_same_batch() -> None:
    as_block, as_records = noted(REMOVED).batch(block(5, 7)), noted(REMOVED).batch(records(5, 6, 7))
    assert b"".join(as_block.json()) == b"".join(as_records.json())
    assert list(noted().batch(block(5, 6))) == records(5, 6)
