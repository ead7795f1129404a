"""The standard library's logging and structlog, into a real daemon."""

import io
import json
import logging
import logging.config
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

import logengine
from logengine.client.threads import Client
from logengine.format.timestamp import is_timestamp
from tests.daemon import Daemon

PATIENCE_S = 20.0


@pytest.fixture
def handler(daemon: Daemon) -> Iterator[logengine.LogEngineHandler]:
    handler = logengine.LogEngineHandler("app", socket=daemon.socket)
    yield handler
    handler.close()


@pytest.fixture
def log(handler: logengine.LogEngineHandler) -> Iterator[logging.Logger]:
    logger = logging.getLogger("shop.orders")
    logger.propagate = False
    logger.setLevel(logging.DEBUG)
    logger.addHandler(handler)
    yield logger
    logger.removeHandler(handler)


def stored(daemon: Daemon, handler: logengine.LogEngineHandler) -> list[dict[str, Any]]:
    handler.flush()
    return daemon.values("app")


def test_the_attributes_of_a_record_are_fields(
    daemon: Daemon, handler: logengine.LogEngineHandler, log: logging.Logger
) -> None:
    log.warning("order %d of %s", 7, "ann", extra={"customer": {"id": 7}, "time": "noon"})
    (value,) = stored(daemon, handler)
    assert is_timestamp(value.pop("time"))
    assert value.pop("line") > 0
    assert value == {
        "level": "warning",
        "logger": "shop.orders",
        "message": "order 7 of ann",
        "file": __file__,
        "function": "test_the_attributes_of_a_record_are_fields",
        "thread": "MainThread",
        "customer": {"id": 7},
        "time_": "noon",
    }


def test_exceptions_and_stacks_are_fields(
    daemon: Daemon, handler: logengine.LogEngineHandler, log: logging.Logger
) -> None:
    try:
        raise ValueError("no such order")
    except ValueError:
        log.exception("failed")
    log.info("here", stack_info=True)
    failed, here = stored(daemon, handler)
    assert failed["message"] == "failed"
    assert failed["exception_type"] == "ValueError"
    assert failed["exception_message"] == "no such order"
    assert failed["exception"].startswith("Traceback (most recent call last):\n")
    assert failed["exception"].endswith("ValueError: no such order")
    assert here["stack"].startswith("Stack (most recent call last):\n")


class Unprintable:
    def __repr__(self) -> str:
        raise RuntimeError("never")


class Failing(Exception):
    def __str__(self) -> str:
        raise RuntimeError("never")


