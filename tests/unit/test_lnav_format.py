"""The format file for lnav knows our lines: times, levels, messages and the envelope."""

import json
import os
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from logengine.filtering.levels import LEVELS
from logengine.format.record import ENVELOPE_NAMES, MESSAGE_FIELDS
from tests.daemon import Daemon

FORMAT_FILE = files("logengine") / "lnav.json"
FORMAT: dict[str, Any] = json.loads(FORMAT_FILE.read_text())["logengine_log"]
# https://lnav.org/schemas/format-v1.schema.json
KEYS = {
    *("title", "description", "json", "hide-extra", "timestamp-field", "timestamp-format"),
    *("level-field", "level", "body-field", "line-format", "value"),
}
KINDS = {"string", "integer", "float", "boolean", "json", "struct", "quoted", "xml"}
LEVELS_OF_LNAV = {
    **{name: name for name in ("trace", "debug", "info", "notice", "warning", "error")},
    "critical": "critical",
    "alert": "fatal",
    "emergency": "fatal",
}
PINO = {"trace": 10, "debug": 20, "info": 30, "warning": 40, "error": 50}
SYSLOG = {"alert": 1, "critical": 2, "error": 3, "warning": 4, "notice": 5, "info": 6, "debug": 7}


def levels_of(value: str) -> list[str]:
    return [name for name, pattern in FORMAT["level"].items() if re.search(pattern, value)]


def test_the_file_has_what_the_schema_allows() -> None:
    assert set(FORMAT) == KEYS
    assert {each["kind"] for each in FORMAT["value"].values()} <= KINDS
    for part in FORMAT["line-format"]:
        assert (
            isinstance(part, str)
            or part["field"].startswith("__")
            or (part["field"] in FORMAT["value"])
        )


def test_the_file_names_the_envelope_and_the_messages() -> None:
    added = {"_stream", "_seq", "_gaps"}
    known = {name for name in ENVELOPE_NAMES if name not in ("_ts", "_erased")}
    assert set(FORMAT["value"]) == known | added | set(MESSAGE_FIELDS)
    assert FORMAT["timestamp-field"] == "_ts"
    assert FORMAT["body-field"] in MESSAGE_FIELDS


def test_each_name_of_a_level_is_one_of_lnavs_levels() -> None:
    for name, *others in LEVELS:
        expected = LEVELS_OF_LNAV[name]
        for spelling in (name, *others):
            wanted = "fatal" if spelling in ("fatal", "ftl", "f") else expected
            assert levels_of(spelling) == levels_of(spelling.upper()) == [wanted], spelling
    for numbers in (PINO, SYSLOG):
        for name, number in numbers.items():
            assert levels_of(str(number)) == [LEVELS_OF_LNAV[name]], number
    assert levels_of("0") == levels_of("60") == ["fatal"]


def test_lnav_shows_segments_and_what_cat_prints(daemon: Daemon, tmp_path: Path) -> None:
    if shutil.which("lnav") is None:
        pytest.skip("there is no lnav here")
    home = tmp_path / "home"
    installed = home / ".config" / "lnav" / "formats" / "logengine" / "lnav.json"
    installed.parent.mkdir(parents=True)
    installed.write_text(FORMAT_FILE.read_text())
    environ = os.environ | {"HOME": str(home), "TERM": "xterm", "TZ": "UTC"}
    checked = subprocess.run(["lnav", "-n", "-C"], env=environ, capture_output=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, b"")
    records = [
        {"level": "WARN", "event": "one"},
        {"level": 50, "message": "two", "user": "ann"},
        {"level": "info", "msg": "three"},
    ]
    lines = "".join(f"{json.dumps(each)}\n" for each in records).encode()
    daemon.cli("send", "-s", "app", stdin=lines)
    printed = tmp_path / "printed.ndjson"
    printed.write_bytes(daemon.cli("cat", "app", "-o", "json").stdout)
    for path in (printed, *daemon.segments("app")):
        shown = subprocess.run(
            ["lnav", "-n", str(path)], env=environ, capture_output=True, text=True, check=True
        ).stdout
        for level, message in (("WARN", "one"), ("ERROR", "two"), ("INFO", "three")):
            assert re.search(
                rf"^\d{{4}}-[\d-]+ [\d:.]+ {level}\w* +(app)? \S+: {message}$", shown, re.MULTILINE
            )
        assert "user: ann" in shown
