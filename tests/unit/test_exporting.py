"""Which problems of a reading keep an export from taking its name."""

from pathlib import Path

import pytest

from logengine.errors import IncompleteExport
from logengine.exchange.exporting import Missing, export_file
from logengine.reading import Gone, Problem

LINES = [b'{"n":1}\n', b'{"n":2}\n']
DAMAGED = Problem("app", "x", gone=Gone(2, 4, "damaged"))
REMOVED = Problem("app", "x", expected=True, gone=Gone(2, 4, "removed"))
REPAIRED = Problem("app", "x", expected=True, gone=Gone(2, 4, "recorded"))


@pytest.mark.parametrize(("problem", "says_repair"), [(DAMAGED, True), (REMOVED, False)])
def test_a_file_that_would_lack_records_is_not_written(
    tmp_path: Path, problem: Problem, *, says_repair: bool
) -> None:
    missing = Missing()
    missing.note(problem)
    path = tmp_path / "out.ndjson"
    with pytest.raises(IncompleteExport, match="--partial") as raised:
        export_file(LINES, path, "ndjson", missing=missing)
    assert ("logengine repair" in str(raised.value)) == says_repair
    assert list(tmp_path.iterdir()) == []
    export_file(LINES, path, "ndjson")
    assert path.read_bytes() == b"".join(LINES)


def test_records_that_the_stream_itself_reports_as_gone_are_not_missing(tmp_path: Path) -> None:
    missing = Missing()
    missing.note(REPAIRED)
    path = tmp_path / "out.ndjson"
    export_file(LINES, path, "ndjson", missing=missing)
    assert path.read_bytes() == b"".join(LINES)
