"""The path of the data directory means another directory, or none, while the daemon runs."""

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from logengine.disk.directory import Directory
from logengine.disk.file_system import risks_at
from logengine.errors import DataDirectoryIncomplete
from logengine.store.store import Store
from tests.crash.rig.image import image, missing
from tests.crash.rig.oracle import AtOnce
from tests.daemon import Daemon, Producer, eventually

LINES = b"".join(b'{"n":%d}\n' % number for number in range(1, 101))


@contextlib.contextmanager
def another(root: Path, data: Path | None = None) -> Iterator[Daemon]:
    """A second daemon; its files are below `root`, beside those of the first."""
    (root / "b").mkdir()
    daemon = Daemon(root / "b", data=data)
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture
def stored(root: Path) -> Path:
    """A data directory with 100 records of producer "p" in stream "app", and no daemon."""
    with another(root) as daemon:
        producer, _ = named(daemon)
        producer.send(LINES)
        producer.wait_for_ack(100)
        assert daemon.stop() == 0
        return daemon.data


def numbers(data: Path, stream: str = "app") -> list[int]:
    lines: list[bytes] = []
    for path in sorted((data / stream).glob("[0-9]*.ndjson")):
        lines += path.read_bytes().splitlines()[1:]
    return [json.loads(line)["n"] for line in lines]


def moved_away(daemon: Daemon) -> Path:
    old = daemon.data.with_name("old")
    daemon.data.rename(old)
    return old


def status(daemon: Daemon, code: int) -> dict[str, Any]:
    return daemon.status(code)


def named(daemon: Daemon, **said: Any) -> tuple[Producer, int]:
    producer = daemon.connect()
    return producer, producer.hello(stream="app", producer="p", **said)["next"]


def test_what_is_stored_in_another_directory_is_followed_and_not_written_over(
    daemon: Daemon, stored: Path
) -> None:
    daemon.cli("send", "-s", "app", stdin=b'{"n":-1}\n')
    old = moved_away(daemon)
    stored.rename(daemon.data)
    daemon.cli("send", "-s", "app", stdin=b'{"n":101}\n')
    assert numbers(daemon.data) == list(range(1, 102))
    assert numbers(old) == [-1]
    daemon.cli("verify")
    assert daemon.stop() == 0  # which writes the rest of the log
    assert daemon.events().count("data_directory_replaced") == 1


def test_a_named_producer_is_sent_away_and_told_where_the_new_directory_goes_on(
    daemon: Daemon, stored: Path
) -> None:
    producer, begins = named(daemon)
    assert begins == 1
    producer.send(b'{"n":1}\n')
    producer.wait_for_ack(1)
    moved_away(daemon)
    eventually(lambda: "data_directory_unusable" in daemon.events())
    # Under the number 2 it is in the new directory already.
    producer.send(b'{"n":2}\n')
    eventually(lambda: status(daemon, 1)["pending_bytes"])
    stored.rename(daemon.data)
    assert producer.answer() == {"goodbye": "data_directory_replaced"}
    assert producer.answer() == {}
    again, begins = named(daemon, first=2)
    assert begins == 101
    again.send(b'{"n":101}\n')
    again.wait_for_ack(101)
    assert numbers(daemon.data) == list(range(1, 102))


def test_a_welcome_under_way_is_of_the_directory_that_is_recovered_next(
    daemon: Daemon, stored: Path
) -> None:
    moved_away(daemon)
    eventually(lambda: "data_directory_unusable" in daemon.events())
    producer = daemon.connect()
    producer.send(b'{"_hello":1,"stream":"app","producer":"p"}\n')
    eventually(lambda: status(daemon, 1)["failing_streams"])
    stored.rename(daemon.data)
    assert producer.answer()["next"] == 101


