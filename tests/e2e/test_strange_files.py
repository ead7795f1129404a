"""Files that are not what they seem, in every place of a data directory, beneath every command.

Root is the user whom another user's files can harm most: as root, what leads to another file is
put into a directory of another user.
"""

import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from logengine.format.compression import encode_compressed_header
from logengine.format.segment import (
    Frame,
    Header,
    IndexEntry,
    body_sha256,
    encode_header,
    segment_name,
)
from tests.daemon import PATIENCE_S, Daemon, eventually
from tests.e2e.test_status import asked

IS_ROOT = os.geteuid() == 0
only_root = pytest.mark.skipif(not IS_ROOT, reason="only root can make it")
OTHER = 65534
TIME = "2026-11-27T00:00:00.000000Z"
COMMANDS = {
    "ls": ["ls"],
    "cat": ["cat"],
    "tail": ["tail"],
    "verify": ["verify"],
    "seals": ["seals"],
    "export": ["export", "-o", "EXPORT"],
    "supposed retain": ["retain", "--dry-run"],
    "retain": ["retain"],
    "supposed repair": ["repair", "app", "--dry-run"],
    "erase": ["erase", "app", "--grep", "nothing has this"],
}
CHANGING = {"retain", "supposed repair", "erase"}


class Place(NamedTuple):
    """Where something strange is, and the commands that must say so and exit with 1."""

    path: str
    failing: set[str]
    is_directory: bool = False
    lets_start: bool = True


READING = {"cat", "tail", "verify", "seals", "export", "erase"}
PLACES = {
    "segment": Place(f"app/{segment_name(3)}", READING),
    "sealed segment": Place(f"app/{segment_name(3, compressed=True)}", READING),
    "lock": Place(".lock", CHANGING, lets_start=False),
    "crash mark": Place(".running", CHANGING, lets_start=False),
    "durable mark": Place(".durable/app", set()),
    "durable marks": Place(".durable", set(), is_directory=True),
    "reserve": Place(".reserve", set()),
    "temp": Place(f"app/.{segment_name(5)}.0123456789abcdef.tmp", set()),
    "temp mark": Place(".durable/.web.tmp", set()),
    "cursor": Place(".cursors/backup", {"retain", "supposed retain"}),
    "cursors": Place(".cursors", {"retain", "supposed retain"}, is_directory=True),
    "erasing": Place(".erasing", {"erase"}, is_directory=True),
    "damaged": Place(".damaged", set(), is_directory=True),
    "stream": Place("app", {"verify", "supposed repair", "erase"}, is_directory=True),
}


