"""`logengine erase`, beside the other commands."""

import json
import os
import pwd
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from logengine.errors import OldBytesRemain
from logengine.upkeep.erase import ERASING_DIRECTORY, finish
from tests.daemon import Daemon
from tests.three_segments import stopped_daemon, store_three_segments
from tests.unnoted import unnoted

RECORDS = 9


@pytest.fixture(scope="module")
def template() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="le-") as name:
        users = [b"ann" if number % 4 == 0 else b"bob" for number in range(RECORDS)]
        lines = (
            b'{"n":%d,"user":"%s","x":"%s"}\n' % (number, user, b"x" * 30)
            for number, user in enumerate(users)
        )
        yield store_three_segments(Path(name), lines)


@pytest.fixture
def stopped(root: Path, template: Path) -> Daemon:
    """A stopped daemon with three segments of three records, the first compressed."""
    return stopped_daemon(root, template)


def own_name() -> str:
    return pwd.getpwuid(os.getuid()).pw_name


def shown(daemon: Daemon, *command: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in daemon.cli(*command).stdout.splitlines()]


def test_erased_records_are_tombstones_and_all_else_is_as_before(stopped: Daemon) -> None:
    before = shown(stopped, "cat", "app")
    erase = ("erase", "app", "--where", "user=ann")
    said = stopped.cli(*erase, "--dry-run").stdout.decode()
    assert said.splitlines()[-1] == "app: would erase 3 records"
    assert shown(stopped, "cat", "app") == before
    said = stopped.cli(*erase, "--reason", "her right").stdout.decode()
    assert said.splitlines() == [
        "00000000000000000001.ndjson.zst: erased 1",
        "00000000000000000004.ndjson: erased 5",
        "00000000000000000007.ndjson: erased 9",
        "app: erased 3 records",
    ]
    after = shown(stopped, "cat", "app")
    for record, old in zip(after, before, strict=True):
        if old["user"] == "bob":
            assert record == old
            continue
        mark = record.pop("_erased")
        assert (mark["by"], mark["uid"], mark["why"]) == (own_name(), os.getuid(), "her right")
        assert mark["when"] > old["_ts"]
        assert record == {name: old[name] for name in ("_stream", "_seq", "_ts")}
    assert stopped.cli("verify").stdout == b"app: ok\n"
    assert stopped.cli(*erase).stdout == b"app: erased 0 records\n"
    assert stopped.cli("erase", "app", "--since", "1d").stdout.endswith(b": erased 6 records\n")
    assert b"her right" in stopped.cli("cat", "app", "--format", "pretty").stdout
    assert not list((stopped.data / ERASING_DIRECTORY).iterdir())
    try:
        stopped.start()
        stopped.cli("send", "-s", "app", stdin=b'{"n":100}\n')
        assert [record["_seq"] for record in shown(stopped, "cat", "app")] == list(range(1, 11))
        stopped.cli("verify")
    finally:
        stopped.close()


def test_records_are_erased_by_number(stopped: Daemon) -> None:
    stopped.cli("erase", "app", "--after", "app:2", "--up-to", "app:4")
    erased = [each["_seq"] for each in shown(stopped, "cat", "app") if "_erased" in each]
    assert erased == [3, 4]


@pytest.mark.parametrize("undecided", ["not user > 5", "not missing > 5", "not level >= error"])
def test_a_record_for_which_an_expression_is_undecided_is_not_erased(
    stopped: Daemon, undecided: str
) -> None:
    done = stopped.cli("erase", "app", "--where", undecided)
    assert done.stdout == b"app: erased 0 records\n"
    assert stopped.cli(
        "erase", "app", "--where", 'user ~ "^a" and not user == bob'
    ).stdout.endswith(b": erased 3 records\n")


def test_in_a_damaged_segment_nothing_is_erased_and_that_is_said(stopped: Daemon) -> None:
    _, path, _ = sorted((stopped.data / "app").glob("[0-9]*"))
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    done = stopped.cli("erase", "app", "--where", "user=ann", status=1)
    assert b"app: erased 2 records" in done.stdout
    assert path.name.encode() in done.stderr
    assert b"nothing in it was erased" in done.stderr
    assert path.read_bytes() == content
    # Where nothing is to be erased, nothing is read.
    done = stopped.cli("erase", "app", "--where", "user=ann", "--up-to", "app:3")
    assert done.stdout == b"app: erased 0 records\n"
    stopped.cli("repair", "app")
    assert b"note: " in stopped.cli("erase", "app", "--where", "user=ann").stdout


def test_nobody_can_erase_in_the_name_of_another_user(stopped: Daemon) -> None:
    erase = ("erase", "app", "--up-to", "app:1")
    stopped.cli(*erase, SUDO_USER="mallory", SUDO_UID="4711", LOGNAME="mallory", USER="mallory")
    mark = shown(stopped, "cat", "app")[0]["_erased"]
    assert (mark["by"], mark["uid"]) == (own_name(), os.getuid())


def test_what_is_open_is_not_overwritten_under_its_reader(tmp_path: Path) -> None:
    erasing = tmp_path / ERASING_DIRECTORY
    erasing.mkdir()
    (tmp_path / "app").mkdir()
    old = erasing / "app-00000000000000000001.ndjson"
    old.write_bytes(b"secret")
    with old.open("rb") as reader:
        with pytest.raises(OldBytesRemain, match="still open"):
            finish(tmp_path, 0.0, unnoted())
        assert reader.read() == b"secret"
    backup = tmp_path / "backup"
    backup.hardlink_to(old)
    with pytest.raises(OldBytesRemain, match="another hard link"):
        finish(tmp_path, 0.0, unnoted())
    backup.unlink()
    finish(tmp_path, 0.0, unnoted())
    assert not list(erasing.iterdir())


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["app"], 2, "say which records"),
        (["nope", "--grep", "x"], 1, "no stream 'nope'"),
        (["app", "--up-to", "web:5"], 2, "web:5 is not a cursor of app"),
        (["app", "--up-to", "5"], 2, "expected STREAM:SEQ"),
        (["app", "--grep", "x", "--reason", "x" * 1001], 2, "1000 characters"),
        (["app", "--grep", "x"], 1, "in use by a running daemon"),
    ],
)
def test_a_mistake_is_one_clear_line(
    daemon: Daemon, arguments: list[str], status: int, said: str
) -> None:
    daemon.cli("send", "-s", "app", stdin=b"x\n")
    done = daemon.cli("erase", *arguments, status=status)
    assert said in done.stderr.decode()
    assert status == 2 or len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("option", ["--since", "--until"])
def test_a_time_of_the_day_that_is_still_to_come_erases_nothing(
    stopped: Daemon, option: str
) -> None:
    noon = f"LOC{datetime.now(UTC).hour - 12}"
    done = stopped.cli("erase", "app", option, "23:00", "--dry-run", status=2, TZ=noon)
    assert b"write 'yesterday 23:00' or 'today 23:00'" in done.stderr
    said = stopped.cli("erase", "app", option, "today 23:00", "--dry-run", TZ=noon).stdout
    assert said.endswith(b": would erase %d records\n" % (0 if option == "--since" else 9))
