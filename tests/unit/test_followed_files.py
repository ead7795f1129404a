"""Which file is which, and what to read after a rotation."""

import os
import socket
from pathlib import Path

import pytest

from logengine.errors import UnexpectedFile
from logengine.followed_files.contents import Content
from logengine.followed_files.generations import Found, Unread, outlived, plan_reading
from logengine.followed_files.identity import Identity, Inode, identify, parse_name
from logengine.followed_files.settings import plain_path, stream_of
from logengine.followed_files.survey import survey
from logengine.format.producers import Producer, Room, advance
from logengine.format.segment import is_stream_name
from logengine.resume.rotation import rotated_from, rotated_names

PATH = "/var/log/app.log"


def found(name: str, inode: int, head: bytes, size: int | None = 0) -> Found:
    return Found(name, Inode(inode, 7), head, len(head) if size == 0 else size)


def known(inode: int, head: bytes) -> Identity:
    return identify(PATH, Inode(inode, 7), head)


def steps(
    stored: dict[Identity, int], rotated: list[Found], current: Found | None
) -> list[tuple[str, int]]:
    return [(step.found.name, step.position) for step in plan_reading(stored, rotated, current)]


def test_a_name_says_which_file_it_is() -> None:
    identity = known(5, b"first line\n")
    assert parse_name(identity.name) == identity
    assert identity.begins(b"first line\nand more")
    assert not identity.begins(b"first")
    assert not identity.begins(b"another line\n")
    assert parse_name("file:short") is None


def test_of_a_path_that_is_new_only_the_file_itself_is_read() -> None:
    assert steps({}, [found("app.log.1", 1, b"old\n")], found("app.log", 2, b"new\n")) == [
        ("app.log", 0)
    ]


def test_a_renamed_file_is_read_on_before_its_successor() -> None:
    assert steps(
        {known(1, b"one\n"): 4},
        [found("app.log.1", 1, b"one\ntwo\n")],
        found("app.log", 2, b"three\n"),
    ) == [("app.log.1", 4), ("app.log", 0)]


def test_generations_that_were_missed_are_read_and_older_ones_are_not() -> None:
    rotated = [
        found("app.log.1", 3, b"missed\n"),
        found("app.log.2", 2, b"known\n"),
        found("app.log.3", 1, b"older\n"),
    ]
    assert steps({known(2, b"known\n"): 6}, rotated, found("app.log", 4, b"new\n")) == [
        ("app.log.2", 6),
        ("app.log.1", 0),
        ("app.log", 0),
    ]


def test_a_copy_is_read_on_when_the_file_was_truncated() -> None:
    assert steps(
        {known(1, b"one\n"): 4}, [found("app.log.1", 9, b"one\ntwo\n")], found("app.log", 1, b"3\n")
    ) == [("app.log.1", 4), ("app.log", 0)]


def test_a_compressed_file_is_recognized_by_its_content() -> None:
    assert steps(
        {known(1, b"one\n"): 4},
        [found("app.log.1.gz", 9, b"one\ntwo\n", None)],
        found("app.log", 2, b"three\n"),
    ) == [("app.log.1.gz", 4), ("app.log", 0)]


def test_a_copy_of_the_file_that_is_read_is_not_read_too() -> None:
    stored = {known(8, b"zero\n"): 5, known(1, b"one\n"): 4}
    rotated = [found("app.log.1", 9, b"one\n"), found("app.log.2", 8, b"zero\n")]
    assert steps(stored, rotated, found("app.log", 1, b"one\ntwo\n")) == [
        ("app.log.2", 5),
        ("app.log", 4),
    ]


def test_a_file_that_was_complete_when_its_successor_was_made_is_no_copy_of_it() -> None:
    stored = {known(1, b"OK\n"): 3}
    oldest, newer = found("app.log.2", 1, b"OK\n"), found("app.log.1", 2, b"OK\n")
    current = found("app.log", 3, b"OK\nOK\n")._replace(made_ns=20)
    read = [("app.log.2", 3), ("app.log.1", 0), ("app.log", 0)]
    assert steps(stored, [newer._replace(written_ns=10), oldest], current) == read
    assert steps(stored, [newer._replace(written_ns=30), oldest], current) == [read[0], read[2]]