def test_while_there_is_no_directory_nothing_is_begun_and_nothing_lost(daemon: Daemon) -> None:
    nameless = daemon.connect()
    nameless.hello(stream="app")
    nameless.send(b'{"n":1}\n')
    nameless.wait_for_ack(1)
    old = moved_away(daemon)
    nameless.send(b'{"n":2}\n')
    silent = daemon.connect()
    silent.send(b'{"n":1}\n')
    told = eventually(lambda: (found := status(daemon, 1))["failing_streams"] == 2 and found)
    assert f"{daemon.data} is gone" in told["unusable"]
    assert not daemon.data.exists()
    shown = daemon.cli("status", status=1).stdout.decode()
    assert f"nothing is committed: {daemon.data} is gone" in shown
    daemon.data.mkdir()
    nameless.wait_for_ack(2)
    assert silent.end() == b""
    assert numbers(old) == [1]
    assert numbers(daemon.data) == [2]
    assert numbers(daemon.data, "default") == [1]
    eventually(lambda: status(daemon, 0)["ok"])


def test_a_directory_that_comes_back_is_gone_on_with(daemon: Daemon) -> None:
    producer, _ = named(daemon)
    producer.send(b'{"n":1}\n')
    producer.wait_for_ack(1)
    old = moved_away(daemon)
    producer.send(b'{"n":2}\n')
    eventually(lambda: status(daemon, 1)["failing_streams"])
    old.rename(daemon.data)
    producer.wait_for_ack(2)
    assert numbers(daemon.data) == [1, 2]
    eventually(lambda: "data_directory_is_back" in daemon.events(), "data_directory_is_back")


def test_of_two_daemons_the_one_whose_directory_was_removed_writes_nothing(
    daemon: Daemon, root: Path
) -> None:
    daemon.cli("send", "-s", "app", stdin=b'{"n":1}\n')
    shutil.rmtree(daemon.data)
    with another(root, daemon.data) as second:
        waiting = daemon.connect()
        waiting.send(b'{"n":9}\n')
        second.cli("send", "-s", "app", stdin=b'{"n":2}\n')
        eventually(lambda: "another logengine daemon" in status(daemon, 1)["unusable"])
        assert numbers(daemon.data) == [2]
        assert second.stop() == 0
    # Its turn has come, and nothing that it had received is lost.
    assert waiting.end() == b""
    assert (numbers(daemon.data), numbers(daemon.data, "default")) == ([2], [9])


def test_a_lock_that_was_removed_is_taken_again_before_anything_is_committed(
    daemon: Daemon,
) -> None:
    daemon.cli("send", "-s", "app", stdin=b'{"n":1}\n')
    (daemon.data / ".lock").unlink()
    daemon.cli("send", "-s", "app", stdin=b'{"n":2}\n')
    assert numbers(daemon.data) == [1, 2]
    assert (daemon.data / ".lock").exists()
    eventually(lambda: "data_directory_replaced" in daemon.events(), "data_directory_replaced")


def test_a_stream_whose_directory_was_removed_goes_on_with_the_next_number(
    daemon: Daemon,
) -> None:
    producer, _ = named(daemon)
    producer.send(b'{"n":1}\n{"n":2}\n')
    producer.wait_for_ack(2)
    shutil.rmtree(daemon.data / "app")
    producer.send(b'{"n":3}\n')
    producer.wait_for_ack(3)
    assert numbers(daemon.data) == [3]
    assert [path.name for path in daemon.segments("app")] == ["00000000000000000003.ndjson"]
    (gone,) = daemon.logged("stream_directory_removed")
    assert (gone["stream"], gone["goes_on_at"]) == ("app", 3)
    daemon.cli("verify")
    assert daemon.stop() == 0
    daemon.start()
    assert named(daemon)[1] == 4


@contextlib.contextmanager
def mounted(where: Path, *arguments: str) -> Iterator[None]:
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    done = subprocess.run(["mount", *arguments, str(where)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr.decode()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(where)], capture_output=True, check=False)


def test_a_volume_mounted_late_is_not_written_over(daemon: Daemon, stored: Path) -> None:
    daemon.cli("send", "-s", "app", stdin=b'{"n":-1}\n')
    with mounted(daemon.data, "--bind", str(stored)):
        daemon.cli("send", "-s", "app", stdin=b'{"n":101}\n')
        assert numbers(daemon.data) == list(range(1, 102))


