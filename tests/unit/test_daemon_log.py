"""The daemon's own log."""

import contextlib
import errno
import json
import logging
import os
import pty
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from logengine.daemon.config_sections import LogConfig
from logengine.daemon.daemon_log import daemon_log
from logengine.daemon.line_limit import Cause, LineLimit, Suppressed
from logengine.daemon.log_writer import Due, LogWriter
from logengine.units import Duration, Size
from tests.daemon import eventually


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


class Written:
    """What the log wrote; empty until the log is closed."""

    text = ""

    def lines(self) -> list[str]:
        return self.text.splitlines()

    def entries(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines()]


@contextlib.contextmanager
def log_to_file(**config: Any) -> Iterator[Written]:
    written = Written()
    with tempfile.TemporaryFile("w+") as file:
        with daemon_log(LogConfig(**config), file):
            yield written
        file.seek(0)
        written.text = file.read()


@contextlib.contextmanager
def log_to_terminal(**config: Any) -> Iterator[Written]:
    written = Written()
    master, terminal = pty.openpty()
    with open(master, "rb", buffering=0) as reader, open(terminal, "w") as stream:
        with daemon_log(LogConfig(**config), stream):
            yield written
        written.text = reader.read(1 << 16).decode().replace("\r\n", "\n")


def divide_by_zero(log: Any) -> None:
    local = "of no " + "concern"
    try:
        _ = len(local) / 0
    except ZeroDivisionError:
        log.exception("failed", path="/a")


def wait_until_written(writer: LogWriter) -> None:
    eventually(lambda: not writer.waiting_bytes, "the lines to be written")


def test_json_has_time_level_and_event_first_and_then_the_fields_as_given() -> None:
    with log_to_file(format="json") as written:
        structlog.get_logger().info("started", streams=3, data="/srv")
    (entry,) = written.entries()
    assert list(entry) == ["timestamp", "level", "event", "streams", "data"]
    assert (entry["level"], entry["event"], entry["streams"]) == ("info", "started", 3)
    assert entry["timestamp"].endswith("Z")
    assert abs(datetime.fromisoformat(entry["timestamp"]) - datetime.now(UTC)).total_seconds() < 60


def test_json_has_an_exception_as_one_field_of_text() -> None:
    with log_to_file(format="json") as written:
        divide_by_zero(structlog.get_logger())
    (entry,) = written.entries()
    assert entry["exception"].startswith("Traceback")
    assert entry["exception"].endswith("ZeroDivisionError: division by zero")
    assert entry["path"] == "/a"


def test_json_has_what_is_not_json_as_text() -> None:
    with log_to_file(format="json") as written:
        structlog.get_logger().info("odd", path=Path("/a"), name="\udcff\n\x1b")
    (entry,) = written.entries()
    assert "/a" in entry["path"]
    assert entry["name"] == "\udcff\n\x1b"


def test_auto_is_json_in_a_file_and_coloured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    with log_to_file(format="auto") as in_file:
        structlog.get_logger().info("started")
    with log_to_terminal(format="auto") as on_terminal:
        structlog.get_logger().info("started")
    assert in_file.entries()[0]["event"] == "started"
    assert "\x1b[" in on_terminal.text


