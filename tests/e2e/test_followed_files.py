"""Followed files with a real daemon."""

import contextlib
import gzip
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon, eventually


class Followed:
    """A directory of logs, and a daemon that follows them."""

    def __init__(self, root: Path, more: str = "", *, name: str = "*.log") -> None:
        self.logs = root / "logs"
        self.logs.mkdir()
        self.log = self.logs / "app.log"
        self.config = f"[[file]]\npath = '{self.logs}/{name}'\n{more}\n"
        self.daemon = Daemon(root, self.config)

    def append(self, data: bytes) -> None:
        with self.log.open("ab") as file:
            file.write(data)

    def messages(self, stream: str = "app") -> list[Any]:
        return [value.get("message") for value in self.daemon.values(stream)]

    def has(self, *messages: str, stream: str = "app") -> None:
        """Returns when these are stored, and nothing else."""
        wanted = list(messages)
        with contextlib.suppress(AssertionError):
            eventually(lambda: self.messages(stream) == wanted)
        assert self.messages(stream) == wanted, self.daemon.log_path.read_text()

    def positions(self, stream: str = "app") -> list[int]:
        """How many bytes of each file are stored, by the newest segment."""

        def header_line() -> bytes:
            try:
                with self.daemon.segments(stream)[-1].open("rb") as segment:
                    return segment.readline()
            except (IndexError, FileNotFoundError):  # none yet, or merged since it was listed
                return b""

        header = json.loads(eventually(header_line, "a segment"))
        return list(header.get("producers_of", {}).get(str(os.geteuid()), {}).values())

    def status(self) -> list[dict[str, Any]]:
        files: list[dict[str, Any]] = json.loads(self.daemon.cli("status", "--json").stdout)[
            "files"
        ]
        return files


@pytest.fixture
def follow(root: Path) -> Iterator[Callable[..., Followed]]:
    made: list[Followed] = []

    def make(more: str = "", *, name: str = "*.log") -> Followed:
        made.append(Followed(root, more, name=name))
        return made[-1]

    yield make
    for each in made:
        each.daemon.close()


def test_lines_are_stored_in_a_stream_with_the_name_of_their_file(
    follow: Callable[..., Followed],
) -> None:
    files = follow()
    files.append(b"one\n")
    files.daemon.start()
    files.has("one")
    files.append(b'{"message":"two","n":2}\nlevel=info msg="three" took=3ms\n')
    files.has("one", "two", "three")
    assert files.daemon.values("app")[1]["n"] == 2
    assert files.daemon.values("app")[2]["level"] == "info"
    (record, *_) = files.daemon.records("app")
    assert record["_uid"] == os.geteuid()
    assert record["_file"] == str(files.log)
    assert "_pid" not in record
    assert files.positions() == [files.log.stat().st_size]


def test_a_line_without_a_newline_waits_for_the_rest_of_it(follow: Callable[..., Followed]) -> None:
    files = follow()
    files.append(b"one\ntw")
    files.daemon.start()
    files.has("one")
    files.append(b"o\nthree")
    files.has("one", "two")
    files.daemon.stop()
    files.daemon.start()
    files.log.rename(files.logs / "app.log.1")
    files.append(b"four\n")
    files.has("one", "two", "four", "three")  # it might have grown in its old file


def test_a_file_that_is_replaced_or_overwritten_by_a_shorter_one_is_read_from_its_start(
    follow: Callable[..., Followed],
) -> None:
    files = follow()
    files.append(b"one of many words\n")
    files.daemon.start()
    files.has("one of many words")
    files.log.write_bytes(b"two\n")
    files.has("one of many words", "two")
    (files.logs / "new").write_bytes(b"3\n")
    (files.logs / "new").rename(files.log)
    files.has("one of many words", "two", "3")
    files.daemon.kill()
    files.log.unlink()
    files.log.write_bytes(b"four, perhaps with the same inode\n")
    files.daemon.start()
    files.has("one of many words", "two", "3", "four, perhaps with the same inode")


def test_what_a_program_writes_after_a_hole_is_stored(follow: Callable[..., Followed]) -> None:
    files = follow("max_line = '1KiB'")
    with files.log.open("wb", buffering=0) as file:  # not O_APPEND
        file.write(b"one\n" * 5000)
        files.daemon.start()
        files.has(*["one"] * 5000)
        os.truncate(files.log, 0)
        file.write(b"two\n")
        eventually(lambda: files.messages()[-1] == "two", "the line after the hole")
        assert len(files.messages()) == 5001


