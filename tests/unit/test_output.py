"""Problems on standard error, beside records on standard output."""

import pytest

from logengine.cli.output import Output
from logengine.format.block import Block
from logengine.local_zone import LOCAL_ZONE
from logengine.reading import Gone, Problem
from logengine.reading.batch import PendingGaps
from logengine.rendering import Rendering
from logengine.rendering.clock import WallClock
from logengine.rendering.pretty import Look, Pretty

LINE = b'{"_ts":"2026-11-23T20:00:00.000001Z","n":5}\n'
REMOVED = Problem("app", "x", expected=True, gone=Gone(2, 4, "removed"))
RENDERINGS: dict[str, Rendering | None] = {
    "raw": None,
    "json": None,
    "pretty": Pretty(Look(clock=WallClock(LOCAL_ZONE))),
}


@pytest.mark.parametrize(("form", "says"), [("raw", False), ("pretty", False), ("json", True)])
def test_every_form_says_on_standard_error_what_is_gone_and_json_in_the_record_too(
    form: str, says: bool, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    gaps = PendingGaps()
    output = Output(form, RENDERINGS[form])
    gaps.noting(output.report)(REMOVED)
    output.write(gaps.batch(Block("app", 5, 1, LINE)))
    output.flush()
    written = capsysbinary.readouterr()
    assert (b"_gaps" in written.out) == says
    assert b'n":5' in written.out or b"n=5" in written.out
    assert written.err == b"logengine: note: app: x\n"
    assert output.problems == 0


def test_damage_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    output = Output("json")
    output.report(Problem("app", "y", gone=Gone(9, 9, "damaged")))
    assert output.problems == 1
    assert capsys.readouterr().err == "logengine: app: y\n"
