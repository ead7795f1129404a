"""The daemon makes search filters; an erasure leaves none of an erased record."""

from pathlib import Path

import pytest

from logengine.disk.search_filters import FILTERS_NAME, TIMES_SUFFIX
from tests.daemon import Daemon, eventually

SEALING = """
[commit]
rewrite_limit = "1KiB"
[compaction]
seal_bytes = "16KiB"
fanout = 2
"""


def filled(daemon: Daemon) -> None:
    lines = b"".join(b"record %d of ann %s\n" % (number, b"x " * 60) for number in range(200))
    daemon.cli("send", "-s", "app", stdin=lines)
    daemon.cli("send", "-s", "app", stdin=b"one more\n")


def filters(daemon: Daemon) -> list[Path]:
    directory = daemon.data / FILTERS_NAME / "app"
    return sorted(directory.iterdir()) if directory.exists() else []


def sealed(daemon: Daemon) -> list[Path]:
    return sorted((daemon.data / "app").glob("*.zst"))


def have_filters(daemon: Daemon) -> bool:
    names = [path.name.partition(".")[0] for path in sealed(daemon)]
    files = sorted([*names, *[name + TIMES_SUFFIX for name in names]])
    return bool(names) and [path.name for path in filters(daemon)] == files


def test_a_daemon_makes_filters_for_what_it_seals_and_for_what_is_there(root: Path) -> None:
    daemon = Daemon(root, SEALING)
    daemon.start()
    try:
        filled(daemon)
        eventually(lambda: have_filters(daemon), "search filters")
        found = daemon.cli("cat", "app", "--grep", "record 150 ").stdout
        assert found.count(b"\n") == 1
        assert daemon.stop() == 0
        before = {path.name: path.stat().st_ino for path in filters(daemon)}
        filters(daemon)[0].unlink()
        daemon.start()
        eventually(lambda: have_filters(daemon), "search filters")
        changed = {path.name for path in filters(daemon) if path.stat().st_ino != before[path.name]}
        assert changed <= {filters(daemon)[0].name}
        assert daemon.cli("verify").stdout.startswith(b"app: ok")
    finally:
        daemon.close()


def test_without_search_filters_a_daemon_makes_none(root: Path) -> None:
    daemon = Daemon(root, f"{SEALING}search_filters = false\n")
    daemon.start()
    try:
        filled(daemon)
        eventually(lambda: len(sealed(daemon)) > 0, "a seal")
        assert daemon.stop() == 0
        assert not (daemon.data / FILTERS_NAME).exists()
    finally:
        daemon.close()


@pytest.mark.parametrize("left", ["", ".00000000000000000001.5f.tmp"])
def test_an_erasure_destroys_the_filters_of_what_it_changes(root: Path, left: str) -> None:
    daemon = Daemon(root, SEALING)
    daemon.start()
    try:
        filled(daemon)
        eventually(lambda: have_filters(daemon), "search filters")
        assert daemon.stop() == 0
        before = [path.name for path in filters(daemon)]
        of_first, others = before[:2], before[2:]
        assert of_first == [f"{1:020d}", f"{1:020d}{TIMES_SUFFIX}"]
        daemon.cli("erase", "app", "--where", "message=record 0 of bob")
        assert [path.name for path in filters(daemon)] == before
        if left:
            (daemon.data / FILTERS_NAME / "app" / left).write_bytes(b"half")
        daemon.cli("erase", "app", "--grep", "record 0 of ann")
        assert [path.name for path in filters(daemon)] == others
        assert b"_erased" in daemon.cli("cat", "app", "--format", "json").stdout
        daemon.start()
        eventually(lambda: have_filters(daemon), "search filters")
    finally:
        daemon.close()


def test_an_erasure_leaves_no_filters_of_segments_that_are_gone(root: Path) -> None:
    daemon = Daemon(root, SEALING).start()
    try:
        filled(daemon)
        eventually(lambda: have_filters(daemon), "search filters")
        assert daemon.stop() == 0
        current = filters(daemon)
        # As after a kill right after a segment was removed, or divided by a repair.
        gone = current[0].with_name(f"{10**6:020d}")
        gone.write_bytes(current[0].read_bytes())
        gone.with_name(f"{10**7:020d}").write_bytes(b"damaged")
        for suffix, content in (("", current[1].read_bytes()), ("0", b"damaged")):
            gone.with_name(f"{f'{10**6}{suffix}':0>20}{TIMES_SUFFIX}").write_bytes(content)
        daemon.cli("erase", "app", "--where", "message=record 0 of bob")
        assert filters(daemon) == current
    finally:
        daemon.close()
