"""Records as JSON: the first behind a hole tells what is gone, and why."""

import json
from typing import Any

import pytest

from logengine.cli.output import Output
from logengine.format.block import Block, Record
from logengine.reading.problem import Gone, Problem

TIME = "2026-11-23T20:00:00.000001Z"
REMOVED = Gone(2, 4, "removed")
RECORDED = Gone(7, 8, "recorded", "the disk was full")
DAMAGED = Gone(9, 9, "damaged")


def line(seq: int) -> bytes:
    return b'{"_ts":"%s","n":%d}' % (TIME.encode(), seq)


def block(first: int, last: int, stream: str = "app") -> Block:
    lines = [line(seq) + b"\n" for seq in range(first, last + 1)]
    return Block(stream, first, len(lines), b"".join(lines))


def report(output: Output, gone: Gone) -> None:
    output.report(Problem("app", "x", expected=gone.reason != "damaged", gone=gone))


def gaps(pieces: list[bytes]) -> dict[int, Any]:
    """What is told of gaps, by the record that tells it; every line is a record."""
    records = [json.loads(each) for each in b"".join(pieces).splitlines()]
    for record in records:
        assert {"_stream", "_seq", "_ts", "n"} <= record.keys()
    return {record["_seq"]: record["_gaps"] for record in records if "_gaps" in record}


def test_the_first_record_behind_a_hole_tells_it_and_no_other() -> None:
    output = Output("json")
    report(output, REMOVED)
    pieces = [*output.in_json(block(5, 6)), *output.in_json(block(10, 11))]
    assert gaps(pieces) == {5: [{"first": 2, "last": 4, "reason": "removed"}]}


def test_neighbouring_holes_are_told_each_with_its_reason() -> None:
    output = Output("json")
    report(output, RECORDED)
    report(output, DAMAGED)
    assert gaps(list(output.in_json(block(10, 10)))) == {
        10: [
            {"first": 7, "last": 8, "reason": "recorded", "why": "the disk was full"},
            {"first": 9, "last": 9, "reason": "damaged"},
        ]
    }
    assert output.problems == 1


def test_a_hole_that_was_read_ahead_is_told_in_its_place() -> None:
    output = Output("json")
    report(output, RECORDED)
    lines = [output.in_json_line(Record("app", seq, line(seq))) for seq in (5, 6, 9, 10)]
    assert list(gaps(lines)) == [9]


def test_a_hole_of_another_stream_is_not_told() -> None:
    output = Output("json")
    report(output, REMOVED)
    assert gaps(list(output.in_json(block(5, 6, "web")))) == {}


@pytest.mark.parametrize("form", ["raw", "pretty"])
def test_other_forms_tell_it_on_standard_error_alone(
    form: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    output = Output(form)
    report(output, REMOVED)
    output.write_block(block(5, 5))
    output.flush()
    told = capsysbinary.readouterr()
    assert b"_gaps" not in told.out
    assert told.err == b"logengine: note: app: x\n"
