"""The units in a real systemd, booted in a container: `make test-systemd`.

Withstands: start, kill -9 under load, restart under load, stop; with senders that the
socket unit keeps connected to, whatever the service does.
"""

import subprocess
import time

import pytest

from tests.daemon import eventually, nices
from tests.systemd.machine import PROJECT, Machine

pytestmark = pytest.mark.systemd


def test_it_is_active_once_it_listens(machine: Machine) -> None:
    assert machine.run("systemctl", "is-active", "logengine").stdout.strip() == "active"
    machine.run("logengine", "send", "-s", "first", stdin="hello\n")
    status = machine.run("systemctl", "show", "-P", "StatusText", "logengine").stdout
    assert status.strip() == "Serving"


def test_the_real_sender_is_recorded_though_the_daemon_is_another_user(machine: Machine) -> None:
    machine.run("useradd", "--no-create-home", "ann")
    uid = int(machine.run("id", "-u", "ann").stdout)
    machine.run(
        *("setpriv", "--reuid=ann", "--regid=ann", "--clear-groups"),
        *("logengine", "send", "-s", "who", "--timeout", "10s"),
        stdin="it was me\n",
    )
    (record,) = machine.records("who")
    assert record["_uid"] == uid
    assert record["_comm"] == "logengine"
    owner = machine.run("stat", "-c", "%U %a", "/var/log/logengine/who").stdout
    assert owner.startswith("logengine 750")


def test_a_unit_is_recorded_with_what_it_sends(machine: Machine) -> None:
    machine.run(
        *("systemd-run", "--wait", "--unit=speaker", "sh", "-c"),
        'echo \'{"event":"hi"}\' | logengine send -s units',
    )
    (record,) = machine.records("units")
    assert record["_unit"] == "speaker.service"


def test_compaction_may_step_back(machine: Machine) -> None:
    stats = machine.run("sh", "-c", f"cat /proc/{machine.main_pid()}/task/*/stat").stdout
    assert set(nices(stats)) == {0, 5}


@pytest.mark.parametrize("disturb", ["kill", "restart"])
def test_nothing_is_lost_or_doubled_under_load(machine: Machine, disturb: str) -> None:
    count = 100000
    senders = [
        machine.start("sh", "-c", f"seq -f 's{number} %.0f' {count} | logengine send -s {disturb}")
        for number in range(4)
    ]
    for _ in range(5):
        time.sleep(0.4)  # load, and not a condition: what is disturbed is to be under way
        before = machine.main_pid()
        if disturb == "kill":
            machine.run("systemctl", "kill", "-s", "KILL", "logengine")
            eventually(
                lambda before=before: machine.main_pid() not in {"0", before},  # type: ignore[misc]
                "systemd to start it again",
            )
        else:
            machine.run("systemctl", "restart", "logengine")
        # The socket unit takes the connection even while the daemon is away.
        machine.run("logengine", "send", "-s", "meanwhile", "--timeout", "10s", stdin="x\n")
    assert [sender.wait(120) for sender in senders] == [0] * 4
    stored: dict[str, list[int]] = {f"s{number}": [] for number in range(4)}
    for record in machine.records(disturb):
        name, number = record["message"].split()
        stored[name].append(int(number))
    for numbers in stored.values():
        assert numbers == list(range(1, count + 1))
    machine.run("logengine", "verify")


def test_stopping_leaves_the_socket_and_nothing_undone(machine: Machine) -> None:
    machine.run("systemctl", "stop", "logengine")
    result = machine.run("systemctl", "show", "-P", "Result", "logengine").stdout
    assert result.strip() == "success"
    # Whoever sends now is waited for: the socket starts the service again.
    machine.run("logengine", "send", "-s", "after", stdin="woke it\n")
    assert [record["message"] for record in machine.records("after")] == ["woke it"]


def test_the_sandbox_is_tight() -> None:
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "systemd/logengine.service"],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    exposure = float(told.split("Overall exposure level for logengine.service: ")[1].split()[0])
    assert exposure <= 1.0
