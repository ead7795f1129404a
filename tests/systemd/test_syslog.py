"""The recipes of `docs/syslog.md` for /dev/log, under a real systemd: `make test-systemd`."""

import re
from collections.abc import Iterator

import pytest

from tests.systemd.machine import Machine
from tests.systemd.recipe import CONFIG, Recipe, stored

pytestmark = pytest.mark.systemd

RECIPE = Recipe("syslog.md")
FILES = RECIPE.files
UNIT = "/etc/systemd/system/logengine-syslog.socket"
# The blocks without a file, which say what is different beside journald.
FORWARDED, BOUND = RECIPE.blocks("### Beside journald")
JOURNALD = (
    "systemd-journald-dev-log.socket",
    "systemd-journald.socket",
    "systemd-journald.service",
)


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


def test_the_page_has_all_files_of_its_recipe() -> None:
    assert set(FILES) == {
        UNIT,
        CONFIG,
        "/etc/systemd/system/logengine.service.d/syslog.conf",
    }
    assert "ListenDatagram=/run/systemd/journal/syslog" in FORWARDED
    assert "BindPaths=" in BOUND
    assert len(RECIPE.commands) == 4


def test_without_journald_the_daemon_has_dev_log_and_a_restart_loses_nothing(
    clean: Machine,
) -> None:
    clean.run("systemctl", "mask", "--runtime", "--now", *JOURNALD)
    clean.run("rm", "-f", "/dev/log")
    try:
        RECIPE.install(clean)
        assert clean.run("readlink", "/dev/log").stdout.strip() == "/run/logengine/log"
        clean.run("logger", "--tag", "app", "hello")
        record = stored(clean, "syslog", "hello")
        assert (record["app"], record["_uid"]) == ("app", 0)
        clean.run("systemctl", "stop", "logengine.service")
        clean.run("logger", "--tag", "app", "while it is down")
        clean.run("systemctl", "start", "logengine.service")
        assert stored(clean, "syslog", "while it is down")["_uid"] == 0
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
    RECIPE.install(clean, {UNIT: unit, CONFIG: config})
    clean.run("systemd-run", "--wait", "--unit=speaker", "logger", "--tag", "app", "forwarded")
    record = stored(clean, "syslog", "forwarded")
    assert (record["app"], record["_uid"]) == ("app", 0)
    clean.run("systemd-run", "--wait", "--unit=writer", "echo", "to its output")
    assert stored(clean, "syslog", "to its output")["level"] == "info"


def test_beside_journald_a_service_may_have_the_daemon_as_its_dev_log(clean: Machine) -> None:
    unit = re.sub(r"Symlinks=.*\n", "", FILES[UNIT])
    RECIPE.install(clean, {UNIT: unit})
    bind = re.search(r"BindPaths=\S+", BOUND)
    assert bind is not None
    clean.run(
        *("systemd-run", "--wait", "--unit=bound", "--property", bind[0]),
        *("logger", "--tag", "app", "from a service"),
    )
    assert stored(clean, "syslog", "from a service")["app"] == "app"
    clean.run("logger", "--tag", "app", "from elsewhere")
    clean.run("logger", "--socket", "/run/logengine/log", "afterwards")
    stored(clean, "syslog", "afterwards")
    assert "from elsewhere" not in [record.get("message") for record in clean.records("syslog")]
