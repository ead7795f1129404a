"""Syslog from the network, with a real daemon and real clients: TCP, UDP and TLS."""

import contextlib
import fcntl
import json
import logging
import signal
import socket
import ssl
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from logging.handlers import SysLogHandler
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from logengine.intake.network import NETWORK_UID
from tests.daemon import PATIENCE_S, Daemon, eventually
from tests.e2e.test_lines import run_with
from tests.e2e.test_syslog import LOGGER, needs_logger
from tests.ports import HOST, free_port

KINDS = {"stream": socket.SOCK_STREAM, "datagram": socket.SOCK_DGRAM}


class Receiver:
    """A daemon with one socket of the network."""

    def __init__(self, root: Path, kind: str, said: str, config: str) -> None:
        self.port = free_port(KINDS[kind])
        network = f"[[network]]\naddress = '{HOST}:{self.port}'\ntype = '{kind}'\n{said}\n"
        self.daemon = Daemon(root, config + network)

    def connect(self) -> socket.socket:
        return socket.create_connection((HOST, self.port), PATIENCE_S)

    def messages(self, stream: str = "network") -> list[str]:
        return [record["message"] for record in self.daemon.records(stream)]

    def has(self, *messages: str, stream: str = "network") -> None:
        expected = list(messages)
        eventually(lambda: self.messages(stream) == expected, f"{expected}")


Make = Callable[..., Receiver]


@pytest.fixture
def make(root: Path) -> Iterator[Make]:
    with contextlib.ExitStack() as stack:

        def made(kind: str = "stream", said: str = "", config: str = "") -> Receiver:
            receiver = Receiver(root, kind, said, config)
            stack.callback(receiver.daemon.close)
            receiver.daemon.start()
            # The Unix socket is there before that of the network.
            eventually(lambda: "listening" in receiver.daemon.events(), "all sockets")
            return receiver

        yield made


@needs_logger
def test_loggers_messages_arrive_over_tcp_and_udp(make: Make) -> None:
    tcp = make()
    where = ["-n", HOST, "-P", str(tcp.port), "--socket-errors=on", "-t", "app"]
    for how in (["-T"], ["-T", "--octet-count"], ["-T", "--rfc3164"]):
        subprocess.run([str(LOGGER), *where, *how, "said"], check=True, timeout=PATIENCE_S)
    tcp.has("said", "said", "said")
    record = tcp.daemon.records("network")[0]
    assert record["_addr"] == HOST
    assert not {"_pid", "_uid", "_gid", "_comm"} & record.keys()
    assert (record["app"], record["level"]) == ("app", "notice")
    assert tcp.daemon.cli("verify").returncode == 0


@needs_logger
def test_loggers_datagrams_arrive(make: Make) -> None:
    udp = make("datagram", "stream = '{app}'")
    where = ["-n", HOST, "-P", str(udp.port), "--socket-errors=on", "-d", "-t", "Web"]
    subprocess.run([str(LOGGER), *where, "one"], check=True, timeout=PATIENCE_S)
    udp.has("one", stream="web")
    assert udp.daemon.records("web")[0]["_addr"] == HOST


@pytest.mark.parametrize("kind", ["stream", "datagram"])
def test_pythons_handler_logs_over_the_network(make: Make, kind: str) -> None:
    receiver = make(kind)
    handler = SysLogHandler((HOST, receiver.port), socktype=KINDS[kind])
    with contextlib.closing(handler):
        for text in ("one", "two\nlines"):
            handler.emit(logging.LogRecord("x", logging.INFO, "x", 1, text, None, None))
    receiver.has("one", "two\nlines")


def test_a_sender_cannot_claim_another_address(make: Make) -> None:
    receiver = make()
    with receiver.connect() as sender:
        sender.sendall(b'<14>{"message":"m","_addr":"192.0.2.1","_uid":0}\n')
        receiver.has("m")
    record = receiver.daemon.records("network")[0]
    assert (record["_addr"], record["__addr"], record["__uid"]) == (HOST, "192.0.2.1", 0)
    assert "_uid" not in record


