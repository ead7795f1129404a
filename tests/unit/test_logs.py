"""The daemon's own log."""

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog

from logengine.daemon.daemon_log import configure_daemon_log


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def divide_by_zero(log: Any) -> None:
    local = "of no " + "concern"
    try:
        _ = len(local) / 0
    except ZeroDivisionError:
        log.exception("failed", path="/a")


def test_json_has_time_level_and_event_first_and_then_the_fields_as_given() -> None:
    stream = io.StringIO()
    configure_daemon_log("info", "json", stream)
    structlog.get_logger().info("started", streams=3, data="/srv")
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert list(entry) == ["timestamp", "level", "event", "streams", "data"]
    assert (entry["level"], entry["event"], entry["streams"]) == ("info", "started", 3)
    assert entry["timestamp"].endswith("Z")
    assert abs(datetime.fromisoformat(entry["timestamp"]) - datetime.now(UTC)).total_seconds() < 60


def test_json_has_an_exception_as_one_field_of_text() -> None:
    stream = io.StringIO()
    configure_daemon_log("info", "json", stream)
    divide_by_zero(structlog.get_logger())
    (line,) = stream.getvalue().splitlines()
    entry = json.loads(line)
    assert entry["exception"].startswith("Traceback")
    assert entry["exception"].endswith("ZeroDivisionError: division by zero")
    assert entry["path"] == "/a"


def test_json_has_what_is_not_json_as_text() -> None:
    stream = io.StringIO()
    configure_daemon_log("info", "json", stream)
    structlog.get_logger().info("odd", path=Path("/a"), name="\udcff\n\x1b")
    entry = json.loads(stream.getvalue())
    assert "/a" in entry["path"]
    assert entry["name"] == "\udcff\n\x1b"


def test_auto_is_json_in_a_pipe_and_coloured_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    pipe, terminal = io.StringIO(), Terminal()
    for stream in (pipe, terminal):
        configure_daemon_log("info", "auto", stream)
        structlog.get_logger().info("started")
    assert json.loads(pipe.getvalue())["event"] == "started"
    assert "\x1b[" in terminal.getvalue()


def test_the_console_has_no_colours_in_a_pipe_nor_where_they_are_not_wanted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    for stream in (io.StringIO(), Terminal()):
        configure_daemon_log("info", "console", stream)
        structlog.get_logger().info("started", data="/srv")
        assert "started" in stream.getvalue()
        assert "data=/srv" in stream.getvalue()
        assert "\x1b" not in stream.getvalue()


def test_what_senders_say_cannot_reach_the_terminal_as_escapes() -> None:
    stream = io.StringIO()
    configure_daemon_log("info", "console", stream)
    log = structlog.get_logger()
    log.info("fenced\x1b[2J", producer="\x1b]0;é\x07\u202e", sockets=["\x9b"], stream="a\nb")
    try:
        raise ValueError("\x1b[2J")
    except ValueError:
        log.exception("failed")
    shown = stream.getvalue()
    assert all(line.isprintable() for line in shown.splitlines())
    assert "producer=\\x1b]0;é\\x07\\u202e" in shown
    assert "stream=a\\nb" in shown
    assert "Traceback (most recent call last):\n  File" in shown


def test_the_console_shows_a_traceback_without_the_local_variables() -> None:
    stream = io.StringIO()
    configure_daemon_log("info", "console", stream)
    divide_by_zero(structlog.get_logger())
    assert "ZeroDivisionError: division by zero" in stream.getvalue()
    assert "of no concern" not in stream.getvalue()


def test_what_is_below_the_level_is_not_written() -> None:
    stream = io.StringIO()
    configure_daemon_log("warning", "json", stream)
    log = structlog.get_logger()
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")
    events = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert events == ["c", "d"]


def test_a_full_disk_under_the_log_does_not_fail_who_logs() -> None:
    stream = open("/dev/full", "w", encoding="utf-8", buffering=1)  # noqa: SIM115 - see below
    configure_daemon_log("info", "json", stream)
    for _ in range(1000):
        structlog.get_logger().error("commit_failed", error="no space left", padding="x" * 99)
    with pytest.raises(OSError, match="No space"):  # what it still holds fails once more
        stream.close()


def test_a_closed_stream_does_not_fail_who_logs() -> None:
    stream = io.StringIO()
    configure_daemon_log("info", "json", stream)
    stream.close()
    structlog.get_logger().error("stopped")
