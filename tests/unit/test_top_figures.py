"""The figures of `logengine top`, computed from looks that are made up."""

from typing import Any

import msgspec
import pytest

from logengine.format.block import Rows
from logengine.protocols.status import FailingStream, Status, TotalsStatus
from logengine.reading import StreamSummary
from logengine.top.figures import (
    SENDERS_MAX,
    Amount,
    DaemonFigures,
    Figures,
    Look,
    Sender,
    StreamState,
    Tally,
    TallyKey,
    tally,
    weighted,
)

MINUTE = 1_764_000_000  # seconds since 1970, 2025-11-24 16:00:00
WEB = Sender(1000, "web", "")


def summary(
    stream: str, last: int = 100, until: str | None = None, damaged: int = 0
) -> StreamSummary:
    return StreamSummary(stream, last, 5000, 3, 1, last, until, until, damaged)


def look(
    at_s: float,
    found: Tally | None = None,
    daemon: DaemonFigures | None = None,
    **streams: StreamState,
) -> Look:
    return Look(at_s, streams, found or {}, daemon or DaemonFigures("absent"), 10**9, {1000: "ann"})


def rows(*records: dict[str, Any]) -> Rows:
    lines = [msgspec.json.encode(each) for each in records]
    return Rows(["app"] * len(lines), range(len(lines)), lines, b"".join(x + b"\n" for x in lines))


def record(second: int, **fields: Any) -> dict[str, Any]:
    return {"_ts": f"2025-11-24T16:00:{second:02d}.500000Z", "_uid": 1000, "_comm": "web"} | fields


def counted(*records: dict[str, Any], since_s: int = MINUTE) -> Tally:
    found: Tally = {}
    tally(rows(*records), found, since_s)
    return found


def test_levels_count_in_every_spelling() -> None:
    found = counted(
        *(record(1, level=each) for each in ("ERROR", "crit", 50, "fatal", "emerg")),
        record(1, PRIORITY="3"),
        *(record(1, level=each) for each in ("warn", "WARNING", 40)),
        *(record(1, level=each) for each in ("info", "notice", "nonsense", None)),
        record(1),
    )
    (amount,) = found.values()
    assert (amount.records, amount.errors, amount.warnings) == (14, 6, 3)


def test_records_count_in_the_second_in_which_they_arrived() -> None:
    found = counted(record(1), record(2), record(2), since_s=MINUTE + 2)
    assert {key.second - MINUTE: each.records for key, each in found.items()} == {2: 2}


def test_a_hostile_name_of_a_sender_is_escaped_and_cut() -> None:
    (key,) = counted(record(1, _comm="\x1b[31m" + "x" * 1000, _unit="a\nb"))
    assert key.sender.name.startswith(r"\x1b[31mx")
    assert len(key.sender.name) < 100
    assert key.sender.unit == r"a\nb"


def test_a_rate_is_that_of_the_last_whole_seconds() -> None:
    figures = Figures()
    found = counted(*(record(second) for second in range(10) for _ in range(second)))
    figures.add(look(MINUTE + 10.2, found, app=StreamState(summary("app"))))
    (row,) = figures.streams()
    assert row.activity.records_per_s == (5 + 6 + 7 + 8 + 9) / 5
    assert list(row.activity.history[-3:]) == [7, 8, 9]
    assert len(row.activity.history) == 60
    # The second that is not over does not count yet, and then does.
    figures.add(look(MINUTE + 10.9, counted(record(10)), app=StreamState(summary("app"))))
    assert figures.streams()[0].activity.records_per_s == 7
    figures.add(look(MINUTE + 11.1, {}, app=StreamState(summary("app"))))
    assert figures.streams()[0].activity.records_per_s == (6 + 7 + 8 + 9 + 1) / 5


