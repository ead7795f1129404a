"""Which problems keep an export from taking its name, its formats, and CSV."""

import csv
import gzip
import io
from pathlib import Path

import pytest

from logengine.errors import IncompleteExport, InvalidOption
from logengine.exchange.exporting import Missing, converted, export_file, format_of_name
from logengine.reading import Gone, Problem
from logengine.rendering.comma_separated import exported_lines

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


@pytest.mark.parametrize(
    ("name", "form"),
    [
        *(("export", "ndjson"), ("a.ndjson", "ndjson"), ("a.jsonl", "ndjson")),
        *(("a.gz", "gzip"), ("a.ndjson.gz", "gzip"), ("a.2026.gz", "gzip"), ("A.GZ", "gzip")),
        *(("a.ndjson.zst", "zstd"), ("a.csv", "csv"), ("a.v1.parquet", "parquet")),
    ],
)
def test_a_suffix_says_the_format(name: str, form: str) -> None:
    assert format_of_name(Path(name)) == form


@pytest.mark.parametrize("name", ["a.xlsx", "a.json", "a.csv.gz", "a.parquet.zst", "a.bz2"])
def test_a_suffix_of_another_format_is_an_error_that_names_the_known_ones(name: str) -> None:
    with pytest.raises(InvalidOption, match=r"expected .*\.(ndjson|gz|zst)\b.*--format"):
        format_of_name(Path(name))


def test_gzip_is_one_member_with_all_lines() -> None:
    assert gzip.decompress(b"".join(converted(LINES, "gzip"))) == b"".join(LINES)
    assert gzip.decompress(b"".join(converted([], "gzip"))) == b""


def rows(*lines: str) -> list[dict[str, str]]:
    written = b"".join(exported_lines([f"{line}\n".encode() for line in lines])).decode()
    return list(csv.DictReader(io.StringIO(written, newline="")))


def test_a_csv_row_has_what_most_records_have_and_the_whole_record() -> None:
    line = (
        '{"_stream":"a","_seq":7,"_ts":"t","_pid":1,"level":"error","time":12.5,'
        '"message":"one, \\"two\\"\\nthree","n":[1,{}]}'
    )
    (row,) = rows(line)
    assert {key: value for key, value in row.items() if value} == {
        "_stream": "a",
        "_seq": "7",
        "_ts": "t",
        "_pid": "1",
        "level": "error",
        "time": "12.5",
        "message": 'one, "two"\nthree',
        "record": line,
    }


def test_a_csv_row_says_from_which_file_or_host_a_record_is() -> None:
    found = rows('{"_ts":"t","_file":"/var/log/web.log"}', '{"_ts":"t","_addr":"10.0.0.7"}')
    assert [(row["_file"], row["_addr"]) for row in found] == [
        ("/var/log/web.log", ""),
        ("", "10.0.0.7"),
    ]


def test_a_csv_message_comes_from_the_key_that_people_see_and_acts_on_no_terminal() -> None:
    found = rows(
        '{"event":"e","message":"m"}', '{"msg":"a\\u001b[31mb\\ud800"}', '{"message":{"a":1}}'
    )
    assert [row["message"] for row in found] == ["e", r"a\x1b[31mb\ud800", '{"a":1}']


def test_a_csv_of_no_record_has_the_names_of_its_columns() -> None:
    assert b"".join(exported_lines([])) == (
        b"_stream,_seq,_ts,_pid,_uid,_gid,_comm,_unit,_user_unit,time,level,message,record,"
        b"_addr,_file\n"
    )
