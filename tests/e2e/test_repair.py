"""`logengine repair`, beside the other commands."""

import json
from pathlib import Path

import pytest

from tests.compressed import compress_file
from tests.daemon import Daemon

RECORDS = 9


@pytest.fixture
def stopped(root: Path) -> Daemon:
    """A stopped daemon with three segments of three records, the first compressed."""
    daemon = Daemon(root, "[commit]\nrewrite_limit = 300\n")
    daemon.start()
    try:
        for number in range(RECORDS):
            daemon.cli("send", "-s", "app", stdin=b'{"n":%d,"x":"%s"}\n' % (number, b"x" * 30))
        daemon.stop()
    finally:
        daemon.close()
    paths = segments(daemon)
    assert len(paths) == 3
    compress_file(paths[0])
    return daemon


def segments(daemon: Daemon) -> list[Path]:
    return sorted((daemon.data / "app").glob("[0-9]*"))


def flip(path: Path, place: int) -> bytes:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    return bytes(content)


def shown(daemon: Daemon, *command: str) -> list[int]:
    return [json.loads(line)["n"] for line in daemon.cli(*command).stdout.splitlines()]


def test_a_damaged_segment_is_kept_and_its_records_are_told_of(stopped: Daemon) -> None:
    path = segments(stopped)[1]
    rotten = flip(path, -40)
    assert path.name.encode() in stopped.cli("verify", status=1).stdout

    said = stopped.cli("repair", "app", "--dry-run").stdout.decode()
    assert f"would move {path}" in said
    assert "would record" in said
    assert path.read_bytes() == rotten
    assert not (stopped.data / ".damaged").exists()

    said = stopped.cli("repair", "app").stdout.decode()
    assert said.splitlines()[-1] == "app: ok"
    kept, report_path, salvaged_path = sorted((stopped.data / ".damaged").iterdir())
    assert kept.name.startswith("app-")
    assert kept.name.endswith(f"Z-{path.name}")
    assert kept.read_bytes() == rotten
    report = json.loads(report_path.read_text())
    assert (report["file"], report["first"], report["last"]) == (path.name, 4, 6)
    assert report["kept_as"] == kept.name
    assert "sha256" in report["why"]
    salvaged = [json.loads(line) for line in salvaged_path.read_bytes().splitlines()]
    assert [record["_seq"] for record in salvaged] == [4, 5, 6]
    assert report["sure"] == [{"first": 4, "last": 6}]

    verified = stopped.cli("verify")
    assert verified.stdout == b"app: ok\n"
    assert b"records 4 to 6 are gone" in verified.stderr
    read = stopped.cli("cat", "app")
    assert [json.loads(line)["n"] for line in read.stdout.splitlines()] == [0, 1, 2, 6, 7, 8]
    assert read.stderr.count(b"note: app: records 4 to 6 are gone") == 1
    assert len(read.stderr.splitlines()) == 1
    assert stopped.cli("tail", "app", "-n", "3").stderr == b""
    assert shown(stopped, "tail", "app", "-n", "4") == [2, 6, 7, 8]
    assert shown(stopped, "tail", "app", "-n", "4", "--grep", "x") == [2, 6, 7, 8]
    assert shown(stopped, "cat", "app", "--after", "app:4") == [6, 7, 8]
    assert shown(stopped, "cat", "app", "--since", "1h") == [0, 1, 2, 6, 7, 8]
    assert stopped.cli("cat", "app", "--since", "now").stderr == b""
    assert stopped.cli("repair", "app").stdout == b"app: ok\n"


@pytest.mark.parametrize("place", [20, -40])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_daemon_goes_on_after_a_repair(stopped: Daemon, which: int, place: int) -> None:
    path = segments(stopped)[which]
    flip(path, place)
    left = [n for n in range(RECORDS) if n // 3 != which]
    stopped.cli("repair", "app")
    assert shown(stopped, "cat", "app") == left
    try:
        stopped.start()
        stopped.cli("send", "-s", "app", stdin=b'{"n":100}\n')
        stopped.cli("send", "-s", "app", stdin=b'{"n":101}\n')
        assert shown(stopped, "cat", "app") == [*left, 100, 101]
        assert shown(stopped, "tail", "app", "-n", "1") == [101]
        stopped.cli("verify")
        assert "segment_damaged" not in stopped.events()
        seqs = [json.loads(line)["_seq"] for line in stopped.cli("cat", "app").stdout.splitlines()]
        assert seqs[-2] == (10 + 99_999_997 if (which, place) == (2, 20) else 10)
        (told,) = map(json.loads, stopped.cli("ls", "--json").stdout.splitlines())
        assert told["damaged"] == 0
    finally:
        stopped.close()


def test_what_writers_left_is_moved_too(stopped: Daemon) -> None:
    temp = stopped.data / "app" / ".00000000000000000004.ndjson.00ff.tmp"
    temp.write_bytes(b"half")
    first = segments(stopped)[0]
    leftover = first.with_suffix("")
    leftover.write_bytes(b"damaged, and not read")
    stopped.cli("repair", "app")
    assert not temp.exists()
    assert not leftover.exists()
    kept = {path.read_bytes() for path in (stopped.data / ".damaged").iterdir()}
    assert {b"half", b"damaged, and not read"} <= kept
    assert stopped.cli("verify").stderr == b""


def test_a_running_daemon_is_left_alone(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b"x\n")
    done = daemon.cli("repair", "app", status=1)
    assert b"in use by a running daemon; stop it" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert b"name the streams" in daemon.cli("repair", status=2).stderr