def test_lines_in_room_that_a_program_has_made_are_stored_when_they_are_complete(
    follow: Callable[..., Followed],
) -> None:
    files = follow("max_line = '1KiB'")
    with files.log.open("wb", buffering=0) as file:
        file.truncate(1024 * 1024)
        files.daemon.start()
        file.write(b"one\ntw")
        files.has("one")
        file.write(b"o\n")
        files.has("one", "two")
        files.daemon.kill()
        files.daemon.start()
        file.write(b"three\n")
        files.has("one", "two", "three")


def test_what_comes_after_a_hole_of_any_size_is_stored(follow: Callable[..., Followed]) -> None:
    files = follow()
    files.daemon.start()
    with files.log.open("wb") as file:
        file.seek(3 * 1024**3)
        file.write(b"one\n")
    files.has("one")


def test_long_and_binary_lines_are_stored_whole(follow: Callable[..., Followed]) -> None:
    files = follow("max_line = '4KiB'\nformat = 'lines'")
    files.daemon.start()
    data = bytes(each for each in range(1, 256) if each not in b"\n\r")
    files.append(b"x" * 10_000 + b"\n" + data + b"\nend\n")
    eventually(lambda: files.messages()[-1:] == ["end"], "the last line")
    *pieces, binary, _ = files.messages()
    assert ("".join(pieces), max(map(len, pieces))) == ("x" * 10_000, 4096)
    assert binary == data.decode("utf-8", "backslashreplace")


def test_records_of_several_lines_are_complete_after_a_pause(
    follow: Callable[..., Followed],
) -> None:
    files = follow("start = '^\\S'\nwait = '300ms'")
    files.daemon.start()
    files.append(b"Traceback:\n  File x\nnext\n")
    files.has("Traceback:\n  File x", "next")


def test_begin_end_skips_only_what_is_there_at_the_first_start(
    follow: Callable[..., Followed],
) -> None:
    files = follow("begin = 'end'\nstream = 'all'")
    files.append(b"old\nold\n")
    files.daemon.start()
    eventually(lambda: files.daemon.segments("all"), "the position")
    assert files.messages("all") == []
    assert files.positions("all") == [8]
    files.append(b"one\n")
    (files.logs / "other.log").write_bytes(b"two\n")
    eventually(lambda: sorted(files.messages("all")) == ["one", "two"], "both")
    files.daemon.kill()
    files.append(b"three\n")
    (files.logs / "third.log").write_bytes(b"four\n")
    files.daemon.start()
    eventually(lambda: sorted(files.messages("all")) == ["four", "one", "three", "two"], "all four")


def test_the_status_has_each_file(follow: Callable[..., Followed]) -> None:
    files = follow("stream = 'all'")
    files.append(b"one\n")
    other = files.logs / "other.log"
    other.write_bytes(b"two\n")
    files.daemon.start()
    eventually(lambda: len(files.messages("all")) == 2, "both")
    assert len(files.positions("all")) == 2
    expected = {(str(files.log), 4, 4), (str(other), 4, 4)}
    eventually(
        lambda: (
            {(each["path"], each["position"], each["size"]) for each in files.status()} == expected
        ),
        "the status, which hears of a commit after it is on disk",
    )
    assert b"2 files" in files.daemon.cli("status").stdout


def test_a_file_that_was_removed_is_forgotten_once_it_is_read(
    follow: Callable[..., Followed],
) -> None:
    files = follow("stream = 'all'")
    files.append(b"one\n")
    other = files.logs / "other.log"
    other.write_bytes(b"two\n")
    files.daemon.start()
    eventually(lambda: len(files.positions("all")) == 2, "both positions")
    with other.open("ab") as file:
        other.unlink()
        file.write(b"three, to a file that was removed\n")
    eventually(lambda: len(files.messages("all")) == 3, "the last line")
    eventually(lambda: len(files.positions("all")) == 1, "one position")
    eventually(lambda: len(files.status()) == 1, "one file")


def test_a_file_goes_on_where_it_was_when_its_stream_is_changed(
    follow: Callable[..., Followed],
) -> None:
    files = follow("stream = 'before'")
    files.append(b"one\n")
    files.daemon.start()
    files.has("one", stream="before")
    files.daemon.stop()
    files.daemon.config.write_text(files.config.replace("before", "after"))
    files.append(b"two\n")
    files.daemon.start()
    files.has("two", stream="after")
    files.has("one", stream="before")


def test_a_rotated_file_is_not_read_again_while_its_path_does_not_exist(
    follow: Callable[..., Followed],
) -> None:
    files = follow("stream = 'all'", name="app*")
    files.append(b"one\n")
    files.daemon.start()
    files.has("one", stream="all")
    files.daemon.kill()
    files.append(b"two\n")
    files.log.rename(files.logs / "app.log.1")
    files.daemon.start()
    files.has("one", "two", stream="all")
    files.append(b"three\n")
    files.has("one", "two", "three", stream="all")


