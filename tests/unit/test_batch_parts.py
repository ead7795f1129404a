"""Parts of a batch: up to a record, and between what is gone."""

import pytest

from logengine.cli.gap_marker import gap_marker
from logengine.format.block import Block, Record
from logengine.reading import Batch, Filter, Gone

LINES = [b'{"_ts":"2026-11-28T19:00:00.00000%dZ","n":%d}' % (n, n) for n in range(1, 6)]
RECORDS = [Record("app", seq, line) for seq, line in enumerate(LINES, 11)]
BLOCK = Block("app", 11, 5, b"\n".join([*LINES, b""]))
GONE = Gone(5, 10, "removed")


@pytest.mark.parametrize("chunk", [BLOCK, RECORDS])
def test_a_batch_ends_with_the_first_record_that_is_chosen(chunk: Block | list[Record]) -> None:
    batch = Batch(chunk, {("app", 11): [GONE]})
    for n in (1, 3, 5):
        found = batch.until(Filter.of([f"n={n}"]))
        assert found is not None
        assert list(found) == RECORDS[:n]
        assert found.last_seqs() == {"app": 10 + n}
        assert b"_gaps" in b"".join(found.json())
    assert batch.until(Filter.of(["n=6"])) is None


@pytest.mark.parametrize("chunk", [BLOCK, RECORDS])
def test_a_gap_comes_before_the_record_after_it(chunk: Block | list[Record]) -> None:
    parts = list(Batch(chunk, {("app", 11): [GONE]}).between_gaps())
    assert [(stream, list(gone), list(part)) for stream, gone, part in parts] == [
        ("app", [GONE], RECORDS)
    ]


def test_records_of_several_streams_are_parted_at_each_gap() -> None:
    other = Record("web", 4, LINES[0])
    lost = Gone(3, 3, "damaged")
    chunk = [*RECORDS[:2], other, *RECORDS[2:]]
    parts = Batch(chunk, {("web", 4): [lost], ("app", 13): [GONE]}).between_gaps()
    assert [(stream, list(gone), list(part)) for stream, gone, part in parts if list(part)] == [
        ("", [], RECORDS[:2]),
        ("web", [lost], [other]),
        ("app", [GONE], RECORDS[2:]),
    ]
    assert [list(part) for _, _, part in Batch(chunk, {}).between_gaps()] == [chunk]


def test_a_marker_says_what_is_gone_and_why_and_acts_on_no_terminal() -> None:
    assert (
        gap_marker("app", GONE) == "--- app: 6 records, 5 to 10: removed before they were read ---"
    )
    recorded = Gone(7, 7, "recorded", "bad\x1b[31m disk")
    assert gap_marker("app", recorded) == (
        r"--- app: record 7: gone, as the stream records: bad\x1b[31m disk ---"
    )


@pytest.mark.parametrize("chunk", [BLOCK, RECORDS])
def test_parts_of_a_batch_are_its_records_and_keep_their_gap(chunk: Block | list[Record]) -> None:
    batch = Batch(chunk, {("app", 11): [GONE]})
    for start in range(5):
        for stop in range(start, 7):
            part = batch.part(start, stop)
            assert list(part) == RECORDS[start:stop]
            assert len(part) == len(RECORDS[start:stop])
            if start < stop:
                assert (b"_gaps" in b"".join(part.json())) is (start == 0)


def test_a_block_is_split_into_lines_once_however_many_its_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The context of each of thousands of records in a block is a part of it.
    splits: list[Block] = []
    split = Block.lines

    def counted(block: Block) -> list[bytes]:
        splits.append(block)
        return split(block)

    monkeypatch.setattr(Block, "lines", counted)
    monkeypatch.delattr(Block, "begin_at")
    monkeypatch.delattr(Block, "end_before")
    batch = Batch(BLOCK, {})
    assert [len(batch.part(at, at + 2)) for at in range(5)] == [2, 2, 2, 2, 1]
    assert splits == [BLOCK]