def make_socket(path: Path, _: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        here = os.open(path.parent, os.O_PATH)
        listener.bind(f"/proc/self/fd/{here}/{path.name}")  # the whole path may be too long
        os.close(here)


def make_device(path: Path, _: Path) -> None:
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero: it has no end


def make_link_inside(path: Path, outside: Path) -> None:
    data = path.parent if path.parent.name == "data" else path.parent.parent
    inside = data / ".target"
    if outside.is_dir():
        shutil.copytree(outside, inside)
    else:
        shutil.copy(outside, inside)
    path.symlink_to(os.path.relpath(inside, path.parent))


KINDS: dict[str, Callable[[Path, Path], None]] = {
    "FIFO": lambda path, _: os.mkfifo(path),
    "socket": make_socket,
    "device": make_device,
    "directory": lambda path, _: path.mkdir(),
    "link to outside": lambda path, outside: path.symlink_to(outside),
    "link to inside": make_link_inside,
    "dangling link": lambda path, _: path.symlink_to("nowhere"),
    "hard link of another user": lambda path, outside: path.hardlink_to(outside),
}
LEADING = {"link to outside", "link to inside", "dangling link", "hard link of another user"}
# `make test` tries each place with some kinds and each kind in some places; `make crash` all.
_ONE_OF = 3
CASES = [
    pytest.param(
        place,
        kind,
        marks=[
            *([only_root] if kind in {"device", "hard link of another user"} else []),
            *([pytest.mark.campaign] if (place_number + kind_number) % _ONE_OF else []),
        ],
    )
    for place_number, (place, where) in enumerate(PLACES.items())
    for kind_number, kind in enumerate(KINDS)
    if not (where.is_directory and kind in {"directory", "hard link of another user"})
]


class Prepared(NamedTuple):
    data: Path
    outside: Path

    def check_outside(self) -> None:
        """What the strange file leads to is as it was."""
        if self.outside.is_dir():
            assert [each.name for each in self.outside.iterdir()] == [segment_name(1)]
            content = (self.outside / segment_name(1)).read_bytes()
        else:
            content = self.outside.read_bytes()
        assert content == segment("app", 3)


def segment(stream: str, first: int) -> bytes:
    body = b"".join(
        b'{"_ts":"%s","n":%d}\n' % (TIME.encode(), number) for number in (first, first + 1)
    )
    header = header_of(stream, first, 2, len(body), body_sha256(body))
    return encode_header(header) + body


def header_of(stream: str, first: int, count: int, bytes_: int, sha256: str = "0" * 64) -> Header:
    return Header(
        version=1,
        stream=stream,
        first=first,
        count=count,
        bytes=bytes_,
        since=TIME,
        until=TIME,
        latest=TIME,
        sha256=sha256,
    )


def seed(data: Path) -> None:
    for stream in ("app", "web"):
        (data / stream).mkdir(parents=True)
        for first in (1, 3):
            (data / stream / segment_name(first)).write_bytes(segment(stream, first))


def prepared(root: Path, place: Place, kind: str) -> Prepared:
    """A data directory with something strange; what leads elsewhere leads to a whole segment."""
    data, outside = root / "data", root / "outside"
    seed(data)
    if place.is_directory:
        outside.mkdir()
        (outside / segment_name(1)).write_bytes(segment("app", 3))
    else:
        outside.write_bytes(segment("app", 3))
    path = data / place.path
    path.parent.mkdir(exist_ok=True)
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    if IS_ROOT and kind in LEADING:
        chown_all(root)
    KINDS[kind](path, outside)
    if IS_ROOT and kind in LEADING:
        os.chown(path.parent, OTHER, OTHER)
        if stat.S_ISLNK(path.lstat().st_mode):
            os.chown(path, OTHER, OTHER, follow_symlinks=False)
        for each in (outside, *(outside.iterdir() if outside.is_dir() else [])):
            os.chown(each, 0, 0)
            each.chmod(0o777 if each.is_dir() else 0o600)
    return Prepared(data, outside)


def chown_all(root: Path) -> None:
    root.chmod(0o755)
    for directory, _, names in os.walk(root / "data"):
        for name in (".", *names):
            os.chown(os.path.join(directory, name), OTHER, OTHER, follow_symlinks=False)


def results(
    data: Path, commands: Sequence[Sequence[str]], *, memory_bytes_max: int = 0
) -> list[dict[str, Any]]:
    """Runs commands in a data directory; each ends by itself, and none with a traceback."""
    export = str(data.parent / "exported")
    arguments = [
        [*(export if each == "EXPORT" else each for each in command), "--data", str(data)]
        for command in commands
    ]
    done = subprocess.run(
        [sys.executable, "-m", "tests.e2e.forked_commands", str(memory_bytes_max)],
        input=json.dumps(arguments).encode(),
        stdout=subprocess.PIPE,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(done.stdout)
    for command, result in zip(commands, found, strict=True):
        assert result["status"] in (0, 1), (command, result)
        assert "Traceback" not in result["stderr"], (command, result)
    return found


@pytest.mark.parametrize(("place", "kind"), CASES)
def test_each_command_ends_and_names_what_is_strange(root: Path, place: str, kind: str) -> None:
    where = PLACES[place]
    there = prepared(root, where, kind)
    for name, result in zip(COMMANDS, results(there.data, list(COMMANDS.values())), strict=True):
        assert result["status"] or name not in where.failing, (name, result)
        if result["status"]:
            assert where.path in result["stdout"] + result["stderr"], (name, result)
        if name == "cat":
            web = [line for line in result["stdout"].splitlines() if '"_stream":"web"' in line]
            assert len(web) == 4
    there.check_outside()


@pytest.mark.parametrize(("place", "kind"), CASES)
def test_the_daemon_serves_the_other_streams_or_says_why_it_does_not_start(
    root: Path, place: str, kind: str
) -> None:
    where = PLACES[place]
    there = prepared(root, where, kind)
    daemon = Daemon(root, data=there.data)
    try:
        if not where.lets_start:
            done = subprocess.run(
                [sys.executable, "-m", "logengine", "run"],
                env=os.environ
                | {"LOGENGINE_DATA": str(there.data), "LOGENGINE_SOCKET": str(daemon.socket)},
                capture_output=True,
                timeout=PATIENCE_S,
                check=False,
            )
            assert done.returncode == 1
            assert done.stderr.count(b"\n") == 1
            assert where.path.encode() in done.stderr
        else:
            daemon.start()
            # A directory in the way of a temp stops that stream alone.
            daemon.cli("status", status=int((place, kind) == ("temp", "directory")))
            # Without marks, nothing can be committed.
            if place != "durable marks" and (place, kind) != ("temp mark", "directory"):
                daemon.cli("send", "-s", "web", stdin=b"goes on\n")
                assert len(daemon.records("web")) == 5
            assert daemon.stop() == 0
    finally:
        daemon.close()
    there.check_outside()


@pytest.mark.parametrize(
    "kind", KINDS.keys() - {"directory", "hard link of another user", "device"}
)
def test_what_is_no_directory_is_no_stream_for_writers_nor_readers(root: Path, kind: str) -> None:
    there = prepared(root, PLACES["stream"], kind)
    daemon = Daemon(root, data=there.data)
    try:
        daemon.start()
        sender = daemon.connect()
        sender.send(b'{"_hello":1,"stream":"app"}\nnot stored\n')
        (failing,) = eventually(lambda: asked(daemon, 1)["failing"], "the failing stream")
        assert failing["stream"] == "app"
        assert "expected a directory" in failing["error"]
        said = daemon.cli("cat", "app", status=1).stderr
        assert b"a stream is a directory" in said
        assert b"/app: it is" in daemon.cli("ls").stderr
        assert len(daemon.logged("not_a_stream")) == 1
    finally:
        daemon.close()
    there.check_outside()


@pytest.mark.parametrize("kind", KINDS.keys() - {"link to outside", "link to inside"})
def test_a_repair_moves_aside_what_is_no_segment(root: Path, kind: str) -> None:
    if kind in {"device", "hard link of another user"} and not IS_ROOT:
        pytest.skip("only root can make it")
    if kind == "hard link of another user":
        pytest.skip("its owner may not read it, so it may be whole")
    there = prepared(root, PLACES["segment"], kind)
    repaired, verified = results(there.data, [["repair", "app"], ["verify"]])
    assert repaired["status"] == verified["status"] == 0
    there.check_outside()
    assert not any(path.name.endswith(".salvaged") for path in there.data.glob(".damaged/*"))


@pytest.mark.parametrize("kind", ["link to outside", "link to inside"])
def test_a_repair_moves_a_link_aside_and_takes_nothing_from_where_it_leads(
    root: Path, kind: str
) -> None:
    there = prepared(root, PLACES["segment"], kind)
    repaired, verified = results(there.data, [["repair", "app"], ["verify"]])
    assert repaired["status"] == verified["status"] == 0
    (kept,) = (path for path in there.data.glob(".damaged/*") if path.is_symlink())
    assert list(there.data.glob(".damaged/*")) == [kept]
    there.check_outside()


@pytest.mark.parametrize("kind", ["FIFO", "socket", "device", "dangling link"])
@pytest.mark.parametrize("command", ["ls", "verify", "retain", "run"])
def test_a_data_directory_that_is_none_is_named(root: Path, kind: str, command: str) -> None:
    data = root / "data"
    if kind == "device" and not IS_ROOT:
        pytest.skip("only root can make it")
    KINDS[kind](data, root)
    done = subprocess.run(
        [sys.executable, "-m", "logengine", command, "--data", str(data)],
        env=os.environ | {"LOGENGINE_SOCKET": str(root / "socket")},
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert str(data).encode() in done.stderr


@only_root
@pytest.mark.parametrize(
    "command", [["retain"], ["repair", "app"], ["erase", "app", "--grep", "n"]]
)
def test_root_is_not_led_to_another_user_by_a_third(root: Path, command: list[str]) -> None:
    seed(root / "data")
    chown_all(root)
    link = root / "link"
    link.symlink_to("data")
    os.chown(link, OTHER - 1, OTHER - 1, follow_symlinks=False)
    (result,) = results(link, [command])
    assert result["status"] == 1
    assert "name that directory itself" in result["stderr"]
    os.chown(link, 0, 0, follow_symlinks=False)
    (result,) = results(link, [command])
    assert result["status"] == 0


def test_hard_links_of_the_same_owner_are_read_and_repaired_as_before(root: Path) -> None:
    seed(root / "data")
    backup = root / "backup"
    backup.mkdir()
    for each in (root / "data" / "app").iterdir():
        (backup / each.name).hardlink_to(each)
    if IS_ROOT:
        chown_all(root)
    catted, verified, repaired = results(root / "data", [["cat"], ["verify"], ["repair", "app"]])
    assert [each["status"] for each in (catted, verified, repaired)] == [0, 0, 0]
    assert len(catted["stdout"].splitlines()) == 8


# Bombs


MANY_BYTES = 1 << 40
READ_COMMANDS = [["cat", "app"], ["verify"], ["export", "app", "-o", "EXPORT"], ["tail", "app"]]
# Python and its libraries need 200 MB of it.
MEMORY_BYTES_MAX = 1 << 30


def sparse(path: Path, start: bytes = b"") -> None:
    path.write_bytes(start)
    os.truncate(path, MANY_BYTES)


def claiming(path: Path) -> None:
    """A header that tells of a body of a terabyte, and a file of that length."""
    line = encode_header(header_of("app", 1, 2, MANY_BYTES))
    path.write_bytes(line)
    os.truncate(path, len(line) + MANY_BYTES)


def frame_bomb() -> bytes:
    """A frame of 132 KiB that says it has 4 GiB, and has."""
    blocks = 33_000
    content_bytes = blocks * 128 * 1024
    descriptor = bytes([0b11_0_0_0_0_00])  # a content size of 8 bytes, no single segment
    window = bytes([0b10000_000])
    start = b"\x28\xb5\x2f\xfd" + descriptor + window + content_bytes.to_bytes(8, "little")
    block = 128 * 1024 << 3 | 1 << 1
    pieces = [(block | (at == blocks - 1)).to_bytes(3, "little") + b"\n" for at in range(blocks)]
    return start + b"".join(pieces)


def bomb(path: Path) -> None:
    path.unlink(missing_ok=True)
    frame = frame_bomb()
    content_bytes = 33_000 * 128 * 1024
    header = msgspec.structs.replace(
        header_of("app", 1, content_bytes, content_bytes),
        frames=(Frame(len(frame), content_bytes, content_bytes),),
        index=(IndexEntry(TIME, TIME, hashlib.sha256(frame).hexdigest()),),
    )
    path = path.with_name(segment_name(1, compressed=True))
    path.write_bytes(encode_compressed_header(header) + frame)


def first_frame_bomb(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_name(segment_name(1, compressed=True)).write_bytes(frame_bomb())


def long_first_line(path: Path) -> None:
    path.write_bytes(b'{"_segment":1,"stream":"' + b"a" * 70_000_000 + b'"}\n')


def many_records(path: Path) -> None:
    """A body whose hash is right, in which the header counts far more records than bytes."""
    body = b"{}\n"
    path.write_bytes(encode_header(header_of("app", 1, 10**15, 3, body_sha256(body))) + body)


BOMBS: dict[str, Callable[[Path], None]] = {
    "sparse": sparse,
    "sparse with the start of a header": lambda path: sparse(path, b'{"_segment":1,'),
    "sparse body": claiming,
    "frame": bomb,
    "first frame": first_frame_bomb,
    "first line": long_first_line,
    "count": many_records,
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_would_take_all_memory_is_damage(root: Path, name: str) -> None:
    data = root / "data"
    seed(data)
    BOMBS[name](data / "app" / segment_name(1))
    for result in results(data, READ_COMMANDS, memory_bytes_max=MEMORY_BYTES_MAX):
        assert result["status"] == 1, result
        assert segment_name(1) in result["stdout"] + result["stderr"]
    repaired, verified = results(data, [["repair", "app"], ["verify"]])
    assert repaired["status"] == verified["status"] == 0, repaired


@pytest.mark.parametrize("place", [".running", ".cursors/backup"])
def test_a_mark_without_end_is_refused(root: Path, place: str) -> None:
    seed(root / "data")
    path = root / "data" / place
    path.parent.mkdir(exist_ok=True)
    sparse(path)
    (result,) = results(root / "data", [["retain"]], memory_bytes_max=MEMORY_BYTES_MAX)
    assert result["status"] == 1
    assert place in result["stderr"]
