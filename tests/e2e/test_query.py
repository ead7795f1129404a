"""`logengine query` as it is typed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from logengine.filtering.levels import LEVEL_NAMES, LEVELS, NUMBERS_STOP, rank_of_number
from tests.reading.streams import damage, line, write_stream

WITHOUT_DUCKDB = "import sys; sys.modules['duckdb'] = None; from logengine.cli import main; main()"


def query(data: Path, *arguments: str, status: int = 0, program: str = "") -> str:
    start = ["-c", program] if program else ["-m", "logengine"]
    done = subprocess.run(
        [sys.executable, *start, "query", *arguments, "--data", str(data)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | {"TMPDIR": str(data.parent)},
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    assert not list(data.parent.glob("logengine-query-*"))
    return done.stderr if status else done.stdout


def objects(data: Path, *arguments: str) -> list[dict[str, object]]:
    shown = query(data, *arguments, "--format", "json")
    return [json.loads(each) for each in shown.splitlines()]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    levels = ["info", "WARN", "error"]
    write_stream(
        data,
        "app",
        [line(n, n, f',"level":"{level}","event":"e{n}"') for n, level in enumerate(levels, 1)],
        [line(4, 4, ',"level":40,"msg":"m4","_pid":7')],
    )
    write_stream(data, "web-1", [line(1, 9)])
    return data


def test_each_stream_is_a_view_with_typed_columns(data: Path) -> None:
    assert objects(data, "SELECT level, count(*) AS n FROM app GROUP BY ALL ORDER BY ALL") == [
        {"level": "error", "n": 1},
        {"level": "info", "n": 1},
        {"level": "warning", "n": 2},
    ]
    assert objects(data, "SELECT * EXCLUDE record FROM app WHERE _seq = 4") == [
        {
            "_stream": "app",
            "_seq": 4,
            "_ts": "2026-11-23 20:00:04",
            "_pid": 7,
            "_uid": None,
            "_comm": None,
            "_unit": None,
            "level": "warning",
            "message": "m4",
            "_addr": None,
            "_file": None,
        }
    ]
    (row,) = objects(data, "SELECT * FROM app WHERE _seq = 4")
    assert list(row)[-3:] == ["record", "_addr", "_file"]  # after all that there were before
    assert objects(data, "SELECT CAST(record->>'n' AS INT) AS n FROM \"web-1\"") == [{"n": 1}]


def test_all_records_are_in_one_table_too(data: Path) -> None:
    found = objects(data, "SELECT _stream, max(_ts) AS t FROM logengine.records GROUP BY ALL")
    assert sorted(found, key=str) == [
        {"_stream": "app", "t": "2026-11-23 20:00:04"},
        {"_stream": "web-1", "t": "2026-11-23 20:00:09"},
    ]


def test_the_options_select_what_is_loaded(data: Path) -> None:
    sql = "SELECT count(*) AS n FROM app"
    assert objects(data, sql, "--until", "2026-11-23T20:00:03Z") == [{"n": 2}]
    assert objects(data, sql, "--where", "level >= warning") == [{"n": 3}]


def test_only_the_streams_that_are_read_are_loaded(data: Path) -> None:
    damage(data, "app", 1)
    assert objects(data, 'SELECT count(*) AS n FROM "web-1"') == [{"n": 1}]
    assert "app: " in query(data, "SELECT count(*) FROM app", status=1)


def test_levels_are_those_of_the_filter_language(tmp_path: Path) -> None:
    data = tmp_path / "data"
    expected = {name.upper(): names[0] for names in LEVELS for name in names}
    for number in range(NUMBERS_STOP + 2):
        rank = rank_of_number(number, "level")
        expected[str(number)] = str(number) if rank is None else LEVEL_NAMES[rank]
    expected["other"] = "other"
    values = [each if each.isdigit() else f'"{each}"' for each in expected]
    write_stream(data, "app", [line(1, more=f',"level":{value}') for value in values])
    found = [each["level"] for each in objects(data, "SELECT level FROM app ORDER BY _seq")]
    assert found == list(expected.values())


def test_a_table_and_csv_are_printed(data: Path) -> None:
    sql = "SELECT _seq, message, _pid FROM app WHERE _seq > 2 ORDER BY ALL"
    assert query(data, sql) == "_seq  message  _pid\n   3  e3          -\n   4  m4          7\n"
    assert query(data, sql, "--format", "csv") == "_seq,message,_pid\n3,e3,\n4,m4,7\n"


@pytest.mark.parametrize(
    "sql",
    [
        "",
        "SELECT",
        "SELECT 1; SELECT 2",
        "SELECT * FROM nothing",
        "SELECT nope FROM app",
        "SELECT * FROM read_text('/etc/hostname')",
        "COPY app TO 'x.csv'",
        "ATTACH 'x.db'",
        "SET enable_external_access = true",
    ],
)
def test_a_query_that_is_wrong_or_leaves_the_records_is_refused(data: Path, sql: str) -> None:
    assert query(data, sql, status=2).startswith("logengine: the query: ")


def test_text_cannot_act_on_a_terminal(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_stream(data, "app", [line(1, more=r',"event":"\u001b[2J\u009b\u202e"')])
    for form in ("table", "json"):
        shown = query(data, "SELECT message FROM app", "--format", form)
        assert not set(shown) & {"\x1b", "\x9b", "\u202e"}


def test_without_duckdb_one_line_says_what_to_install(data: Path) -> None:
    said = query(data, "SELECT 1", status=1, program=WITHOUT_DUCKDB)
    assert said.count("\n") == 1
    assert "logengine[query]" in said


def test_a_stream_may_have_the_name_of_a_keyword(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_stream(data, "select", [line(1)])
    assert objects(data, 'SELECT count(*) AS n FROM "select"') == [{"n": 1}]
    assert objects(data, 'SELECT count(*) AS n FROM (SELECT * FROM "SELECT")') == [{"n": 1}]