def test_of_two_files_with_the_same_content_one_is_read() -> None:
    rotated = [found("app.log.1", 3, b"2\n"), found("app.log.2", 2, b"2\n")]
    oldest = found("app.log.3", 1, b"1\n")
    assert steps({known(1, b"1\n"): 2}, [*rotated, oldest], None) == [
        ("app.log.3", 2),
        ("app.log.1", 0),
    ]


def test_what_a_kill_left_of_a_file_that_was_read_on_is_not_taken_for_another_one() -> None:
    stored = {known(1, b"1\n"): 2, known(1, b"1\n2\n"): 4}
    rotated = [found("app.log.1", 3, b"1\n2\n"), found("app.log.2", 2, b"1\n2\n")]
    assert [step for step in steps(stored, rotated, None) if step[1] < 4] == []


def test_of_two_beginnings_of_a_file_the_longer_one_counts() -> None:
    whole = b"one\ntwo\n"
    for stored in (
        {known(1, b"one\n"): 4, known(1, whole): 8},
        {known(1, whole): 8, known(1, b"one\n"): 4},
    ):
        current = found("app.log", 2, b"three\n")
        assert steps(stored, [], found("app.log", 1, whole)) == [("app.log", 8)]
        for older in (found("app.log.1", 1, whole), found("app.log.1.gz", 9, whole, None)):
            assert steps(stored, [older], current) == [(older.name, 8), ("app.log", 0)]


def test_the_copy_of_a_file_that_is_open_and_unread_is_not_read_too() -> None:
    unread = [Unread(Inode(2, 7), b"two\nlate\n")]
    older = found("app.log.2", 1, b"one\n")
    copy = found("app.log.1.gz", 9, b"two\n", None)
    current = found("app.log", 3, b"three\n")
    stored = {known(1, b"one\n"): 4}
    planned = plan_reading(stored, [copy, older], current, unread=unread)
    assert [step.found for step in planned] == [older, current]
    # While it has a name, it is not what was compressed.
    renamed = found("app.log.2", 2, b"two\nlate\n")
    other = found("app.log.1.gz", 9, b"two\n", None)
    planned = plan_reading({}, [other, renamed], current, unread=unread)
    assert [step.found for step in planned] == [renamed, other, current]


def test_what_is_newer_than_a_file_that_is_open_and_unread_is_read() -> None:
    unread = [Unread(Inode(1, 7), b"one\n")]
    rotated = [
        found("app.log.1", 2, b"two\n"),
        found("app.log.2", 1, b"one\n"),
        found("app.log.3", 5, b"older\n"),
    ]
    current = found("app.log", 3, b"three\n")
    planned = plan_reading({}, rotated, current, unread=unread)
    assert [(step.found.name, step.position) for step in planned] == [
        ("app.log.2", 0),
        ("app.log.1", 0),
        ("app.log", 0),
    ]


def test_of_a_path_that_is_not_known_what_was_written_since_a_time_is_read() -> None:
    rotated = [
        found("app.log.1.gz", 3, b"three\n", None)._replace(written_ns=30),
        found("app.log.2", 2, b"two\n")._replace(written_ns=20),
        found("app.log.3", 1, b"one\n")._replace(written_ns=10),
        found("app.log.4", 5, b"older, but touched\n")._replace(written_ns=40),
    ]
    current = found("app.log", 4, b"four\n")
    names = [step.found.name for step in plan_reading({}, rotated, current, since_ns=10)]
    assert names == ["app.log.2", "app.log.1.gz", "app.log"]
    assert [step.found.name for step in plan_reading({}, rotated, None, since_ns=30)] == []


