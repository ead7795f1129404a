"""The recipes of `docs/syslog.md` for /dev/log, under a real systemd: `make test-systemd`."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.daemon import eventually
from tests.systemd.machine import PROJECT, Machine

pytestmark = pytest.mark.systemd

PAGE = (PROJECT / "docs" / "syslog.md").read_text()
UNIT = "/etc/systemd/system/logengine-syslog.socket"
CONFIG = "/etc/logengine/logengine.toml"
# What the page says to write, and to which file.
FILES = dict(
    re.findall(r"^`(/etc/[^`]+)`[^\n]*:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
)
# The blocks without a file, which say what is different beside journald.
FORWARDED, BOUND = re.findall(
    r"^```ini\n(.*?)```", PAGE[PAGE.index("### Beside journald") :], re.DOTALL | re.MULTILINE
)
COMMANDS = re.findall(r"^    (systemctl .*?)(?: *#.*)?$", PAGE, re.MULTILINE)
JOURNALD = (
    "systemd-journald-dev-log.socket",
    "systemd-journald.socket",
    "systemd-journald.service",
)


def install(machine: Machine, files: dict[str, str]) -> None:
    for path, content in files.items():
        machine.run("mkdir", "-p", path.rpartition("/")[0])
        machine.run("tee", path, stdin=content)
    for command in COMMANDS:
        machine.run(*command.split())


@pytest.fixture
def clean(machine: Machine) -> Iterator[Machine]:
    """The machine; afterwards, it is again as it was."""
    before = machine.run("cat", CONFIG).stdout
    yield machine
    machine.run("systemctl", "disable", "--now", "logengine-syslog.socket")
    machine.run("rm", "-rf", UNIT, "/etc/systemd/system/logengine.service.d")
    machine.run("tee", CONFIG, stdin=before)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "logengine")


def stored(machine: Machine, message: str) -> dict[str, Any]:
    """The record with this message, once it is there."""

    def found() -> list[dict[str, Any]]:
        if machine.run("test", "-d", "/var/log/logengine/syslog", check=False).returncode:
            return []
        records = machine.records("syslog")
        return [record for record in records if record.get("message") == message]

    (record,) = eventually(found, message)
    assert isinstance(record, dict)
    return record


def test_the_page_has_all_files_of_its_recipe() -> None:
    assert set(FILES) == {
        UNIT,
        CONFIG,
        "/etc/systemd/system/logengine.service.d/syslog.conf",
    }
    assert "ListenDatagram=/run/systemd/journal/syslog" in FORWARDED
    assert "BindPaths=" in BOUND
    assert len(COMMANDS) == 4


def test_without_journald_the_daemon_has_dev_log_and_a_restart_loses_nothing(
    clean: Machine,
) -> None:
    clean.run("systemctl", "mask", "--runtime", "--now", *JOURNALD)
    clean.run("rm", "-f", "/dev/log")
    try:
        install(clean, FILES)
        assert clean.run("readlink", "/dev/log").stdout.strip() == "/run/logengine/log"
        clean.run("logger", "--tag", "app", "hello")
        record = stored(clean, "hello")
        assert (record["app"], record["_uid"]) == ("app", 0)
        clean.run("systemctl", "stop", "logengine.service")
        clean.run("logger", "--tag", "app", "while it is down")
        clean.run("systemctl", "start", "logengine.service")
        assert stored(clean, "while it is down")["_uid"] == 0
    finally:
        clean.run("systemctl", "stop", "logengine-syslog.socket")
        clean.run("systemctl", "unmask", "--runtime", *JOURNALD)
        clean.run("systemctl", "start", *reversed(JOURNALD))


def test_beside_journald_the_daemon_gets_what_journald_forwards(clean: Machine) -> None:
    unit, count = re.subn(r"\[Socket\].*?\n\n", FORWARDED + "\n", FILES[UNIT], flags=re.DOTALL)
    assert count == 1
    path = re.search(r"ListenDatagram=(\S+)", FORWARDED)
    assert path is not None
    clean.run("mkdir", "-p", "/etc/systemd/journald.conf.d")
    clean.run(
        *("tee", "/etc/systemd/journald.conf.d/forward.conf"),
        stdin="[Journal]\nForwardToSyslog=yes\n",
    )
    clean.run("systemctl", "restart", "systemd-journald")
    config = FILES[CONFIG].replace("/run/logengine/log", path[1])
    install(clean, FILES | {UNIT: unit, CONFIG: config})
    clean.run("systemd-run", "--wait", "--unit=speaker", "logger", "--tag", "app", "forwarded")
    record = stored(clean, "forwarded")
    assert (record["app"], record["_uid"]) == ("app", 0)
    clean.run("systemd-run", "--wait", "--unit=writer", "echo", "to its output")
    assert stored(clean, "to its output")["level"] == "info"


def test_beside_journald_a_service_may_have_the_daemon_as_its_dev_log(clean: Machine) -> None:
    unit = re.sub(r"Symlinks=.*\n", "", FILES[UNIT])
    install(clean, FILES | {UNIT: unit})
    bind = re.search(r"BindPaths=\S+", BOUND)
    assert bind is not None
    clean.run(
        *("systemd-run", "--wait", "--unit=bound", "--property", bind[0]),
        *("logger", "--tag", "app", "from a service"),
    )
    assert stored(clean, "from a service")["app"] == "app"
    clean.run("logger", "--tag", "app", "from elsewhere")
    clean.run("logger", "--socket", "/run/logengine/log", "afterwards")
    stored(clean, "afterwards")
    assert "from elsewhere" not in [record.get("message") for record in clean.records("syslog")]
