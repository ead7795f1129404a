"""A socket of the network that systemd holds: restarts under load, and renewed certificates."""

import json
import ssl
import subprocess
from collections import defaultdict
from collections.abc import Iterator

import pytest

from tests.daemon import PATIENCE_S, eventually
from tests.e2e.test_network import Authority, authority
from tests.ports import HOST, free_port
from tests.systemd.machine import Machine
from tests.systemd.recipe import CONFIG

__all__ = ["authority"]  # a fixture

pytestmark = pytest.mark.systemd

SOCKET = "logengine-network.socket"
UNIT = f"/etc/systemd/system/{SOCKET}"
DROP_IN = "/etc/systemd/system/logengine.service.d/network.conf"
CERTIFICATE, KEY = "/etc/logengine/tls.pem", "/etc/logengine/tls.key"

# Sends numbered messages over one connection after the other, until its input ends; a connection
# that is refused ends it. Prints how many it sent over each.
SENDER = """
import json, select, socket, sys

sent, sender = [], None
while not select.select([sys.stdin], [], [], 0.0005)[0]:
    if sender is None:
        sender = socket.create_connection((sys.argv[1], int(sys.argv[2])), 60)
        sent.append(0)
    try:
        if select.select([sender], [], [], 0)[0]:
            raise ConnectionError("ended by the daemon")
        sender.sendall(b"<14>a: %d-%d\\n" % (len(sent) - 1, sent[-1]))
        sent[-1] += 1
    except OSError:
        sender.close()
        sender = None
if sender is not None:
    sender.shutdown(socket.SHUT_WR)
    sender.recv(1)
print(json.dumps(sent))
"""


@pytest.fixture
def port(machine: Machine) -> Iterator[int]:
    """The port of a socket unit that can be added to the machine, which is then as it was."""
    before = machine.run("cat", CONFIG).stdout
    yield free_port()
    machine.run("systemctl", "disable", "--now", SOCKET)
    machine.run("rm", "-f", UNIT, DROP_IN, CERTIFICATE, KEY)
    machine.run("tee", CONFIG, stdin=before)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "logengine")


def install(machine: Machine, port: int, said: str = "") -> None:
    unit = f"[Socket]\nListenStream={HOST}:{port}\nIPAddressDeny=any\nIPAddressAllow=localhost\n"
    files = {
        UNIT: f"{unit}Service=logengine.service\n[Install]\nWantedBy=sockets.target\n",
        DROP_IN: f"[Unit]\nWants={SOCKET}\nAfter={SOCKET}\n"
        f"[Service]\nSockets=logengine.socket {SOCKET}\n",
        CONFIG: f"[[listen]]\npath = '/run/logengine/socket'\n"
        f"[[network]]\naddress = '{HOST}:{port}'\n{said}",
    }
    for path, content in files.items():
        machine.run("mkdir", "-p", path.rpartition("/")[0])
        machine.run("tee", path, stdin=content)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "stop", "logengine.service")
    machine.run("systemctl", "enable", "--now", SOCKET)
    machine.run("systemctl", "start", "logengine.service")


def messages(machine: Machine) -> list[str]:
    if machine.run("test", "-d", "/var/log/logengine/network", check=False).returncode:
        return []
    return [record["message"] for record in machine.records("network")]


def test_a_restart_under_load_refuses_no_connection_and_loses_at_most_the_end_of_one(
    machine: Machine, port: int
) -> None:
    install(machine, port)
    pipe = subprocess.PIPE
    command = ("python3", "-c", SENDER, HOST, str(port))
    with machine.start(*command, stdin=pipe, stdout=pipe) as sender:
        try:
            for how in ("restart", "kill", "restart"):
                before = len(messages(machine))
                eventually(lambda: len(messages(machine)) > before)  # noqa: B023 - called here
                if how == "kill":
                    machine.run("systemctl", "kill", "--signal=KILL", "logengine.service")
                else:
                    machine.run("systemctl", "restart", "logengine.service")
            before = len(messages(machine))
            eventually(lambda: len(messages(machine)) > before)
            said, _ = sender.communicate("", timeout=PATIENCE_S)
        finally:
            sender.kill()
    assert sender.returncode == 0
    sent = json.loads(said)
    stored: dict[int, list[int]] = defaultdict(list)
    for message in messages(machine):
        connection, number = map(int, message.split("-"))
        stored[connection].append(number)
    assert len(sent) > 1
    for connection, numbers in stored.items():
        assert numbers == list(range(len(numbers))), "one is missing in between, or there twice"
        assert len(numbers) <= sent[connection]
    assert len(stored[len(sent) - 1]) == sent[-1]
    machine.run("logengine", "verify")


def test_a_reload_of_the_service_uses_a_renewed_certificate(
    machine: Machine, port: int, authority: Authority
) -> None:
    renew(machine, authority)
    install(machine, port, f"certificate = '{CERTIFICATE}'\nkey = '{KEY}'\n")
    old, pid = certificate_at(port), machine.main_pid()
    new = renew(machine, authority)
    machine.run("systemctl", "reload", "logengine")
    eventually(lambda: certificate_at(port) == new, "the renewed certificate")
    assert old != new
    assert machine.main_pid() == pid


def renew(machine: Machine, authority: Authority) -> str:
    certificate, key = authority.issue("server")
    for path, found in ((CERTIFICATE, certificate), (KEY, key)):
        machine.run("tee", path, stdin=found.read_text())
        machine.run("chown", "logengine:", path)
        machine.run("chmod", "0640", path)
    return certificate.read_text()


def certificate_at(port: int) -> str:
    """What the machine, which has the network of this host, shows of itself."""
    return ssl.get_server_certificate((HOST, port), timeout=PATIENCE_S)
