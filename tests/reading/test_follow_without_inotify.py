"""Following where the user's inotify instances or watches are used up."""

import contextlib
import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from asyncinotify import Inotify, Mask, Watch

import logengine
from logengine.format.segment import segment_name
from logengine.reading import follower, polled_watches
from tests.daemon import Daemon
from tests.reading.streams import line, write_stream

PATIENCE_S = 60.0


class Limited(Inotify):
    """inotify with the limits of a user."""

    instances_left = 0
    watches_left = 0

    def __init__(self) -> None:
        if not Limited.instances_left:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        super().__init__()

    def add_watch(self, path: Any, mask: Mask) -> Watch:
        before = len(self.watches)
        watch = super().add_watch(path, mask)
        if len(self.watches) > before:
            if not Limited.watches_left:
                self.rm_watch(watch)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
            Limited.watches_left -= 1
        return watch


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], None]:
    """Sets how many instances and watches are left."""
    monkeypatch.setattr(follower, "Inotify", Limited)
    monkeypatch.setattr(polled_watches, "LOOK_EVERY_S", 0.01)

    def set_limits(instances: int, watches: int) -> None:
        monkeypatch.setattr(Limited, "instances_left", instances)
        monkeypatch.setattr(Limited, "watches_left", watches)

    return set_limits


class Shown:
    """What a follower of all streams shows, by stream."""

    def __init__(self, data: Path) -> None:
        self.problems: list[logengine.Problem] = []
        self.seqs: dict[str, list[int]] = {}
        self._following = logengine.follow(
            data=data, last=2, timeout_s=PATIENCE_S, on_problem=self.problems.append
        )
        self._records = iter(self._following)

    def until(self, stream: str, seq: int) -> None:
        while seq not in self.seqs.get(stream, ()):
            record = next(self._records)
            self.seqs.setdefault(record.stream, []).append(record.seq)

    def close(self) -> None:
        self._following.stop()