def test_beneath_a_volume_that_was_unmounted_nothing_is_begun(root: Path) -> None:
    data = root / "data"
    data.mkdir()
    with mounted(data, "-t", "tmpfs", "none"), another(root, data) as daemon:
        daemon.cli("send", "-s", "app", stdin=b'{"n":1}\n')
        subprocess.run(["umount", "--lazy", str(data)], check=True)
        waiting = daemon.connect()
        waiting.send(b'{"n":2}\n')
        eventually(lambda: "is no longer mounted" in status(daemon, 1)["unusable"])
        assert os.listdir(data) == []
        with mounted(data, "-t", "tmpfs", "none"):
            assert waiting.end() == b""
            assert numbers(data, "default") == [2]


def test_a_start_on_a_read_only_file_system_waits_until_it_can_be_written(root: Path) -> None:
    data = root / "data"
    data.mkdir()
    with mounted(data, "-t", "tmpfs", "-o", "ro", "none"), another(root, data) as daemon:
        eventually(lambda: "data_directory_unusable" in daemon.events())
        assert "Read-only file system" in status(daemon, 1)["unusable"]
        waiting = daemon.connect()
        waiting.send(b'{"n":1}\n')
        subprocess.run(["mount", "-o", "remount,rw", str(data)], check=True)
        assert waiting.end() == b""
        assert numbers(data, "default") == [1]
        assert "data_directory_replaced" not in daemon.events()
        assert status(daemon, 0)["ok"]


def emptied(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b'{"n":1}\n')
    daemon.cli("send", "-s", "web", stdin=b'{"n":1}\n')
    daemon.kill()
    for stream in ("app", "web"):
        shutil.rmtree(daemon.data / stream)


def test_after_a_kill_a_directory_without_any_of_its_streams_is_not_begun_in(
    daemon: Daemon,
) -> None:
    emptied(daemon)
    daemon.start()
    waiting = daemon.connect()
    waiting.send(b'{"n":2}\n')
    why = eventually(lambda: status(daemon, 1)["unusable"])
    assert "none of the 2 streams" in why
    # It says how to go on, and that is all it takes.
    mark = Path(why.rpartition("remove ")[2].removesuffix(" too"))
    mark.unlink()
    assert waiting.end() == b""
    assert numbers(daemon.data, "default") == [2]


def test_a_stream_that_was_removed_beside_others_holds_up_no_start(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b'{"n":1}\n')
    daemon.cli("send", "-s", "web", stdin=b'{"n":1}\n')
    daemon.kill()
    shutil.rmtree(daemon.data / "app")
    daemon.start()
    assert named(daemon)[1] == 1
    assert status(daemon, 0)["unusable"] == ""


def test_what_is_removed_after_a_stop_holds_up_no_start(daemon: Daemon) -> None:
    daemon.cli("send", "-s", "app", stdin=b'{"n":1}\n')
    assert daemon.stop() == 0
    shutil.rmtree(daemon.data / "app")
    daemon.start()
    assert named(daemon)[1] == 1


def test_a_file_system_that_lists_nothing_is_not_begun_in(tmp_path: Path) -> None:
    def open_store() -> Store:
        store = Store(tmp_path, AtOnce(), boot_id="a boot")
        store.open()
        return store

    open_store().close()
    with (
        patch.object(Directory, "names", return_value=[]),
        pytest.raises(DataDirectoryIncomplete, match=r"does not list \.lock"),
    ):
        open_store()
    open_store().close()


def test_the_file_system_is_told_of_where_it_is_not_safe(root: Path) -> None:
    data = root / "data"
    data.mkdir()
    with mounted(data, "-t", "tmpfs", "none"), another(root, data) as daemon:
        (risk,) = status(daemon, 0)["risks"]
        assert "loses everything" in risk
        assert risk in daemon.cli("status").stdout.decode()
        (warned,) = daemon.logged("file_system_not_safe")
        assert warned["reason"] == risk


@pytest.mark.parametrize(("options", "is_safe"), [((), True), (("-O", "^has_journal"), False)])
def test_an_ext4_is_safe_where_it_has_a_journal(options: tuple[str, ...], is_safe: bool) -> None:
    if why := missing("ext4"):
        pytest.skip(why)
    with image("ext4", *options) as made, Directory.open(made.directory) as directory:
        assert bool(risks_at(directory)) is not is_safe
