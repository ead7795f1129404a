"""The recipes of `docs/journal.md`, under a real systemd: `make test-systemd`."""

import re
from collections.abc import Iterator

import pytest

from tests.daemon import eventually
from tests.systemd.machine import Machine
from tests.systemd.recipe import CONFIG, Recipe, stored

pytestmark = pytest.mark.systemd

RECIPE = Recipe("journal.md")
UNIT = "/etc/systemd/system/logengine-journal.socket"
(*_, BOUND) = RECIPE.blocks("A drop-in of a service")[:1]
(WITHOUT_JOURNALD,) = RECIPE.blocks("### On a machine without journald")
JOURNALD = (
    "systemd-journald-dev-log.socket",
    "systemd-journald.socket",
    "systemd-journald.service",
)
# Sends an entry in a memory file.
SEND_LARGE = """
import array, fcntl, os, socket
sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sender.connect("/run/systemd/journal/socket")
file = os.memfd_create("entry", os.MFD_ALLOW_SEALING)
os.write(file, b"MESSAGE=large\\nX=" + b"x" * 600_000 + b"\\n")
fcntl.fcntl(file, 1033, 15)
sender.sendmsg([b""], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]))])
"""


def bound(machine: Machine, unit: str, *command: str, stdin: str = "") -> None:
    """Runs a command in a service that has the daemon in place of journald."""
    bind = re.search(r"BindPaths=\S+", BOUND)
    assert bind is not None
    machine.run(
        *("systemd-run", "--wait", "--pipe", f"--unit={unit}", "--property", bind[0], *command),
        stdin=stdin,
    )


@pytest.fixture
def clean(machine: Machine) -> Iterator[Machine]:
    """The machine; afterwards, it is again as it was."""
    before = machine.run("cat", CONFIG).stdout
    yield machine
    machine.run("systemctl", "disable", "--now", "logengine-journal.socket")
    machine.run("rm", "-rf", UNIT, "/etc/systemd/system/logengine.service.d")
    machine.run("tee", CONFIG, stdin=before)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "logengine")


def test_the_page_has_all_files_of_its_recipe() -> None:
    assert set(RECIPE.files) == {
        UNIT,
        CONFIG,
        "/etc/systemd/system/logengine.service.d/journal.conf",
    }
    assert "BindPaths=" in BOUND
    assert "ListenStream=/run/systemd/journal/stdout" in WITHOUT_JOURNALD
    assert len(RECIPE.commands) == 4


def test_beside_journald_a_service_may_send_its_entries_to_the_daemon(clean: Machine) -> None:
    RECIPE.install(clean)
    entry = "MESSAGE=from a service\nPRIORITY=4\nSYSLOG_IDENTIFIER=app\n_PID=1\n"
    bound(clean, "speaker", "logger", "--journald", stdin=entry)
    record = stored(clean, "journal", "from a service")
    assert (record["level"], record["app"], record["_uid"]) == ("warning", "app", 0)
    assert record["_pid"] != 1
    bound(clean, "large", "python3", "-c", SEND_LARGE)
    assert stored(clean, "journal", "large")["X"] == "x" * 600_000
    clean.run("logger", "--tag", "app", "for journald")
    shown = clean.run("journalctl", "--sync", check=False)
    assert shown.returncode == 0
    assert "for journald" in clean.run("journalctl", "-t", "app").stdout


def test_a_killed_daemon_takes_the_entries_that_waited_at_systemds_socket(clean: Machine) -> None:
    RECIPE.install(clean)
    bound(clean, "before", "logger", "--journald", stdin="MESSAGE=before\n")
    stored(clean, "journal", "before")
    before = clean.main_pid()
    clean.run("systemctl", "kill", "--signal=STOP", "logengine.service")
    bound(clean, "meanwhile", "logger", "--journald", stdin="MESSAGE=meanwhile\n")
    clean.run("systemctl", "kill", "--signal=KILL", "logengine.service")
    stored(clean, "journal", "meanwhile")
    assert clean.main_pid() != before


def test_without_journald_the_daemon_has_all_that_services_print(clean: Machine) -> None:
    paths = ("/run/logengine/journal/", "/run/systemd/journal/")
    changed = {path: RECIPE.files[path].replace(*paths) for path in (UNIT, CONFIG)}
    for line in WITHOUT_JOURNALD.splitlines():
        assert line in changed[UNIT]
    clean.run("systemctl", "mask", "--runtime", "--now", *JOURNALD)
    clean.run("rm", "-rf", "/run/systemd/journal/socket", "/run/systemd/journal/stdout")
    try:
        RECIPE.install(clean, changed)
        clean.run("systemd-run", "--wait", "--unit=writer", "sh", "-c", "echo '<3>to its output'")
        record = stored(clean, "output", "to its output")
        assert (record["level"], record["facility"]) == ("error", "daemon")
        assert (record["app"], record["unit"]) == ("sh", "writer.service")
        clean.run("systemd-cat", "-t", "mycat", "echo", "of a program")
        assert stored(clean, "output", "of a program")["app"] == "mycat"
        clean.run("logger", "--journald", stdin="MESSAGE=an entry\n")
        stored(clean, "journal", "an entry")
    finally:
        clean.run("systemctl", "stop", "logengine-journal.socket", "logengine.service")
        clean.run("systemctl", "unmask", "--runtime", *JOURNALD)
        clean.run("systemctl", "start", *reversed(JOURNALD))
        is_there = ("test", "-S", "/run/systemd/journal/socket")
        eventually(lambda: not clean.run(*is_there, check=False).returncode, "journald")
