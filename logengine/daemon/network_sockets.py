"""The daemon's sockets of the network, from systemd or bound by itself, and their TLS."""

import os
import socket
import ssl
import stat
from collections.abc import Iterable

import structlog

from logengine.daemon.config_sections import NetworkConfig
from logengine.errors import ConfigError
from logengine.intake.network import Network, Tls
from logengine.protocols.registry import protocols
from logengine.protocols.wire import Transport
from logengine.socket_address import network_address, network_text

log = structlog.get_logger()

_BACKLOG = 128
_KINDS: dict[Transport, socket.SocketKind] = {
    "stream": socket.SOCK_STREAM,
    "datagram": socket.SOCK_DGRAM,
}
_OTHERS_MAY_READ = stat.S_IROTH


class NetworkListening:
    """A socket of the network; an `inherited` one belongs to systemd. It has no file."""

    is_named = True

    def __init__(self, listener: socket.socket, config: NetworkConfig, *, inherited: bool) -> None:
        self.listener = listener
        self.config = config
        self.inherited = inherited
        self.name = config.address
        self._tls = Tls(tls_context(config)) if config.certificate else None
        self.network = Network(
            config.max_connections,
            config.max_per_address,
            config.idle_timeout,
            config.handshake_timeout,
            self._tls,
        )

    @property
    def has_certificate(self) -> bool:
        """Whether its connections are encrypted."""
        return self._tls is not None

    def read_certificate_again(self) -> None:
        """Uses the certificates that its files have now, for connections from now on.

        If they cannot be used, it keeps those that it has. Connections that are there stay.
        """
        if self._tls is None:
            return
        try:
            self._tls.context = tls_context(self.config)
        except ConfigError as error:
            log.error(
                "certificate_not_read", address=self.name, error=str(error), kept="the one in use"
            )
        else:
            log.info("certificate_read", address=self.name, certificate=self.config.certificate)


def read_certificates_again(sockets: Iterable[object]) -> bool:
    """Has all sockets with a certificate read it again. Returns whether there is one."""
    encrypted = [
        each for each in sockets if isinstance(each, NetworkListening) and each.has_certificate
    ]
    for each in encrypted:
        each.read_certificate_again()
    return bool(encrypted)


def bind_network(config: NetworkConfig) -> socket.socket:
    """Returns a socket that is bound to the address. Raises `ConfigError`."""
    host, port = network_address(config.address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, _KINDS[config.type])
    try:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if config.type == "stream":
            # Connections of the last daemon that are being closed still have the address.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        if config.type == "stream":
            listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen at {config.address}: {error.strerror or error}; choose another "
            "address, or let systemd make the socket"
        ) from error
    return listener


def name_in_network(listener: socket.socket) -> str:
    """Returns the address of a socket as it is written in the configuration."""
    host, port = listener.getsockname()[:2]
    return network_text(host, port)


def tls_context(config: NetworkConfig) -> ssl.SSLContext:
    """Returns the context for connections to a socket. Raises `ConfigError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Many senders never read. At a close with tickets unread, a kernel resets the connection and
    # discards what it has yet to send (RFC 2525, 2.17).
    context.num_tickets = 0
    context.options |= ssl.OP_NO_RENEGOTIATION
    # Who ends its half by TCP alone may still read answers, which OpenSSL 3 would not send.
    context.options |= getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    path = config.key
    try:
        if os.stat(path).st_mode & _OTHERS_MAY_READ:
            raise ConfigError(f"{path}: every user may read this key; remove that permission")
        if names := protocols()[config.protocol].tls_names:
            context.set_alpn_protocols(list(names))
        path = f"{config.certificate} with the key {config.key}"
        context.load_cert_chain(config.certificate, config.key, password=_no_password)
        if config.client_ca:
            path = config.client_ca
            context.load_verify_locations(path)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ValueError) as error:  # an SSLError is an OSError
        why = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"{path}: cannot be used for TLS: {why}; expected PEM files") from error
    return context


def _no_password() -> str:
    # Without this, OpenSSL asks at the terminal.
    raise ValueError("the key is encrypted")
