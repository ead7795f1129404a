"""What `logengine top` looks at, how much of it it reads, and what it makes of that."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from logengine.format.timestamp import format_time
from logengine.reading import Problem, summary_of
from logengine.rendering.fields import decode_line
from logengine.rendering.levels import level_field, rank_of
from logengine.top import survey as survey_module
from logengine.top.figures import DaemonFigures, Figures
from logengine.top.source import error_lines
from logengine.top.survey import Survey
from tests.daemon import Daemon, eventually
from tests.reading.streams import damage, line, write_stream

ABSENT = DaemonFigures("absent")


def surveying(data: Path, *asked: str) -> tuple[Survey, list[Problem]]:
    problems: list[Problem] = []
    return Survey(data, asked, lambda: ABSENT, problems.append), problems


def recent(number: int, level: str = "info", ago_s: float = 5) -> bytes:
    moment = format_time(time.time() - ago_s)
    return f'{{"_ts":"{moment}","_uid":0,"_comm":"web","level":"{level}","n":{number}}}'.encode()


def test_the_last_minute_counts_from_the_first_look_on(tmp_path: Path) -> None:
    write_stream(
        tmp_path, "app", [recent(1, "error", 300), recent(2, "error"), recent(3, "warning")]
    )
    write_stream(tmp_path, "old", [line(1)])
    survey, problems = surveying(tmp_path)
    figures = Figures()
    figures.add(survey.look())
    app, old = figures.streams()
    assert (app.activity.errors, app.activity.warnings) == (1, 1)
    assert sum(app.activity.history) == 2
    assert sum(old.activity.history) == 0
    assert old.records == 1
    assert not problems


def test_only_a_part_of_a_flood_is_read_and_stands_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon = Daemon(tmp_path).start()
    try:
        daemon.cli("send", "-s", "app", stdin=b'{"n":0}\n')
        survey, _ = surveying(daemon.data)
        figures = Figures()
        figures.add(survey.look())
        monkeypatch.setattr(survey_module, "RECORDS_PER_LOOK_MAX", 500)
        records = [{"level": "error" if n % 2 else "info", "n": n} for n in range(5000)]
        sent = "".join(json.dumps(each) + "\n" for each in records).encode()
        daemon.cli("send", "-s", "app", stdin=sent)
        look = survey.look()
        assert look.streams["app"].is_sampled
        assert sum(each.records for each in look.tally.values()) == pytest.approx(5000)
        assert sum(each.errors for each in look.tally.values()) == pytest.approx(2500, rel=0.05)
        figures.add(look)
        assert figures.streams()[0].is_sampled
        assert figures.arrived == pytest.approx(5000)
        assert not survey.look().streams["app"].is_sampled
    finally:
        daemon.close()


def test_the_delay_is_from_the_arrival_to_the_file(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path).start()
    try:
        daemon.cli("send", "-s", "app", stdin=b'{"n":0}\n')
        survey, _ = surveying(daemon.data)
        assert survey.look().streams["app"].delay_s is None  # nobody saw when it came
        begun_s = time.time()
        daemon.cli("send", "-s", "app", stdin=b'{"n":1}\n')
        delay_s = survey.look().streams["app"].delay_s
        assert delay_s is not None
        assert 0 <= delay_s <= time.time() - begun_s
        assert survey.look().streams["app"].delay_s is None
    finally:
        daemon.close()


def test_a_stream_that_does_not_change_is_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_stream(tmp_path, "app", [line(1)])
    write_stream(tmp_path, "web", [line(1)])
    for stream in ("app", "web"):
        os.utime(tmp_path / stream, (1, 1))
    survey, _ = surveying(tmp_path)
    survey.look()
    looked_at: list[str] = []

    def noted(stream: str, *, data: Path):
        looked_at.append(stream)
        return summary_of(stream, data=data)

    monkeypatch.setattr(survey_module, "summary_of", noted)
    survey.look()
    assert not looked_at
    os.utime(tmp_path / "web", (2, 2))
    survey.look()
    assert looked_at == ["web"]


def test_a_change_just_before_a_look_is_looked_at_again(tmp_path: Path) -> None:
    write_stream(tmp_path, "app", [line(1)])
    survey, _ = surveying(tmp_path)
    survey.look()
    before = os.stat(tmp_path / "app").st_mtime_ns
    write_stream(tmp_path / "aside", "app", [line(1)], [line(2)])
    for path in (tmp_path / "aside" / "app").iterdir():
        path.replace(tmp_path / "app" / path.name)
    os.utime(tmp_path / "app", ns=(before, before))  # within one tick of the clock of files
    assert survey.look().streams["app"].summary.records == 2


def test_a_damaged_stream_is_a_problem_and_the_others_are_there(tmp_path: Path) -> None:
    write_stream(tmp_path, "app", [recent(1)], [recent(2)])
    write_stream(tmp_path, "web", [recent(1)])
    damage(tmp_path, "app", 1)
    survey, problems = surveying(tmp_path)
    look = survey.look()
    assert {problem.stream for problem in problems} == {"app"}
    assert sum(each.records for key, each in look.tally.items() if key.stream == "web") == 1


def test_a_data_directory_may_appear_later_and_a_stream_start_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    survey, _ = surveying(data)
    assert survey.look().streams == {}
    write_stream(data, "app", [recent(n) for n in range(1, 6)])
    assert sum(each.records for each in survey.look().tally.values()) == 5
    (data / "app").rename(tmp_path / "away")
    write_stream(data, "app", [recent(1), recent(2)])
    look = survey.look()
    assert look.streams["app"].summary.records == 2
    assert sum(each.records for each in look.tally.values()) == 2


def test_only_the_chosen_streams_are_looked_at(tmp_path: Path) -> None:
    for stream in ("app", "web-1", "web-2"):
        write_stream(tmp_path, stream, [line(1)])
    survey, _ = surveying(tmp_path, "web-*")
    assert list(survey.look().streams) == ["web-1", "web-2"]


def test_a_daemon_that_refuses_to_answer_is_not_asked_each_time(tmp_path: Path) -> None:
    asked: list[float] = []

    def ask() -> DaemonFigures:
        asked.append(time.time())
        return DaemonFigures("denied", why="only root")

    tmp_path.joinpath("data").mkdir()
    survey = Survey(tmp_path / "data", (), ask, lambda _: None)
    assert survey.look().daemon.why == survey.look().daemon.why == "only root"
    assert len(asked) == 1


def test_the_figures_of_a_daemon_are_those_of_its_files(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path).start()
    try:
        daemon.cli("send", "-s", "app", stdin=b'{"level":"error"}\n' * 7)
        survey, _ = surveying(daemon.data)
        figures = Figures()

        def counted() -> bool:
            figures.add(survey.look())
            return figures.streams()[0].activity.errors == 7

        eventually(counted)
        (sender,) = figures.senders()
        assert sender.sender.uid == os.getuid()
        assert sender.streams == ["app"]
    finally:
        daemon.close()


VALUES: list[Any] = [
    *("error", "ERR", "Crit", "fatal", "F", "emerg", "panic", "alert", "severe", "e", "eror"),
    *("info", "warn", "notice", "trace", "verbose", "silly", "fine", "finest", "debug", "c", "x"),
    *(0, 3, 4, 10, 17, 40, 50, 60, 99, 100, -1, 3.5, "3", "50", "7", None, True, [], {"a": 1}),
]
NAMES = [
    *("level", "LEVEL", "lvl", "Priority", "PRIORITY", "severity", "severity_code", "levelno"),
    *("level_no", "levelnum", "severity_number", "severitytext", "level_name", "loglevel"),
    *("other", "syslog_level"),
]


def test_the_lines_of_errors_are_those_whose_level_is_one() -> None:
    lines = [
        json.dumps({"_ts": "t", "n": 1, name: value}, separators=separators).encode()
        for name in NAMES
        for value in VALUES
        for separators in ((",", ":"), (", ", ": "))
    ]
    body = b"".join(each + b"\n" for each in lines)
    wanted = []
    for each in lines:
        fields = decode_line(each)
        name = level_field(fields)
        rank = None if name is None else rank_of(name, fields[name])
        if rank is not None and rank >= 5:
            wanted.append(each + b"\n")
    assert [body[start:stop] for start, stop in error_lines(body)] == wanted
    assert len(wanted) > 200
