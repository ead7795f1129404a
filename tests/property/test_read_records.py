"""What `read` gives is what a loop over all records of the stream would choose."""

import tempfile
from pathlib import Path

from hypothesis import assume, given
from hypothesis import strategies as st

import logengine
from tests.reading.streams import at, line, write_stream

# The clock may jump to and fro.
seconds = st.lists(st.integers(0, 59), min_size=1, max_size=30)
sizes = st.lists(st.integers(1, 6), max_size=30)
bounds = st.none() | st.integers(0, 59)


@given(seconds, sizes, bounds, bounds, st.integers(0, 31), st.none() | st.integers(0, 31))
def test_what_is_read_is_what_a_loop_over_all_would_choose(
    times: list[int],
    cuts: list[int],
    since: int | None,
    until: int | None,
    after: int,
    last: int | None,
) -> None:
    assume(since is None or until is None or since <= until)
    lines = [line(number, second) for number, second in enumerate(times, 1)]
    rest, segments = list(lines), []
    for size in [*cuts, len(lines)]:
        if rest:
            segments.append(rest[:size])
            rest = rest[size:]
    expected = [
        (number, stored)
        for number, (second, stored) in enumerate(zip(times, lines, strict=True), 1)
        if number > after
        and (since is None or second >= since)
        and (until is None or second < until)
    ]
    if last is not None:
        expected = expected[max(0, len(expected) - last) :]
    with tempfile.TemporaryDirectory() as name:
        data = Path(name)
        write_stream(data, "app", *segments)
        reading = logengine.read(
            data=data,
            after=f"app:{after}",
            since=None if since is None else at(since),
            until=None if until is None else at(until),
            last=last,
        )
        assert [(record.seq, record.line) for record in reading] == expected
        raw = b"".join(piece for batch in reading.batches() for piece in batch.raw())
        assert raw.splitlines() == [stored for _, stored in expected]
        json = b"".join(piece for batch in reading.batches() for piece in batch.json())
        assert json.splitlines() == [record.json for record in reading]
        if not after and since is until is None:
            assert list(logengine.read(data=data, last=last)) == list(reading)
