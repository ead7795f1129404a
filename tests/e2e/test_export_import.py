"""`logengine export` and `logengine import`."""

import asyncio
import builtins
import gzip
import json
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest.mock import patch

import duckdb
import pytest
import zstandard

from logengine.disk.segment_file import list_segments
from logengine.errors import NotInstalled
from logengine.exchange.exporting import export_file, zstd_frames
from logengine.format.segment import segment_name
from logengine.store.settings import CommitConfig
from logengine.store.store import Store
from tests.crash.rig.oracle import addition
from tests.daemon import Daemon, eventually
from tests.e2e.test_cli import LOGENGINE
from tests.unit.test_decompression import COMPRESS


def exported(daemon: Daemon, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in daemon.cli("export", *arguments).stdout.splitlines()]


def send(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b'{"n":1,"n":2,"level":"error"}\n{"n":3}\n')
    daemon.cli("send", "-s", "web", stdin=b'{"n":4,"N":"x"}\n')
    daemon.cli("send", "-s", "app", stdin=b"text\n")


def test_an_export_is_what_cat_prints(daemon: Daemon, root: Path) -> None:
    send(daemon)
    for selection in (["app"], [], ["--where", "level=error"], ["--after", "app:1"]):
        printed = daemon.cli("cat", *selection, "--format", "json").stdout
        assert daemon.cli("export", *selection).stdout == printed
        path = root / "export.ndjson"
        assert daemon.cli("export", *selection, "-o", str(path)).stdout == b""
        assert path.read_bytes() == printed
        daemon.cli("export", *selection, "-o", str(root / "export.ndjson.zst"))
        with (root / "export.ndjson.zst").open("rb") as file:
            reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            assert reader.read() == printed
    assert sorted(each.name for each in root.glob(".*")) == []


def test_a_dash_is_standard_output(daemon: Daemon) -> None:
    send(daemon)
    for arguments in (["app", "-"], ["app", "-o", "-"], ["app", "-", "-o", "-"]):
        assert daemon.cli("export", *arguments).stdout == daemon.cli("cat", "app").stdout
    assert daemon.cli("export", "-").stdout == daemon.cli("cat").stdout
    assert b"only one" in daemon.cli("export", "-", "-o", "x.csv", status=2).stderr


def test_an_export_is_what_its_suffix_says(daemon: Daemon, root: Path) -> None:
    send(daemon)
    printed = daemon.cli("cat").stdout
    daemon.cli("export", "-o", str(root / "x.ndjson.gz"))
    assert gzip.decompress((root / "x.ndjson.gz").read_bytes()) == printed
    daemon.cli("export", "-o", str(root / "x.csv"))
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT record FROM read_csv(?, header = true) ORDER BY _ts, _seq",
            [str(root / "x.csv")],
        ).fetchall()
    assert sorted(row[0] for row in found) == sorted(printed.decode().splitlines())
    assert daemon.cli("export", "--format", "csv").stdout == (root / "x.csv").read_bytes()
    done = daemon.cli("export", "-o", str(root / "x.xlsx"), status=2)
    assert b".parquet" in done.stderr
    assert not (root / "x.xlsx").exists()


def test_parquet_has_the_envelope_as_columns_and_the_record(daemon: Daemon, root: Path) -> None:
    send(daemon)
    path = root / "it's.parquet"
    daemon.cli("export", "-o", str(path))
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT _stream, _seq, epoch_us(_ts), _uid, record FROM read_parquet(?)",
            [str(path)],
        ).fetchall()
        described = connection.execute("DESCRIBE FROM read_parquet(?)", [str(path)]).fetchall()
    assert ",".join(column[0] for column in described) == (
        "_stream,_seq,_ts,_pid,_uid,_gid,_comm,_unit,_user_unit,record,_addr,_file"
    )
    assert [(row[0], row[1]) for row in rows] == [("app", 1), ("app", 2), ("web", 1), ("app", 3)]
    assert {row[3] for row in rows} == {os.getuid()}
    printed = daemon.cli("cat").stdout.decode().splitlines()
    assert [row[4] for row in rows] == printed
    assert sorted(each.name for each in root.glob(".*")) == []
    daemon.cli("export", "--until", "2001-01-01", "-o", str(path))
    with duckdb.connect() as connection:
        assert connection.execute("SELECT * FROM read_parquet(?)", [str(path)]).fetchall() == []