CIRCULAR: dict[str, Any] = {"n": 1}
CIRCULAR["itself"] = CIRCULAR


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (object, "<class 'object'>"),
        (Unprintable(), "<Unprintable whose repr raises RuntimeError>"),
        (CIRCULAR, {"n": 1, "itself": {"n": 1, "itself": "..."}}),
        (float("nan"), None),
        (float("inf"), None),
        (2**200, 2**200),
        ("\ud800 alone", "\\ud800 alone"),
        (b"bytes", "Ynl0ZXM="),
        ({1: 2, None: 3, (4, 5): 6}, {"1": 2, "None": 3, "(4, 5)": 6}),
        ("nul \0 and \x1b", "nul \0 and \x1b"),
    ],
)
def test_no_value_raises_in_the_application(
    daemon: Daemon,
    handler: logengine.LogEngineHandler,
    log: logging.Logger,
    value: object,
    expected: object,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.info("value", extra={"value": value})
    (found,) = stored(daemon, handler)
    if value is CIRCULAR:
        assert found["value"]["n"] == 1
        assert "..." in json.dumps(found["value"])
    else:
        assert found["value"] == expected
    assert capsys.readouterr().err == ""


def test_keys_that_begin_with_an_underscore_are_kept_apart_from_the_engines(
    daemon: Daemon, handler: logengine.LogEngineHandler, log: logging.Logger
) -> None:
    log.info("keys", extra={"_own": 1, "_ts": 2, "_seq": 3})
    (found,) = stored(daemon, handler)
    assert (found["_own"], found["__ts"], found["__seq"]) == (1, 2, 3)


def test_a_message_too_large_for_the_daemon_is_cut(
    daemon: Daemon,
    handler: logengine.LogEngineHandler,
    log: logging.Logger,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.info("x" * 10 * 2**20, extra={"list": ["y" * 10] * 2**20, "small": {"kept": 1}})
    log.info("next")
    found, following = stored(daemon, handler)
    assert found["cut"] is True
    assert found["message"].startswith("xxx")
    assert found["list"].startswith("['yyyy")
    assert found["small"] == {"kept": 1}
    assert following["message"] == "next"
    assert capsys.readouterr().err == ""


def test_a_record_of_too_many_fields_for_the_daemon_keeps_the_first(
    daemon: Daemon,
    handler: logengine.LogEngineHandler,
    log: logging.Logger,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.info("kept", extra={f"name{n}": n for n in range(100_000)})
    (found,) = stored(daemon, handler)
    assert found["cut"] is True
    assert found["message"] == "kept"
    kept = [name for name in found if name.startswith("name")]
    assert kept == [f"name{n}" for n in range(len(kept))]
    assert len(kept) > 10_000
    assert capsys.readouterr().err == ""


def test_arguments_that_do_not_fit_and_exceptions_without_text_are_logged_all_the_same(
    daemon: Daemon, handler: logengine.LogEngineHandler, capsys: pytest.CaptureFixture[str]
) -> None:
    # Not through the logger: there is a handler of pytest's, which does raise.
    handler.handle(logging.makeLogRecord({"msg": "%d orders", "args": ("many",)}))
    handler.handle(logging.makeLogRecord({"msg": "%s", "args": (Unprintable(),)}))
    try:
        raise Failing
    except Failing:
        handler.handle(logging.makeLogRecord({"msg": "failing", "exc_info": sys.exc_info()}))
    handler.handle(logging.makeLogRecord({"msg": "none", "exc_info": (None, None, None)}))
    handler.handle(logging.makeLogRecord({"msg": Failing()}))
    first, second, third, fourth, fifth = stored(daemon, handler)
    assert fifth["message"] == "Failing()"
    assert first["message"] == "%d orders (with arguments that do not fit: ('many',))"
    assert second["message"].startswith("%s (with arguments that do not fit")
    assert third["exception_type"] == "Failing"
    assert "exception" not in fourth
    assert capsys.readouterr().err == ""


def test_a_handler_that_is_full_and_is_to_raise_tells_on_standard_error(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    handler = logengine.LogEngineHandler(
        "app", socket=root / "socket", on_full="raise", max_records=1, close_timeout=0
    )
    for _ in range(2):
        handler.emit(logging.makeLogRecord({"msg": "hello"}))
    assert "ClientFull" in capsys.readouterr().err
    handler.close()
    assert "1 records of stream 'app' are not durable" in capsys.readouterr().err


class Limited(Client):
    def send(self, record: Any) -> int:
        raise MemoryError("out of it")


def test_an_error_that_nobody_expects_is_not_raised_and_told_once(
    daemon: Daemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("logengine.client.sender.Client", Limited)
    factory = logengine.StructlogFactory("app", socket=daemon.socket)
    handler = logengine.LogEngineHandler("app", socket=daemon.socket)
    for _ in range(3):
        factory().info(event="hello")
        handler.handle(logging.makeLogRecord({"msg": "hello"}))
    told = (
        "logengine: a record of stream 'app' was lost, later ones are counted: "
        "MemoryError('out of it')\n"
    )
    assert capsys.readouterr().err == 2 * told
    handler.close()
    assert capsys.readouterr().err.endswith("3 records of stream 'app' were lost in total\n")


PROGRAM = """
import logging, logging.config
logging.config.dictConfig({
    "version": 1,
    "handlers": {"daemon": {"class": "logengine.LogEngineHandler", "stream": "web",
                            "level": "INFO", "max_bytes": 1000000}},
    "root": {"handlers": ["daemon"], "level": "DEBUG"},
})
for n in range(1000):
    logging.getLogger("app").info("number %d", n, extra={"n": n})
logging.debug("not this")
"""


def test_dict_config_is_all_it_takes_and_shutdown_flushes(daemon: Daemon) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"LOGENGINE_SOCKET": str(daemon.socket)},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [value["n"] for value in daemon.values("web")] == list(range(1000))


def test_a_program_without_a_daemon_ends_in_time_and_says_what_is_lost(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.replace('"stream"', '"close_timeout": 0.1, "stream"')],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=os.environ | {"LOGENGINE_SOCKET": str(root / "socket")},
    )
    assert done.returncode == 0
    assert "1000 records of stream 'web' are not durable" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def configured(daemon: Daemon) -> Iterator[logengine.StructlogFactory]:
    before = structlog.get_config()
    factory = logengine.StructlogFactory("app", socket=daemon.socket)
    structlog.configure(processors=logengine.structlog_processors(), logger_factory=factory)
    yield factory
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()
    factory.client.close()


def test_structlog_events_are_records(
    daemon: Daemon, configured: logengine.StructlogFactory
) -> None:
    log = structlog.get_logger()
    structlog.contextvars.bind_contextvars(request="r-1")
    log.bind(user="ann").info("signed_in", attempt=2)
    try:
        raise KeyError("x")
    except KeyError:
        log.exception("failed")
    log.warning("odd", value=object)
    configured.client.flush(PATIENCE_S)
    first, second, third = daemon.values("app")
    assert first.pop("time").endswith("Z")
    assert first == {
        "request": "r-1",
        "user": "ann",
        "attempt": 2,
        "event": "signed_in",
        "level": "info",
    }
    assert second["exception"].endswith("KeyError: 'x'")
    assert third["value"] == "<class 'object'>"


def test_structlog_with_a_renderer_of_its_own_sends_the_text(
    daemon: Daemon, configured: logengine.StructlogFactory
) -> None:
    structlog.configure(processors=[structlog.processors.LogfmtRenderer()])
    structlog.get_logger().info("hello", n=1)
    configured.client.flush(PATIENCE_S)
    assert daemon.values("app") == [{"event": "n=1 event=hello"}]


def test_what_cannot_be_flushed_is_told_on_standard_error(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    handler = logengine.LogEngineHandler("app", socket=root / "socket", close_timeout=0)
    handler.emit(logging.makeLogRecord({"msg": "hello"}))
    handler.flush()
    assert "not durable: no daemon" in said.getvalue()
    handler.close()