def test_a_quota_of_the_network_is_that_of_its_user(make: Make) -> None:
    quota = f"[uid.{NETWORK_UID}.quota]\nrecords_per_s = 1\nburst = '5s'\nover = 'drop'\n"
    receiver = make(config=quota)
    with receiver.connect() as sender:
        sender.sendall(b"".join(b"<14>a: %d\n" % number for number in range(50)))
        sender.shutdown(socket.SHUT_WR)
        assert sender.recv(1) == b""
    assert 5 <= len(receiver.messages()) < 50
    status = json.loads(receiver.daemon.cli("status", "--json").stdout)
    assert status["totals"]["over_quota_records"] == 50 - len(receiver.messages())


def test_one_address_has_no_more_connections_than_it_may(make: Make) -> None:
    receiver = make(said="max_per_address = 3")
    with contextlib.ExitStack() as stack:
        mine = [stack.enter_context(receiver.connect()) for _ in range(3)]
        for each in mine:
            each.sendall(b"<14>a: hello\n")
        receiver.has(*["hello"] * 3)
        one_more = stack.enter_context(receiver.connect())
        assert ended(one_more)
        eventually(lambda: "too_many_network_connections" in receiver.daemon.events())
        mine[0].close()
        receiver.daemon.cli("status")  # those of this host are not concerned

        def is_served() -> bool:
            with receiver.connect() as again, contextlib.suppress(OSError):
                again.sendall(b"<14>a: again\n")
            return receiver.messages()[3:] != []

        eventually(is_served)


def ended(connection: socket.socket) -> bool:
    """Whether the daemon has ended it, which this waits for."""
    with contextlib.suppress(ConnectionResetError):
        return connection.recv(1) == b""
    return True


def test_a_connection_that_is_silent_for_too_long_is_ended_and_loses_nothing(make: Make) -> None:
    receiver = make(said="idle_timeout = '3s'")
    with receiver.connect() as sender:
        sender.sendall(b"<14>a: one\n<14>a: without an end")
        assert ended(sender)
    receiver.has("one", "without an end")


def test_a_stop_takes_what_was_sent_over_tcp(make: Make) -> None:
    receiver = make()
    with receiver.connect() as sender:
        sender.sendall(b"<14>a: first\n")
        receiver.has("first")
        sender.sendall(b"".join(b"<14>a: %d\n" % number for number in range(5000)))
        assert receiver.daemon.stop() == 0
    assert receiver.messages() == ["first", *map(str, range(5000))]


@pytest.mark.parametrize("kind", ["stream", "datagram"])
def test_a_sender_that_never_stops_does_not_hold_up_a_stop(make: Make, kind: str) -> None:
    receiver = make(kind, config="stop_timeout = '1h'\n")
    program = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_INET, int(sys.argv[3]))\n"
        "s.connect((sys.argv[1], int(sys.argv[2])))\n"
        "while True: s.sendall(b'<14>a: flood\\n' * 100)\n"
    )
    where = (HOST, str(receiver.port), str(int(KINDS[kind])))
    sender = subprocess.Popen([sys.executable, "-c", program, *where], stderr=subprocess.DEVNULL)
    try:
        eventually(receiver.messages)
        assert receiver.daemon.stop() == 0
    finally:
        sender.kill()
        sender.wait()


def test_an_address_that_is_taken_is_named(make: Make, root: Path) -> None:
    receiver = make()
    other = root / "other.toml"
    other.write_text(f"[[network]]\naddress = '{HOST}:{receiver.port}'\n")
    done = receiver.daemon.cli(
        *("run", "--config", str(other), "--data", str(root / "more"), "--socket", str(root / "s")),
        status=1,
    )
    assert f"cannot listen at {HOST}:{receiver.port}".encode() in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.parametrize("kind", ["stream", "datagram"])
