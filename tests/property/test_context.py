"""Records around chosen ones are those that the definition says, however they come in batches."""

from hypothesis import given
from hypothesis import strategies as st

from logengine.format.block import Block, Record
from logengine.format.cursor import Cursor
from logengine.reading import Batch, Filter
from logengine.reading.context import with_context

LINES = {
    True: b'{"_ts":"2026-11-23T20:00:00.000000Z","x":1}',
    False: b'{"_ts":"2026-11-23T20:00:00.000000Z"}',
}


def batches_of(flags: list[bool], sizes: list[int], *, as_blocks: bool) -> list[Batch]:
    batches = []
    place = 0
    for size in [*sizes, len(flags)]:
        lines = [LINES[flag] for flag in flags[place : place + size]]
        if not lines:
            continue
        if as_blocks:
            body = b"".join(each + b"\n" for each in lines)
            batches.append(Batch(Block("app", place + 1, len(lines), body), {}))
        else:
            records = [Record("app", seq, each) for seq, each in enumerate(lines, place + 1)]
            batches.append(Batch(records, {}))
        place += size
    return batches


@given(
    flags=st.lists(st.booleans(), max_size=30),
    sizes=st.lists(st.integers(1, 6), max_size=8),
    before=st.integers(0, 4),
    after=st.integers(0, 4),
    begin=st.none() | st.integers(1, 30),
    limit=st.none() | st.integers(1, 4),
    as_blocks=st.booleans(),
)
def test_groups_are_those_of_the_definition(
    flags: list[bool],
    sizes: list[int],
    before: int,
    after: int,
    begin: int | None,
    limit: int | None,
    as_blocks: bool,
) -> None:
    matches = [seq for seq, flag in enumerate(flags, 1) if flag and seq >= (begin or 1)]
    if begin is not None and begin > len(flags):
        matches = []
    wanted = {
        seq
        for match in matches[:limit]
        for seq in range(match - before, match + after + 1)
        if 1 <= seq <= len(flags)
    }
    expected: list[int | None] = []
    for seq in sorted(wanted):
        if expected and seq - 1 not in wanted:
            expected.append(None)
        expected.append(seq)
    found: list[int | None] = []
    for group in with_context(
        batches_of(flags, sizes, as_blocks=as_blocks),
        Filter.of(grep='"x"'),
        before,
        after,
        begin=None if begin is None else Cursor("app", begin),
        limit=limit,
    ):
        found += [None] if group is None else [record.seq for record in group]
    assert found == expected
