"""Marks say what is durable in this boot, and only to whom they are meant for."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from logengine.disk.crash_mark import CRASH_MARK_NAME
from logengine.disk.durable_mark import MARKS_NAME, DurableMarks, Mark, MarkReader

BOOT, OTHER_BOOT = "1f0c6f0e-79c8-4a1c-8f93-6b1a0e6b6a55", "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / CRASH_MARK_NAME).touch()
    return tmp_path / "data"


@pytest.fixture
def marks(data: Path) -> DurableMarks:
    made = DurableMarks(data, BOOT)
    made.begin("app", 0)
    return made


def no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def read(data: Path, boot: str = BOOT) -> Mark | None:
    return MarkReader(data, boot).read("app")


def test_a_mark_says_how_far_a_stream_is_durable(data: Path, marks: DurableMarks) -> None:
    assert read(data) == (0, 1)
    marks.move("app", 5, 3)
    assert read(data) == Mark(last=5, first=3)
    assert MarkReader(data, BOOT).read("web") is None


def test_the_line_is_as_documented(data: Path, marks: DurableMarks) -> None:
    marks.move("app", 412, 401)
    path = data / MARKS_NAME / "app"
    line = path.read_text()
    inode = path.stat().st_ino
    text = f"last {412:020d} first {401:020d} boot {BOOT} inode {inode:020d}"
    assert line.startswith(f"{text} crc32 ")
    assert line.endswith("\n")


def test_a_mark_is_written_in_place_so_that_inotify_tells(data: Path, marks: DurableMarks) -> None:
    before = (data / MARKS_NAME / "app").stat().st_ino
    marks.move("app", 10**19, 1)
    assert (data / MARKS_NAME / "app").stat().st_ino == before
    assert read(data) == (10**19, 1)


def test_nobody_goes_by_a_mark_of_another_boot(data: Path, marks: DurableMarks) -> None:
    assert read(data, OTHER_BOOT) is None
    assert read(data, "") == (0, 1)  # nobody can tell: less is shown rather than too much


def test_nobody_goes_by_a_copy(data: Path, marks: DurableMarks) -> None:
    copy = data.with_name("copy")
    shutil.copytree(data, copy)
    assert read(copy) is None


def test_nobody_goes_by_what_a_clean_end_left(data: Path, marks: DurableMarks) -> None:
    (data / CRASH_MARK_NAME).unlink()
    assert read(data) is None


def test_what_cannot_be_looked_at_is_no_clean_end(data: Path, marks: DurableMarks) -> None:
    def failing(*_: Any) -> None:
        raise OSError(errno.EIO, "injected")

    with patch.object(os, "lstat", failing), pytest.raises(OSError, match="injected"):
        read(data)


@pytest.mark.parametrize("content", [b"", b"\0" * 120, b"last 1\n"])
def test_what_a_power_cut_left_of_a_mark_is_none(data: Path, content: bytes) -> None:
    (data / MARKS_NAME).mkdir()
    (data / MARKS_NAME / "app").write_bytes(content)
    assert read(data) is None


def test_a_line_that_was_not_written_in_full_says_that_nothing_is_known(
    data: Path, marks: DurableMarks
) -> None:
    marks.move("app", 5, 3)
    path = data / MARKS_NAME / "app"
    with path.open("r+b") as file:
        file.write(b"last 0000000000000000009")  # the beginning of another number
    assert read(data) == (0, 1)
    marks.move("app", 91, 91)
    assert read(data) == (91, 91)


def test_what_could_not_be_said_is_said_later(data: Path, marks: DurableMarks) -> None:
    def short(descriptor: int, line: bytes, offset: int) -> int:
        return real(descriptor, line[:30], offset)

    def failing(*_: Any) -> int:
        raise OSError(5, "injected")

    real = os.pwrite
    for broken in (short, failing):
        with patch.object(os, "pwrite", broken):
            marks.move("app", 7, 7)
        assert marks.is_behind
        marks.catch_up()
        assert not marks.is_behind
        assert read(data) == (7, 7)


def test_a_mark_that_cannot_be_made_is_an_error(data: Path) -> None:
    marks = DurableMarks(data, BOOT)
    with patch.object(os, "pwrite", return_value=0), pytest.raises(OSError, match="only a part"):
        marks.begin("app", 3)
    assert not marks.has_begun("app")
    assert read(data) is None
    marks.begin("app", 3)
    assert read(data) == (3, 4)


def test_a_file_that_somebody_linked_to_the_name_of_a_temp_is_left_alone(data: Path) -> None:
    other = data.parent / "other"
    other.write_text("precious")
    (data / MARKS_NAME).mkdir()
    (data / MARKS_NAME / ".app.tmp").hardlink_to(other)
    DurableMarks(data, BOOT).begin("app", 3)
    assert read(data) == (3, 4)
    assert other.read_text() == "precious"


def test_the_next_process_of_this_boot_goes_on_with_the_marks(
    data: Path, marks: DurableMarks
) -> None:
    marks.begin("web", 2)
    after = DurableMarks(data, BOOT)
    after.recovered("app", 9)
    after.recovered("db", 4)
    assert read(data) == (9, 10)
    assert MarkReader(data, BOOT).read("web") == (2, 3)  # not recovered: as true as it was
    assert MarkReader(data, BOOT).read("db") is None
    assert after.has_begun("app")
    assert not after.has_begun("web")
    after.recovered("web", 3)
    assert MarkReader(data, BOOT).read("web") == (3, 4)


@pytest.mark.parametrize("call", ["pread", "open", "replace", "pwrite"])
def test_a_mark_that_cannot_be_gone_on_with_at_a_start_is_gone_on_with_later(
    data: Path, marks: DurableMarks, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    marks.begin("app", 2)
    after = DurableMarks(data, BOOT)
    with monkeypatch.context() as failing:
        failing.setattr(os, call, no_room)
        after.recovered("app", 9)
        assert after.is_behind
        after.catch_up()
        assert after.is_behind
    after.catch_up()
    assert not after.is_behind
    assert MarkReader(data, BOOT).read("app") == Mark(9, 10)


def test_what_was_committed_meanwhile_is_not_said_to_be_less(
    data: Path, marks: DurableMarks, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks.begin("app", 2)
    after = DurableMarks(data, BOOT)
    with monkeypatch.context() as failing:
        failing.setattr(os, "pread", no_room)
        after.recovered("app", 9)
    after.begin("app", 9)
    after.move("app", 12, 10)
    after.catch_up()
    assert MarkReader(data, BOOT).read("app") == Mark(12, 10)


def test_a_mark_that_a_clean_end_left_is_gone_on_with(data: Path, marks: DurableMarks) -> None:
    marks.begin("app", 2)
    (data / CRASH_MARK_NAME).unlink()
    after = DurableMarks(data, BOOT)
    after.recovered("app", 9)
    (data / CRASH_MARK_NAME).touch()
    assert MarkReader(data, BOOT).read("app") == Mark(9, 10)


def test_marks_of_another_boot_are_not_taken_over(data: Path, marks: DurableMarks) -> None:
    after = DurableMarks(data, OTHER_BOOT)
    after.recovered("app", 9)
    assert not after.has_begun("app")
    after.begin("app", 9)
    assert read(data, OTHER_BOOT) == (9, 10)


def test_an_end_leaves_nothing(data: Path, marks: DurableMarks) -> None:
    (data / MARKS_NAME / ".web.tmp").touch()  # of a process that was killed
    marks.end()
    assert os.listdir(data) == [CRASH_MARK_NAME]
    marks.end()