@pytest.mark.parametrize("log_to", [log_to_file, log_to_terminal])
def test_the_console_has_no_colours_in_a_file_nor_where_they_are_not_wanted(
    monkeypatch: pytest.MonkeyPatch,
    log_to: Callable[..., contextlib.AbstractContextManager[Written]],
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    with log_to(format="console") as written:
        structlog.get_logger().info("started", data="/srv")
    assert "started" in written.text
    assert "data=/srv" in written.text
    assert "\x1b" not in written.text


def test_what_senders_say_cannot_reach_the_terminal_as_escapes() -> None:
    with log_to_file(format="console") as written:
        log = structlog.get_logger()
        log.info("fenced\x1b[2J", producer="\x1b]0;é\x07\u202e", sockets=["\x9b"], stream="a\nb")
        try:
            raise ValueError("\x1b[2J")
        except ValueError:
            log.exception("failed")
    assert all(line.isprintable() for line in written.lines())
    assert "producer=\\x1b]0;é\\x07\\u202e" in written.text
    assert "stream=a\\nb" in written.text
    assert "Traceback (most recent call last):\n  File" in written.text


def test_the_console_shows_a_traceback_without_the_local_variables() -> None:
    with log_to_file(format="console") as written:
        divide_by_zero(structlog.get_logger())
    assert "ZeroDivisionError: division by zero" in written.text
    assert "of no concern" not in written.text


def test_what_is_below_the_level_is_not_written() -> None:
    with log_to_file(level="warning") as written:
        log = structlog.get_logger()
        log.debug("a")
        log.info("b")
        log.warning("c")
        log.error("d")
    assert [entry["event"] for entry in written.entries()] == ["c", "d"]


def test_what_libraries_log_is_in_the_log_too() -> None:
    with log_to_file() as written:
        logging.getLogger("asyncio").error("Task was destroyed: %s", "x")
    (entry,) = written.entries()
    assert (entry["level"], entry["event"], entry["logger"]) == ("error", "library", "asyncio")
    assert entry["message"] == "Task was destroyed: x"


# A reader that stands still, and a disk that is full


def test_a_full_disk_under_the_log_does_not_fail_who_logs() -> None:
    with open("/dev/full", "w") as full, daemon_log(LogConfig(max_lines=1000), full):
        for _ in range(1000):
            structlog.get_logger().error("commit_failed", error="no space left", padding="x" * 99)


def test_a_closed_reader_or_descriptor_does_not_fail_who_logs() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as stream, daemon_log(LogConfig(), stream):
        structlog.get_logger().error("nobody reads this")
        stream.close()
        structlog.get_logger().error("stopped")


def test_without_standard_error_nothing_is_written_and_nobody_fails(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("sys.stderr", None)
    with daemon_log(LogConfig()):
        structlog.get_logger().error("stopped")


def test_a_reader_that_stands_still_blocks_nobody_and_learns_how_many_lines_it_missed() -> None:
    lines, limit_bytes = 5000, 20_000
    reader, writer = os.pipe()
    with open(reader) as read_end:
        received: list[str] = []
        reading = threading.Thread(target=lambda: received.extend(read_end))
        with open(writer, "w") as stream:
            config = LogConfig(max_lines=lines, max_waiting=Size(limit_bytes))
            with daemon_log(config, stream):
                for number in range(lines):  # more than a pipe and the queue can take
                    structlog.get_logger().info("a", number=number)
                assert os.get_blocking(writer)
                reading.start()
        reading.join()
    entries = [json.loads(line) for line in received]
    numbers = [entry["number"] for entry in entries if entry["event"] == "a"]
    assert numbers == sorted(set(numbers))
    lost = [entry["lines"] for entry in entries if entry["event"] == "log_lines_lost"]
    assert len(numbers) + sum(lost) == lines
    assert 0 < len(numbers) < lines


def test_an_open_file_that_others_made_non_blocking_loses_no_line() -> None:
    lines = 2000
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with open(reader) as read_end:
        received: list[str] = []
        reading = threading.Thread(target=lambda: received.extend(read_end))
        with open(writer, "w") as stream, daemon_log(LogConfig(max_lines=lines), stream):
            for number in range(lines):
                structlog.get_logger().info("a", number=number)
            reading.start()
        reading.join()
    assert [json.loads(line)["number"] for line in received] == list(range(lines))


def test_a_line_cut_by_a_full_disk_stays_apart_from_the_next_and_losses_are_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = b""
    room_bytes: float = 10

    def write(_descriptor: int, data: memoryview) -> int:
        nonlocal written, room_bytes
        if not room_bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part = bytes(data[: min(len(data), int(room_bytes))])
        written += part
        room_bytes -= len(part)
        return len(part)

    monkeypatch.setattr("logengine.daemon.log_writer.os.write", write)
    writer = LogWriter(
        -1, 1000, lost_line=lambda lines: f"{lines} lost", due=lambda _now_s: Due([], None)
    )
    writer.write("0123456789")  # without its newline
    writer.write("lost as a whole")
    wait_until_written(writer)
    room_bytes = 1000
    writer.write("next")
    writer.close()
    assert written == b"0123456789\n2 lost\nnext\n"


class LogsWhenHashed(str):
    """Logs where a destructor might: in the midst of another line's call."""

    __slots__ = ()

    def __hash__(self) -> int:
        logging.getLogger("asyncio").error("Task was destroyed")
        return super().__hash__()

    __eq__ = str.__eq__


def test_a_destructor_may_log_while_another_line_is_counted() -> None:
    with log_to_file() as written:
        structlog.get_logger().info("commit_failed", stream=LogsWhenHashed("app"))
    events = [entry["event"] for entry in written.entries()]
    assert events[-1] == "commit_failed"
    assert set(events[:-1]) == {"library"}


# Lines that repeat


def test_a_cause_writes_its_first_lines_and_then_how_many_were_suppressed() -> None:
    with log_to_file(max_lines=3) as written:
        for _ in range(10):
            structlog.get_logger().warning("record_too_large", stream="a", uid=7)
        structlog.get_logger().warning("record_too_large", stream="a", uid=8)
        structlog.get_logger().info("stopped")
    entries = written.entries()
    events = [(entry["event"], entry.get("uid")) for entry in entries]
    too_large = ("record_too_large", 7)
    suppressed = ("log_lines_suppressed", 7)
    assert events == [*[too_large] * 3, ("record_too_large", 8), ("stopped", None), suppressed]
    assert (entries[-1]["of"], entries[-1]["lines"]) == ("record_too_large", 7)
    assert entries[-1]["level"] == "warning"


def test_what_was_suppressed_is_reported_without_another_line() -> None:
    reader, writer = os.pipe()
    config = LogConfig(max_lines=1, report_every=Duration(0.01))
    with open(reader) as read_end, open(writer, "w") as stream, daemon_log(config, stream):
        while True:  # until two lines were within one period
            structlog.get_logger().info("a")
            structlog.get_logger().info("a")
            if any(
                json.loads(read_end.readline())["event"] == "log_lines_suppressed" for _ in range(2)
            ):
                break


def test_a_user_has_no_more_lines_with_many_streams() -> None:
    limit = LineLimit(2, 10)
    admitted = [
        limit.admits({"event": "a", "uid": 7, "stream": f"s{number}"}, "info", 0)
        for number in range(4)
    ]
    assert admitted == [True, True, False, False]


def test_without_a_user_each_stream_counts_alone() -> None:
    limit = LineLimit(1, 10)
    for stream in ("a", "b"):
        assert limit.admits({"event": "commit_failed", "stream": stream}, "error", 0)
        assert not limit.admits({"event": "commit_failed", "stream": stream}, "error", 1)


def test_a_period_begins_with_its_first_line_and_ends_on_time() -> None:
    limit = LineLimit(1, 10)
    assert limit.admits({"event": "a"}, "info", 5)
    assert not limit.admits({"event": "a"}, "info", 6)
    assert limit.admits({"event": "b"}, "info", 7)
    assert limit.next_end_s() == 15
    assert limit.ended(14) == []
    assert limit.ended(15) == [Suppressed(Cause("a", None, None), 1, "info")]
    assert limit.admits({"event": "a"}, "info", 15)
    assert limit.ended(17) == []  # nothing of b was suppressed
    assert limit.next_end_s() == 25


def test_the_causes_that_are_counted_apart_are_bounded() -> None:
    limit = LineLimit(1, 10)
    admitted = [limit.admits({"event": "a", "uid": uid}, "info", 0) for uid in range(5000)]
    assert 1000 <= sum(admitted) < 1010
    assert limit.admits({"event": "b", "uid": 1}, "info", 0)
    assert sum(each.lines for each in limit.ended(10)) == 5000 - sum(admitted)
