"""Senders of the network in the test's own process."""

import contextlib
import socket
from pathlib import Path

from logengine.intake.network import NETWORK_UID, Network
from logengine.protocols.syslog import PROTOCOL as SYSLOG
from tests.server.test_server import serving


async def test_a_stop_reads_what_has_arrived_over_tcp_and_nothing_after_it(root: Path) -> None:
    async with serving(root, {}) as served:
        listener = socket.create_server(("127.0.0.1", 0))
        network = Network(8, 8, 3600, 10)
        served.server.listen(listener, "network", SYSLOG, network=network)
        with contextlib.closing(socket.create_connection(listener.getsockname())) as sender:
            sender.sendall(b'<14>{"n":1}\n')
            await served.until(lambda: served.numbers("network") == [1])
            sender.sendall(b'<14>{"n":2}\n')
            (connection,) = served.server._connections
            assert connection.uid == connection.flow == NETWORK_UID
            connection.stop()
            sender.sendall(b'<14>{"n":3}\n')
            await served.server.stop()
        assert served.numbers("network") == [1, 2]