def test_without_duckdb_there_is_no_parquet(tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name == "duckdb":
            raise ImportError(name)
        return real(name, *arguments)

    with (
        patch.object(builtins, "__import__", without),
        pytest.raises(NotInstalled, match=r"logengine\[parquet\]"),
    ):
        export_file([b"{}\n"], tmp_path / "x.parquet", "parquet")
    assert list(tmp_path.iterdir()) == []


def test_frames_hold_whole_lines() -> None:
    lines = [b"%d" % number * 100_000 + b"\n" for number in range(9)] * 5
    frames = list(zstd_frames(iter(lines)))
    contents = [zstandard.ZstdDecompressor().decompress(frame) for frame in frames]
    assert b"".join(contents) == b"".join(lines)
    assert len(contents) > 2
    assert all(content.endswith(b"\n") for content in contents)
    assert list(zstd_frames([])) == []


def test_an_export_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.ndjson"
    path.write_bytes(b"old\n")

    def failing() -> Any:
        yield b"new\n"
        raise OSError(5, "injected")

    with pytest.raises(OSError, match="injected"):
        export_file(failing(), path, "ndjson")
    assert path.read_bytes() == b"old\n"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("suffix", ["ndjson", "ndjson.zst", "parquet"])
def test_an_export_with_a_hole_is_written_only_if_that_is_asked_for(
    daemon: Daemon, root: Path, suffix: str
) -> None:
    send(daemon)
    daemon.stop()
    (segment,) = daemon.segments("web")
    content = bytearray(segment.read_bytes())
    content[-10] ^= 1
    segment.write_bytes(content)
    path = root / f"export.{suffix}"
    path.write_bytes(b"old")
    done = daemon.cli("export", "-o", str(path), status=1)
    assert path.read_bytes() == b"old"
    assert [each.name for each in root.glob(".*")] == []
    assert segment.name.encode() in done.stderr
    assert b"--partial" in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == 2
    assert daemon.cli("export", status=1).stdout == daemon.cli("cat", status=1).stdout

    done = daemon.cli("export", "--partial", "-o", str(path), status=1)
    assert segment.name.encode() in done.stderr
    with duckdb.connect() as connection:
        read = "read_parquet" if suffix == "parquet" else "read_ndjson_auto"
        rows = connection.execute(f"SELECT _stream, _seq FROM {read}(?)", [str(path)]).fetchall()
    assert rows == [("app", 1), ("app", 2), ("app", 3)]

    daemon.cli("repair", "web")
    path.unlink()
    done = daemon.cli("export", "-o", str(path))
    assert b"note: web: records 1 to 1 are gone" in done.stderr
    assert path.exists()


def test_an_export_misses_nothing_that_was_removed_before_it_was_read(
    daemon: Daemon, root: Path
) -> None:
    for number in range(1, 4):
        daemon.cli("send", "-s", "app", stdin=b'{"n":%d}\n' % number)
    daemon.stop()
    with ThreadPoolExecutor(1) as executor:
        store = Store(daemon.data, executor, CommitConfig(rewrite_limit=1))
        store.open()
        for number in range(4, 6):
            planned = {"app": store.plan("app", addition("p", number, 5))}
            assert not asyncio.run(store.commit(planned))
        store.close()
    first = segment_name(list_segments(daemon.data / "app")[0])
    (daemon.data / "app" / first).unlink()
    path = root / "export.ndjson"
    # What is retained no longer is missed by nobody who did not ask for it.
    daemon.cli("export", "app", "-o", str(path))
    path.unlink()
    done = daemon.cli("export", "--after", "app:1", "-o", str(path), status=1)
    assert b"were removed before they were read" in done.stderr
    assert b"--partial" in done.stderr
    assert not path.exists()
    daemon.cli("export", "--after", "app:1", "--partial", "-o", str(path))
    assert b'"reason":"removed"' in path.read_bytes()


def test_text_is_imported_with_its_time(daemon: Daemon, root: Path) -> None:
    path = root / "access.log"
    path.write_bytes(b'1.2.3.4 - - [23/Nov/2026:20:00:00 +0000] "GET /" 200\n\nno time\n')
    daemon.cli("import", str(path), "-s", "nginx")
    assert daemon.values("nginx") == [
        {
            "time": "2026-11-23T20:00:00.000000Z",
            "message": '1.2.3.4 - - [23/Nov/2026:20:00:00 +0000] "GET /" 200',
        },
        {"message": "no time"},
    ]


@pytest.mark.parametrize("form", sorted(COMPRESS))
@pytest.mark.parametrize("command", ["import", "send"])
def test_compressed_files_and_pipes_are_decompressed(
    daemon: Daemon, root: Path, form: str, command: str
) -> None:
    data = COMPRESS[form](b"".join(b'{"n":%d}\n' % number for number in range(1000)))
    path = root / "old.log.1"
    path.write_bytes(data)
    daemon.cli(command, str(path), "-s", "file")
    daemon.cli(command, "-", "-s", "pipe", stdin=data)
    for _ in range(2):
        daemon.cli(command, str(path), "-s", "resumed", "--resume", "night")
    for stream in ("file", "pipe", "resumed"):
        assert [value["n"] for value in daemon.values(stream)] == list(range(1000))


@pytest.mark.parametrize("options", [(), ("--resume", "night")])
def test_a_compressed_file_that_is_cut_off_is_a_clear_error(
    daemon: Daemon, root: Path, options: tuple[str, ...]
) -> None:
    path = root / "old.log.gz"
    path.write_bytes(COMPRESS["gzip"](b"a line\n" * 1000)[:-9])
    done = daemon.cli("import", str(path), "-s", "app", *options, status=1)
    (line,) = done.stderr.splitlines()
    assert str(path).encode() in line
    assert b"not a whole gzip file" in line


def test_a_journal_is_imported(daemon: Daemon) -> None:
    entry = b"__CURSOR=s=1\n__REALTIME_TIMESTAMP=1763928000000123\n_PID=7\nMESSAGE\n"
    entry += (3).to_bytes(8, "little") + b"a\nb\n\n"
    daemon.cli("import", "-", "-s", "journal", stdin=entry * 3)
    assert (
        daemon.values("journal")
        == [
            {
                "time": "2025-11-23T20:00:00.000123Z",
                "__CURSOR": "s=1",
                "__REALTIME_TIMESTAMP": "1763928000000123",
                "_PID": "7",
                "message": "a\nb",
            }
        ]
        * 3
    )


def test_an_export_is_imported_again(daemon: Daemon) -> None:
    send(daemon)
    before = exported(daemon, "app")
    daemon.cli("import", "-", "-s", "again", stdin=daemon.cli("export", "app").stdout)
    after = exported(daemon, "again")
    assert [record["time"] for record in after] == [record["_ts"] for record in before]
    assert [record["__seq"] for record in after] == [1, 2, 3]
    assert [record.get("message") for record in after] == [None, None, "text"]


def test_an_import_killed_and_run_again_stores_each_line_once(daemon: Daemon, root: Path) -> None:
    lines = [b"2026-11-23T20:00:00Z %06d" % number for number in range(50_000)]
    path = root / "old.log"
    path.write_bytes(b"\n".join(lines))
    arguments = ["import", str(path), "-s", "old", "--resume", "import"]
    for _ in range(3):
        importing = subprocess.Popen([*LOGENGINE, *arguments, "--socket", str(daemon.socket)])
        before = stored(daemon)
        eventually(
            lambda before=before, importing=importing: (  # type: ignore[misc]
                importing.poll() is not None or stored(daemon) > before
            )
        )
        importing.kill()
        importing.wait()
    assert b"skipped" in daemon.cli(*arguments).stderr
    records = [json.loads(line) for line in daemon.cli("cat", "old").stdout.splitlines()]
    assert [record["message"].encode() for record in records] == lines


def stored(daemon: Daemon) -> int:
    """How many records are there; by `cat`, for segments are merged meanwhile."""
    there = (daemon.data / "old").exists()
    return daemon.cli("cat", "old").stdout.count(b"\n") if there else 0


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["export", "nope"], 1, "no stream 'nope'"),
        (["export", "--format", "parquet"], 2, "name a FILE with -o"),
        (["export", "-o", "/dev/null"], 2, "not a regular file"),
        (["export", "-o", "/nonexistent/x"], 1, "/nonexistent/x: No such file or directory"),
        (["import", "-", "-s", "UP"], 2, "is not a valid stream name"),
        (["import", "/nonexistent", "-s", "app"], 1, "/nonexistent: No such file"),
        (["import", "-", "-s", "app", "--format", "journal"], 1, "-: at byte 0:"),
    ],
)
def test_a_mistake_is_one_clear_line(
    daemon: Daemon, arguments: list[str], status: int, said: str
) -> None:
    daemon.cli("send", "-s", "app", stdin=b"x\n")
    done = daemon.cli(*arguments, status=status, stdin=b"no journal\n")
    assert said in done.stderr.decode()
    assert status == 2 or len(done.stderr.splitlines()) == 1