def test_a_link_is_refused_once_and_followed_if_that_is_configured(
    follow: Callable[..., Followed],
) -> None:
    files = follow()
    (files.logs / "real").write_bytes(b"one\n")
    files.log.symlink_to("real")
    files.daemon.start()

    def refusals() -> list[str]:
        return [
            each["reason"] for each in files.daemon.log() if each["event"] == "file_not_followed"
        ]

    eventually(refusals, "the refusal")
    assert refusals() == ["app.log: it is a symbolic link; follow_links is false"]
    assert files.status() == [
        {
            "path": str(files.log),
            "stream": "app",
            "position": 0,
            "size": 0,
            "problem": "app.log: it is a symbolic link; follow_links is false",
        }
    ]
    assert b"symbolic link" in files.daemon.cli("status").stdout
    files.daemon.stop()
    files.daemon.config.write_text(files.config + "follow_links = true\n")
    files.daemon.start()
    files.has("one")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read any file")
def test_a_file_that_may_not_be_read_is_read_once_it_may(follow: Callable[..., Followed]) -> None:
    files = follow()
    files.append(b"one\n")
    files.log.chmod(0)
    files.daemon.start()
    eventually(lambda: "file_not_followed" in files.daemon.events(), "the refusal")
    files.log.chmod(0o600)
    files.has("one")


def test_the_daemons_own_log_is_not_followed(root: Path) -> None:
    daemon = Daemon(root, f"[[file]]\npath = '{root}/daemon.log'\n")
    with contextlib.closing(daemon):
        daemon.start()
        eventually(lambda: "file_not_followed" in daemon.events(), "the refusal")
        assert daemon.stop() == 0
        assert not daemon.segments("daemon")


def test_a_client_cannot_use_the_name_of_a_file(follow: Callable[..., Followed]) -> None:
    files = follow()
    files.daemon.start()
    answer = files.daemon.connect().hello(stream="app", producer="file:x")
    assert answer["error"] == "invalid_producer"


def test_many_files_are_followed_at_once(follow: Callable[..., Followed]) -> None:
    files = follow()
    for number in range(1000):
        (files.logs / f"f{number}.log").write_bytes(b"one\n")
    files.daemon.start()
    eventually(lambda: len(list(files.daemon.data.glob("f*/0*"))) == 1000, "all", patience_s=60)
    with (files.logs / "f777.log").open("ab") as file:
        file.write(b"two\n")
    files.has("one", "two", stream="f777")
    files.daemon.stop()
    files.daemon.start()
    with (files.logs / "f778.log").open("ab") as file:
        file.write(b"two\n")
    files.has("one", "two", stream="f778")
    assert files.messages("f1") == ["one"]


def test_more_files_than_a_stream_remembers_wait(follow: Callable[..., Followed]) -> None:
    files = follow("stream = 'all'")
    for number in range(260):
        (files.logs / f"f{number}.log").write_bytes(b"%d\n" % number)
    files.daemon.start()
    eventually(lambda: len(files.messages("all")) == 256, "those for which there is room")
    eventually(
        lambda: (
            [each["problem"] for each in files.status()[:5]]
            == ["stream 'all' has 256 files already"] * 4 + [""]
        ),
        "the others",
    )


def test_a_replaced_data_directory_gets_all_lines(follow: Callable[..., Followed]) -> None:
    files = follow()
    files.append(b"one\n")
    files.daemon.start()
    files.has("one")
    files.daemon.data.rename(files.daemon.data.with_name("aside"))
    files.daemon.data.mkdir()
    files.append(b"two\n")
    files.has("one", "two")


def test_each_file_goes_whole_to_the_stream_that_its_path_names_also_over_kills(
    follow: Callable[..., Followed],
) -> None:
    files = follow("stream = 'of-{directory}'\nformat = 'json'", name="*/*.log")
    expected: dict[str, list[Any]] = {}
    for kills in range(3):
        for app in ("Web", "db"):
            (files.logs / app).mkdir(exist_ok=True)
            for name in ("a", "b"):
                with (files.logs / app / f"{name}.log").open("a") as file:
                    file.writelines(
                        f'{{"message":"{name}{kills}{number}","app":"other{number}"}}\n'
                        for number in range(3)
                    )
                    said = [f"{name}{kills}{number}" for number in range(3)]
                    expected.setdefault(f"of-{app.lower()}", []).extend(said)
        files.daemon.start()
        for stream, messages in expected.items():
            eventually(lambda: len(files.messages(stream)) >= len(messages))  # noqa: B023
        files.daemon.kill()
    assert {stream: sorted(files.messages(stream)) for stream in expected} == {
        stream: sorted(messages) for stream, messages in expected.items()
    }
    assert not any(each.name.startswith("other") for each in files.daemon.data.iterdir())