def test_a_file_that_is_missing_for_a_moment_is_not_forgotten() -> None:
    stored = {known(number, b"%d\n" % number): 2 for number in range(1, 6)}
    one, two, three, four, five = stored
    assert outlived(stored, {two, four, five}, 3) == [one]
    assert outlived(stored, {three, five}, 4) == [one]
    assert outlived(stored, {one, two, four, five}, 1) == []


def test_another_file_with_the_same_inode_is_another_file() -> None:
    stored = {known(1, b"one\n"): 4}
    reused = found("app.log", 1, b"one\ntwo\n")._replace(inode=Inode(1, 8))
    assert steps(stored, [], reused) == [("app.log", 0)]
    assert steps(stored, [], found("app.log", 1, b"another\n")) == [("app.log", 0)]


def test_a_file_that_is_shorter_than_what_was_read_is_read_from_its_start() -> None:
    stored = {known(1, b"one\n"): 400}
    assert steps(stored, [], found("app.log", 1, b"one\n")) == [("app.log", 0)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("app.log", []),
        ("app.log.1", ["app.log"]),
        ("app.log.2.gz", ["app.log"]),
        ("app.log-20261128", ["app.log"]),
        ("app.log.old", ["app.log"]),
        ("app-20261128.log", ["app.log"]),
        ("app-20261128.log.xz", ["app.log"]),
        ("app.1.log", ["app.log"]),
        ("web-01.log", ["web.log"]),
    ],
)
def test_the_name_of_a_generation_says_of_which_file_it_is(name: str, expected: list[str]) -> None:
    assert rotated_from(name) == expected
    assert all(rotated_names(each, [name]) for each in expected)


@pytest.mark.parametrize("path", ["/l/Web Server.log", "/l/.hidden", "/l/ä.log", "/l/a" * 90])
def test_the_name_made_from_a_path_is_a_stream_name(path: str) -> None:
    assert is_stream_name(stream_of(path))


ID = "0123456789abcdef" * 4
OF_POD = f"/var/log/containers/web-7d4_shop_nginx-{ID}.log"
IN_POD = "/var/log/pods/shop_web-7d4_8d1a-77/nginx/0.log"
OF_DOCKER = f"/var/lib/docker/containers/{ID}/{ID}-json.log"


@pytest.mark.parametrize(
    ("path", "template", "stream"),
    [
        ("/var/log/App/Web Server.LOG", "", "web-server"),
        ("/var/log/App/web.log", "all", "all"),
        ("/var/log/App/web.log", "{directory}-{name}", "app-web"),
        ("/var/log/App/web.log.txt", "{name}", "web.log.txt"),
        (OF_POD, "{namespace}-{container}", "shop-nginx"),
        (IN_POD, "{namespace}-{container}", "shop-nginx"),
        (IN_POD, "{pod}.{directory}.{name}", "web-7d4.nginx.0"),
        (OF_DOCKER, "{container}", ID),
        # Without such a field, and without anything that can be in a name.
        (OF_DOCKER, "{namespace}-{container}", stream_of(OF_DOCKER)),
        ("/var/log/App/web.log", "{pod}", "web"),
        ("/var/log/日本/web.log", "{directory}", "web"),
        ("/日本.log", "{name}{directory}", "default"),
    ],
)
def test_a_file_goes_to_the_stream_that_its_path_names(
    path: str, template: str, stream: str
) -> None:
    assert stream_of(path, template) == stream
    assert is_stream_name(stream)