def test_what_comes_to_a_socket_of_systemd_is_taken(root: Path, kind: str) -> None:
    with (
        socket.socket(socket.AF_INET, KINDS[kind]) as listener,
        socket.socket(socket.AF_INET, KINDS[kind]) as sender,
    ):
        listener.bind((HOST, 0))
        if kind == "stream":
            listener.listen()
        port = listener.getsockname()[1]
        daemon = Daemon(root, f"[[network]]\naddress = '{HOST}:{port}'\ntype = '{kind}'\n")
        sender.connect((HOST, port))
        sender.send(b"<14>a: while none runs\n")
        process = run_with(listener, root)
        try:
            eventually(lambda: [each["message"] for each in daemon.records("network")])
        finally:
            process.terminate()
            _, said = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, said
        assert daemon.records("network")[0]["_addr"] == HOST


# TLS


class Authority:
    """Certificates of its own, in PEM files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")])
        self.path = root / "authority.pem"
        own = self._builder(self._name, self._key).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        self.path.write_bytes(self._signed(own))

    def issue(self, name: str) -> tuple[Path, Path]:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = self._builder(subject, key).add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))]), critical=False
        )
        certificate, key_path = self.root / f"{name}.pem", self.root / f"{name}.key"
        certificate.write_bytes(self._signed(builder))
        pem = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8)
        key_path.write_bytes(key.private_bytes(*pem, serialization.NoEncryption()))
        key_path.chmod(0o600)
        return certificate, key_path

    def _builder(self, subject: x509.Name, key: Any) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
        )

    def _signed(self, builder: x509.CertificateBuilder) -> bytes:
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM)

    def client(self, name: str = "") -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.path))
        if name:
            context.load_cert_chain(*self.issue(name))
        return context


@pytest.fixture
def authority(root: Path) -> Authority:
    return Authority(root)


def tls(authority: Authority, said: str = "") -> str:
    certificate, key = authority.issue("server")
    return f"certificate = '{certificate}'\nkey = '{key}'\n{said}"


def test_messages_arrive_over_tls_with_the_address_of_their_sender(
    make: Make, authority: Authority
) -> None:
    receiver = make(said=tls(authority))
    texts = ["x" * size + str(size) for size in (1, 1000, 20000, 100000)]
    with authority.client().wrap_socket(receiver.connect(), server_hostname=HOST) as sender:
        for text in texts:
            line = f"<14>a: {text}".encode()
            sender.sendall(b"%d %s" % (len(line), line))
        sender.unwrap()
    receiver.has(*texts)
    assert receiver.daemon.records("network")[0]["_addr"] == HOST


def test_a_sender_that_never_reads_loses_nothing_as_it_closes(
    make: Make, authority: Authority
) -> None:
    # The kernel discards what is yet to be sent if something unread has arrived at a close.
    receiver = make(said=tls(authority))
    texts = [f"{number:01000}" for number in range(3000)]
    with authority.client().wrap_socket(receiver.connect(), server_hostname=HOST) as sender:
        sender.sendall(b"".join(b"<14>a: %s\n" % text.encode() for text in texts))
    receiver.has(*texts)
    assert "tls_failed" not in receiver.daemon.events()


def test_a_slow_disk_holds_up_a_sender_over_tls(make: Make, authority: Authority) -> None:
    limits = "[limits]\nmax_record = '1KiB'\nmax_pending = '64KiB'\nmax_pending_stream = '32KiB'\n"
    receiver = make(said=tls(authority), config=limits)
    count = 20000
    with authority.client().wrap_socket(receiver.connect(), server_hostname=HOST) as sender:
        sender.sendall(b"".join(b"<14>a: %d\n" % number for number in range(count)))
        eventually(lambda: len(receiver.messages()) == count, patience_s=60)
    assert receiver.messages() == [str(number) for number in range(count)]


def test_what_arrived_over_tls_before_a_reset_is_stored(make: Make, authority: Authority) -> None:
    limits = "[limits]\nmax_record = '1KiB'\nmax_pending = '64KiB'\nmax_pending_stream = '32KiB'\n"
    receiver = make(said=tls(authority), config=f"{limits}[commit]\nretry_max = '50ms'\n")
    in_the_way = receiver.daemon.data / "network"
    in_the_way.write_text("not a directory")
    texts = [f"{number:0100}" for number in range(1500)]
    with authority.client().wrap_socket(receiver.connect(), server_hostname=HOST) as sender:
        sender.sendall(b"".join(b"<14>a: %s\n" % text.encode() for text in texts))
        eventually(lambda: unacknowledged_bytes(sender) == 0, "all to arrive")
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    in_the_way.unlink()
    receiver.has(*texts)


def unacknowledged_bytes(sender: socket.socket) -> int:
    """What the kernel at the other end has not taken yet."""
    return int.from_bytes(fcntl.ioctl(sender, termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def test_only_a_client_with_a_certificate_is_served_if_one_is_asked_for(
    make: Make, authority: Authority, root: Path
) -> None:
    receiver = make(said=tls(authority, f"client_ca = '{authority.path}'"))
    (root / "strangers").mkdir()
    strange = authority.client()
    strange.load_cert_chain(*Authority(root / "strangers").issue("stranger"))
    for context in (authority.client(), strange):
        with (
            contextlib.suppress(OSError),
            context.wrap_socket(receiver.connect(), server_hostname=HOST) as sender,
        ):
            sender.sendall(b"<14>a: nobody\n")
            assert ended(sender)
    known = authority.client("known")
    with known.wrap_socket(receiver.connect(), server_hostname=HOST) as sender:
        sender.sendall(b"<14>a: known\n")
        receiver.has("known")
    eventually(lambda: "tls_failed" in receiver.daemon.events())


def test_what_is_not_tls_and_whoever_says_nothing_is_ended_and_the_others_are_served(
    make: Make, authority: Authority
) -> None:
    receiver = make(said=tls(authority, "handshake_timeout = '3s'"))
    with receiver.connect() as plain, receiver.connect() as silent:
        plain.sendall(b"<14>a: plain\n" * 100)
        assert ended(plain)
        assert ended(silent)

    def is_served() -> bool:  # once its own handshake is fast enough
        with (
            contextlib.suppress(OSError),
            authority.client().wrap_socket(receiver.connect(), server_hostname=HOST) as sender,
        ):
            sender.sendall(b"<14>a: one\n")
        return receiver.messages() != []

    eventually(is_served)
    assert set(receiver.messages()) == {"one"}
    eventually(lambda: receiver.daemon.events().count("tls_failed") >= 2)
    failed = [each for each in receiver.daemon.log() if each["event"] == "tls_failed"]
    assert {each["addr"] for each in failed} == {HOST}
    eventually(
        lambda: json.loads(receiver.daemon.cli("status", "--json").stdout)["connections"] == 1
    )


def test_connections_over_tls_leave_the_daemon_the_files_that_commits_need(
    root: Path, authority: Authority
) -> None:
    port = free_port()
    network = (
        f"[[network]]\naddress = '{HOST}:{port}'\nhandshake_timeout = '1h'\n"
        f"max_connections = 4000\nmax_per_address = 4000\n{tls(authority)}"
    )
    daemon = Daemon(root, network, open_files_max=256)
    with contextlib.closing(daemon), contextlib.ExitStack() as stack:
        daemon.start()
        eventually(lambda: "listening" in daemon.events())
        for _ in range(100):
            stack.enter_context(socket.create_connection((HOST, port), PATIENCE_S))
        eventually(lambda: "max_connections_reached" in daemon.events())
        daemon.cli("send", "-s", "app", stdin=b"hello\n")
        assert daemon.values("app") == [{"message": "hello"}]
        assert not {"accept_failed", "commit_failed"} & set(daemon.events())


def test_a_stop_takes_what_was_sent_over_tls(make: Make, authority: Authority) -> None:
    receiver = make(said=tls(authority))
    with authority.client().wrap_socket(receiver.connect(), server_hostname=HOST) as sender:
        sender.sendall(b"<14>a: first\n")
        receiver.has("first")
        sender.sendall(b"".join(b"<14>a: %d\n" % number for number in range(5000)))
        assert receiver.daemon.stop() == 0
    assert receiver.messages() == ["first", *map(str, range(5000))]


def test_a_renewed_certificate_is_used_without_a_restart(make: Make, authority: Authority) -> None:
    receiver = make(said=tls(authority))
    with authority.client().wrap_socket(receiver.connect(), server_hostname=HOST) as before:
        old = before.getpeercert(binary_form=True)
        authority.issue("server")
        hang_up(receiver, "certificate_read")
        assert certificate_of(receiver, authority) != old
        before.sendall(b"<14>a: still there\n")
        receiver.has("still there")
    assert "signal_ignored" not in receiver.daemon.events()


def test_a_renewed_client_authority_is_that_of_new_clients(
    make: Make, authority: Authority, root: Path
) -> None:
    trusted = root / "trusted.pem"
    trusted.write_bytes(authority.path.read_bytes())
    (root / "others").mkdir()
    other = Authority(root / "others")
    receiver = make(said=tls(authority, f"client_ca = '{trusted}'"))
    trusted.write_bytes(other.path.read_bytes())
    hang_up(receiver, "certificate_read")
    context = authority.client()
    context.load_cert_chain(*other.issue("client"))
    with context.wrap_socket(receiver.connect(), server_hostname=HOST) as sender:
        sender.sendall(b"<14>a: of the other\n")
        receiver.has("of the other")


@pytest.mark.parametrize("wrong", ["missing", "empty", "open", "other"])
def test_a_new_certificate_that_cannot_be_used_leaves_the_old_one_and_is_reported(
    make: Make, authority: Authority, wrong: str
) -> None:
    receiver = make(said=tls(authority))
    old = certificate_of(receiver, authority)
    certificate, key = authority.root / "server.pem", authority.root / "server.key"
    if wrong == "missing":
        certificate.unlink()
    elif wrong == "empty":
        certificate.write_bytes(b"")
    elif wrong == "open":
        key.chmod(0o644)
    else:
        authority.issue("other")[1].rename(key)
    hang_up(receiver, "certificate_not_read")
    assert certificate_of(receiver, authority) == old
    (said,) = [each for each in receiver.daemon.log() if each["event"] == "certificate_not_read"]
    assert said["level"] == "error"
    assert str(key if wrong == "open" else certificate) in said["error"]


def hang_up(receiver: Receiver, event: str) -> None:
    """Sends the daemon what `systemctl reload` does, and waits for what its log says then."""
    assert receiver.daemon.process is not None
    receiver.daemon.process.send_signal(signal.SIGHUP)
    eventually(lambda: event in receiver.daemon.events(), event)


def certificate_of(receiver: Receiver, authority: Authority) -> bytes | None:
    with authority.client().wrap_socket(receiver.connect(), server_hostname=HOST) as sender:
        return sender.getpeercert(binary_form=True)


@pytest.mark.parametrize("wrong", ["missing", "open", "other"])
def test_a_certificate_that_cannot_be_used_is_named(
    root: Path, authority: Authority, wrong: str
) -> None:
    certificate, key = authority.issue("server")
    if wrong == "missing":
        certificate = root / "missing.pem"
    elif wrong == "open":
        key.chmod(0o644)
    else:
        _, key = authority.issue("other")
    daemon = Daemon(
        root,
        f"[[network]]\naddress = '{HOST}:{free_port()}'\n"
        f"certificate = '{certificate}'\nkey = '{key}'\n",
    )
    done = daemon.cli("run", "--config", str(daemon.config), status=1)
    said = done.stderr.decode().splitlines()[-1]
    assert said.startswith("logengine: ")
    assert (str(key) if wrong == "open" else str(certificate)) in said
    assert b"Traceback" not in done.stderr