def test_errors_are_those_of_the_last_minute() -> None:
    figures = Figures()
    figures.add(
        look(MINUTE + 2, counted(record(1, level="error")), app=StreamState(summary("app")))
    )
    figures.add(look(MINUTE + 61, {}, app=StreamState(summary("app"))))
    assert figures.streams()[0].activity.errors == 1
    assert figures.totals().activity.errors == 1
    figures.add(look(MINUTE + 62, {}, app=StreamState(summary("app"))))
    assert figures.streams()[0].activity.errors == 0
    assert figures.totals().activity.errors == 0
    assert figures.senders() == []


def test_a_stream_that_vanished_has_no_row() -> None:
    figures = Figures()
    app, web = StreamState(summary("app")), StreamState(summary("web"))
    figures.add(look(MINUTE + 1, counted(record(1)), app=app, web=web))
    figures.add(look(MINUTE + 2, {}, web=web))
    assert [row.stream for row in figures.streams()] == ["web"]
    assert figures.totals().streams == 1


def test_the_delay_is_the_greatest_of_the_last_seconds() -> None:
    figures = Figures()
    for second, delay_s in ((0, 0.5), (1, 0.1), (5, None)):
        figures.add(look(MINUTE + second, {}, app=StreamState(summary("app"), delay_s)))
    assert figures.streams()[0].delay_s == 0.5
    figures.add(look(MINUTE + 10.5, {}, app=StreamState(summary("app"))))
    assert figures.streams()[0].delay_s == 0.1
    assert figures.totals().delay_s == 0.1
    figures.add(look(MINUTE + 20, {}, app=StreamState(summary("app"))))
    assert figures.streams()[0].delay_s is None
    assert figures.totals().delay_s is None


def test_only_what_arrives_after_the_first_look_is_new() -> None:
    figures = Figures()
    figures.add(look(MINUTE + 1, counted(record(0), record(0))))
    assert figures.arrived == 0
    figures.add(look(MINUTE + 2, counted(record(1))))
    assert figures.arrived == 1


def test_a_sender_has_its_streams_and_the_name_of_its_user() -> None:
    figures = Figures()
    found = counted(record(1)) | {TallyKey("web", MINUTE + 3, WEB): Amount(4, 400, 1, 2)}
    figures.add(look(MINUTE + 5, found))
    (row,) = figures.senders()
    assert (row.user, row.streams, row.age_s) == ("ann", ["app", "web"], 2)
    assert (row.activity.errors, row.activity.warnings) == (2, 1)


def test_the_senders_that_are_remembered_are_bounded() -> None:
    figures = Figures()
    found = {
        TallyKey("app", MINUTE, Sender(n, f"p{n}", "")): Amount(1) for n in range(2 * SENDERS_MAX)
    }
    figures.add(look(MINUTE + 1, found))
    rows = figures.senders()
    assert len(rows) == SENDERS_MAX + 1
    assert sum(row.activity.records_per_s for row in rows) == pytest.approx(2 * SENDERS_MAX / 5)


def test_what_was_counted_in_a_part_stands_for_all() -> None:
    found = dict(weighted(counted(record(1, level="error"), record(1)), 10))
    (amount,) = found.values()
    assert (amount.records, amount.errors) == (20, 10)


def test_a_stream_that_cannot_be_committed_shows_what_waits_and_why() -> None:
    status = Status(
        *(1, False, 7, "/data", 5.0, 1, 2, 9, 0, 100, 1000, 1),
        failing=[FailingStream("app", "no space \x1b[0m", 3.0, 4, 12, 3400)],
        totals=TotalsStatus(0, 0, 0, 0, 0, 0, 0, 0),
    )
    figures = Figures()
    figures.add(
        look(
            MINUTE,
            {},
            DaemonFigures("answers", status),
            app=StreamState(summary("app", until="2025-11-24T15:59:18.000000Z")),
            web=StreamState(summary("web", damaged=2)),
        )
    )
    app, web = figures.streams()
    assert (app.waiting_records, app.waiting_bytes) == (12, 3400)
    assert app.failure == r"no space \x1b[0m"
    assert app.age_s == 42
    assert (web.failure, web.damaged, web.age_s) == ("", 2, None)
    assert figures.totals().damaged_streams == 1