def test_a_program_that_begins_its_file_again_with_the_same_words_loses_nothing(
    follow: Callable[..., Followed],
) -> None:
    files = follow()
    files.append(b"begin\n")
    files.daemon.start()
    files.has("begin")
    files.append(b"one\n")
    files.has("begin", "one")
    files.log.write_bytes(b"begin\ntwo\n")  # as long as before
    files.has("begin", "one", "begin", "two")
    files.log.write_bytes(b"begin\nthree\nfour\n")
    files.has("begin", "one", "begin", "two", "begin", "three", "four")
    files.daemon.kill()
    files.log.write_bytes(b"begin\nfive\nsix\nseven\n")
    files.daemon.start()
    files.has(
        *("begin", "one", "begin", "two", "begin", "three", "four"),
        *("begin", "five", "six", "seven"),
    )


def test_a_renamed_file_is_read_on_before_there_is_a_new_one(
    follow: Callable[..., Followed],
) -> None:
    files = follow()
    files.append(b"one\n")
    files.daemon.start()
    files.has("one")
    files.daemon.kill()
    rotated = files.log.rename(files.logs / "app.log.1")
    with rotated.open("ab") as file:
        file.write(b"two\n")
    files.daemon.start()
    files.has("one", "two")
    with rotated.open("ab") as file:
        file.write(b"three\n")
    files.has("one", "two", "three")
    files.append(b"four\n")
    files.has("one", "two", "three", "four")


def test_a_file_that_was_read_to_its_end_is_followed_after_a_start(
    follow: Callable[..., Followed],
) -> None:
    files = follow()
    files.append(b"one\n")
    files.daemon.start()
    files.has("one")
    files.daemon.kill()
    files.daemon.start()
    # Only what comes after it was found: at the start it has nothing to read.
    eventually(lambda: [each["position"] for each in files.status()] == [4], "the file")
    files.append(b"two\n")
    files.has("one", "two")


def test_a_generation_of_a_file_of_which_nothing_was_stored_is_read_if_it_is_newer_than_all_records(
    follow: Callable[..., Followed],
) -> None:
    files = follow()
    files.log.touch()
    older = files.logs / "app.log.3"
    older.write_bytes(b"from before it was followed\n")
    os.utime(older, (0, 0))
    files.daemon.start()
    sender = files.daemon.connect()
    sender.hello(stream="other", ack=True)
    sender.send(b'{"n":1}\n')
    sender.wait_for_ack(1)
    files.daemon.kill()
    files.append(b"one\n")
    (files.logs / "app.log.2.gz").write_bytes(gzip.compress(files.log.read_bytes()))
    files.log.unlink()
    files.append(b"two\n")
    files.log.rename(files.logs / "app.log.1")
    files.append(b"three\n")
    files.daemon.start()
    files.has("one", "two", "three")
    files.daemon.kill()
    files.daemon.start()
    files.append(b"four\n")
    files.has("one", "two", "three", "four")


def test_a_file_that_had_a_path_of_its_own_is_not_read_again_as_a_generation_of_a_new_path(
    follow: Callable[..., Followed],
) -> None:
    # PM2 writes app-0.log for each of several processes, and app.log for one alone.
    files = follow()
    (files.logs / "app-0.log").write_bytes(b"zero\n")
    files.daemon.start()
    files.has("zero", stream="app-0")
    files.daemon.kill()
    files.append(b"one\n")
    files.daemon.start()
    files.has("one")
    files.append(b"two\n")
    files.has("one", "two")
    files.has("zero", stream="app-0")


def test_a_file_that_is_empty_for_a_while_is_read_when_it_has_lines(
    follow: Callable[..., Followed],
) -> None:
    files = follow()
    files.append(b"one\n")
    files.daemon.start()
    files.has("one")
    os.truncate(files.log, 0)
    eventually(lambda: [each["size"] for each in files.status()] == [0], "the empty file")
    files.append(b"one\ntwo\n")
    files.has("one", "one", "two")


def test_a_file_that_was_copied_and_is_longer_again_at_the_next_look_is_read_from_both(
    follow: Callable[..., Followed],
) -> None:
    files = follow("format = 'lines'")
    head = b"the same long beginning\n" * 100
    files.append(head + b"one\n")
    files.daemon.start()
    eventually(lambda: files.messages()[-1:] == ["one"], "the first lines")
    files.append(b"two\n")
    (files.logs / "app.log.1").write_bytes(files.log.read_bytes() + b"three\n")
    files.log.write_bytes(head + b"four\n" * 100)
    texts = [*["the same long beginning"] * 100, "one", "two", "three"]
    files.has(*texts, *["the same long beginning"] * 100, *["four"] * 100)