def test_a_directory_in_which_a_name_may_come_is_watched(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    found_now = survey([f"{tmp_path}/*/*/x.log"], [])
    assert found_now.directories.keys() == {
        *(str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b"))
    }


def test_a_path_is_the_same_however_it_is_written() -> None:
    assert plain_path("//var/./log//app.log") == "/var/log/app.log"


def test_generations_that_a_pattern_matches_are_not_files_of_their_own(tmp_path: Path) -> None:
    for name in ("app.log", "app.log.1", "app.log.2.gz", "web-01.log"):
        (tmp_path / name).touch()
    families = survey([f"{tmp_path}/*"], []).families
    assert {os.path.basename(each.path): list(each.rotated) for each in families} == {
        "app.log": ["app.log.1", "app.log.2.gz"],
        "web-01.log": [],
    }


def test_a_file_that_is_between_two_names_keeps_its_generations(tmp_path: Path) -> None:
    (tmp_path / "app.log.1").touch()
    path = f"{tmp_path}/app.log"
    (family,) = survey([f"{tmp_path}/*"], [(path, 0)]).families
    assert (family.path, family.is_there, list(family.rotated)) == (path, False, ["app.log.1"])


def test_a_generation_of_a_path_that_is_stored_is_no_file_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "app.log.1").touch()
    (tmp_path / "app.log").mkdir()
    path = f"{tmp_path}/app.log"
    (family,) = survey([f"{tmp_path}/*.?"], [], lambda its: its == path).families
    assert (family.path, family.is_there, list(family.rotated)) == (path, False, ["app.log.1"])
    (family,) = survey([f"{tmp_path}/*.?"], []).families
    assert family.path == f"{tmp_path}/app.log.1"


def test_only_a_regular_file_is_opened_and_no_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one\n")
    (tmp_path / "link").symlink_to("file")
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(tmp_path / "socket"))
    for name in ("link", "fifo"):
        with pytest.raises(UnexpectedFile):
            Content(str(tmp_path / name))
    with pytest.raises(OSError, match="socket"):
        Content(str(tmp_path / "socket"))
    content = Content(str(tmp_path / "link"), follow_links=True)
    assert content.found.head == b"one\n"
    content.close()


def test_a_second_name_in_a_directory_that_others_may_write_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("secret\n")
    shared = tmp_path / "shared"
    shared.mkdir()
    os.link(tmp_path / "file", shared / "app.log")
    Content(str(shared / "app.log")).close()
    if os.geteuid() == 0:
        os.chown(shared, 12345, -1)
        with pytest.raises(UnexpectedFile, match="another name"):
            Content(str(shared / "app.log"))


FILE = Producer(0, "file:abc")
ROOM = Room(2, 10_000)


def test_a_followed_file_is_not_forgotten_to_make_room_and_takes_none() -> None:
    numbers = advance({}, {FILE: 100}, ROOM)
    for number in range(10):
        numbers = advance(numbers, {Producer(uid, f"{number}"): 1 for uid in (0, 1)}, ROOM)
    assert numbers[FILE] == 100
    assert len(numbers) == 1 + ROOM.count
    many = advance({}, {Producer(0, f"file:{number}"): 1 for number in range(10)}, ROOM)
    assert len(many) == 10


def test_the_number_0_forgets_a_followed_file() -> None:
    numbers = advance({}, {FILE: 100}, ROOM)
    assert advance(numbers, {FILE: 0}, ROOM) == {}
    assert advance({}, {FILE: 0}, ROOM) == {}


def test_a_followed_file_has_one_number_whoever_the_daemon_runs_as() -> None:
    other_file, as_other_user = Producer(0, "file:def"), FILE._replace(uid=999)
    numbers = advance({}, {other_file: 7, FILE: 100}, ROOM)
    numbers = advance(numbers, {as_other_user: 150}, ROOM)
    numbers = advance(numbers, {FILE: 200}, ROOM)
    # A header has the numbers of each user together, so that the last one need not be the newest.
    assert list(numbers.items()) == [(other_file, 7), (FILE, 200)]


def test_a_followed_file_is_forgotten_whoever_the_daemon_ran_as() -> None:
    numbers = advance({}, {FILE: 100, Producer(0, "app"): 3}, ROOM)
    assert advance(numbers, {FILE._replace(uid=999): 0}, ROOM) == {Producer(0, "app"): 3}
