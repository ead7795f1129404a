"""How many flushes a commit takes, as `logengine status` and the daemon's log say it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from logengine.disk.directory import Directory
from logengine.disk.file_system import commit_way_at
from logengine.store.settings import CommitConfig
from logengine.store.store import Store
from tests.crash.rig.image import image, missing
from tests.crash.rig.oracle import AtOnce
from tests.daemon import Daemon

AUTO = '[commit]\none_flush = "auto"\n'


def asked(daemon: Daemon) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(daemon.cli("status", "--json").stdout)
    return answer


@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_status_and_log_say_how_many_flushes_a_commit_takes_and_why(
    tmp_path: Path, kind: str
) -> None:
    if why := missing(kind):
        pytest.skip(why)
    with image(kind) as disk:
        with Directory.open(disk.directory) as directory:
            way = commit_way_at(directory)
        daemon = Daemon(tmp_path, AUTO, data=disk.directory / "data")
        daemon.start()
        daemon.cli("send", "-s", "app", stdin=b"one\n")
        daemon.cli("send", "-s", "app", stdin=b"two\n")
        status = asked(daemon)
        assert status["commit_flushes"] == way.flushes
        assert status["commit_flushes_reason"] == way.reason
        assert way.reason in daemon.cli("status").stdout.decode()
        (told,) = (each for each in daemon.log() if each["event"] == "commit_flushes")
        assert told["flushes"] == way.flushes
        assert told["reason"] == way.reason
        assert len(daemon.cli("cat", "app").stdout.splitlines()) == 2
        assert daemon.stop() == 0
        daemon.close()


def test_the_setting_is_the_reason(make_daemon: Callable[..., Daemon]) -> None:
    daemon = make_daemon('[commit]\none_flush = "never"\n')
    assert asked(daemon)["commit_flushes"] == 2
    assert "one_flush" in asked(daemon)["commit_flushes_reason"]
    assert "flushes    twice" in daemon.cli("status").stdout.decode()


def test_a_remount_is_noticed(tmp_path: Path) -> None:
    if why := missing("ext4"):
        pytest.skip(why)
    with image("ext4") as disk:
        store = Store(disk.directory / "data", AtOnce(), CommitConfig(one_flush="auto"))
        store.open()
        if store.commit_way.flushes == 2:
            pytest.skip(store.commit_way.reason)
        for options, flushes in (("nobarrier", 2), ("barrier", 1)):
            mounted = ["mount", "-o", f"remount,{options}", str(disk.directory)]
            subprocess.run(mounted, check=True)
            store.look_at_file_system()
            assert store.commit_way.flushes == flushes
        store.close()