def add(data: Path, stream: str, number: int) -> None:
    """Adds a record in a segment of its own, as a commit does."""
    written = data.with_name("written")
    write_stream(written, stream, *[[line(each)] for each in range(1, number + 1)])
    (data / stream).mkdir(exist_ok=True)
    (written / stream / segment_name(number)).rename(data / stream / segment_name(number))
    shutil.rmtree(written)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two streams, with three and two records."""
    data = tmp_path / "data"
    write_stream(data, "app", *[[line(number)] for number in range(1, 4)])
    write_stream(data, "web", *[[line(number)] for number in range(1, 3)])
    return data


@pytest.fixture
def shown(data: Path, limit: Callable[[int, int], None]) -> Iterator[Shown]:
    limit(0, 0)
    with closing(Shown(data)) as shown:
        yield shown


@pytest.mark.parametrize(("instances", "watches"), [(0, 0), *((1, n) for n in range(7))])
def test_each_record_is_shown_once_wherever_inotify_ends(
    data: Path, limit: Callable[[int, int], None], instances: int, watches: int
) -> None:
    limit(instances, watches)
    with closing(Shown(data)) as shown:
        shown.until("app", 3)
        add(data, "app", 4)
        shown.until("app", 4)
        add(data, "new", 1)
        shown.until("new", 1)
        add(data, "web", 3)
        add(data, "new", 2)
        shown.until("web", 3)
        shown.until("new", 2)
        seen = {stream: seqs[-2:] for stream, seqs in shown.seqs.items()}
        assert seen == {"app": [3, 4], "web": [2, 3], "new": [1, 2]}
        assert all(seqs == sorted(set(seqs)) for seqs in shown.seqs.values())


@pytest.mark.parametrize(
    ("instances", "expected"),
    [(0, "(sysctl fs.inotify.max_user_instances)"), (1, "(sysctl fs.inotify.max_user_watches)")],
)
def test_one_note_names_the_limit_and_is_no_damage(
    data: Path, limit: Callable[[int, int], None], instances: int, expected: str
) -> None:
    limit(instances, 0)
    with closing(Shown(data)) as shown:
        add(data, "app", 4)
        shown.until("app", 4)
        add(data, "web", 3)
        shown.until("web", 3)
        (note,) = shown.problems
        assert expected in note.what
        assert note.expected


def test_a_stream_that_is_removed_and_made_again_is_shown_from_its_start(
    data: Path, shown: Shown
) -> None:
    add(data, "web", 3)
    shown.until("web", 3)
    shutil.rmtree(data / "web")
    # The first may come from a look that was at "web" before it was removed; the second does not.
    for seq in (4, 5):
        add(data, "app", seq)
        shown.until("app", seq)
    add(data, "web", 1)
    while shown.seqs["web"][-1] != 1:
        add(data, "app", shown.seqs["app"][-1] + 1)
        shown.until("app", shown.seqs["app"][-1] + 1)


def test_a_data_directory_that_moves_away_and_comes_back_goes_on(data: Path, shown: Shown) -> None:
    add(data, "app", 4)
    shown.until("app", 4)
    data.rename(data.with_name("away"))
    add(data.with_name("away"), "app", 5)
    data.with_name("away").rename(data)
    shown.until("app", 5)
    assert shown.seqs["app"] == sorted(set(shown.seqs["app"]))


def test_a_data_directory_that_does_not_exist_yet_is_waited_for(
    tmp_path: Path, limit: Callable[[int, int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(0, 0)
    monkeypatch.setattr(follower, "LOOK_EVERY_S", 0.01)
    written = tmp_path / "elsewhere"
    write_stream(written, "app", [line(1)])
    with closing(Shown(tmp_path / "data")) as shown:
        written.rename(tmp_path / "data")
        shown.until("app", 1)


def descriptors_within(directory: Path) -> list[str]:
    """What this process has open there; threads of other tests may close theirs at any moment."""
    found = []
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return [path for path in found if Path(path).is_relative_to(directory)]


def test_no_descriptor_of_a_watch_is_left(data: Path) -> None:
    with polled_watches.PolledWatches() as watches:
        watch = watches.add_watch(data, Mask.ONLYDIR)
        assert watches.add_watch(data, Mask.ONLYDIR) is watch
        web = watches.add_watch(data / "web", Mask.ONLYDIR)
        watches.rm_watch(web)
        with pytest.raises(OSError, match="Invalid argument"):
            watches.rm_watch(web)
        with pytest.raises(NotADirectoryError):
            watches.add_watch(data / "web" / segment_name(1), Mask.ONLYDIR)
        assert descriptors_within(data), "that of the watch"
    assert descriptors_within(data) == []


NO_INOTIFY = (
    *("unshare", "--user", "--map-root-user", "sh", "-c"),
    (
        "echo 0 > /proc/sys/user/max_inotify_instances"
        ' && echo 0 > /proc/sys/user/max_inotify_watches && exec "$@"'
    ),
    "sh",
)


class DaemonWithoutInotify(Daemon):
    def _limits(self) -> list[str]:
        return list(NO_INOTIFY)


@pytest.mark.skipif(
    subprocess.run([*NO_INOTIFY, "true"], capture_output=True, check=False).returncode != 0,
    reason="needs user namespaces",
)
def test_the_daemon_and_tail_work_where_the_kernel_gives_no_inotify(root: Path) -> None:
    daemon = DaemonWithoutInotify(root)
    with closing(daemon):
        daemon.start()
        daemon.cli("send", "-s", "app", stdin=b"one\n")
        tail = subprocess.Popen(
            [
                *(*NO_INOTIFY, sys.executable, "-m", "logengine", "tail", "-f", "app"),
                *("--format", "json", "--data", str(daemon.data)),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with tail:
            assert tail.stdout is not None
            assert b'"one"' in tail.stdout.readline()
            daemon.cli("send", "-s", "app", stdin=b"two\n")
            assert b'"two"' in tail.stdout.readline()
            tail.terminate()
            assert tail.stderr is not None
            assert b"fs.inotify.max_user_instances" in tail.stderr.read()
        assert daemon.stop() == 0
