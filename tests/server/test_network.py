"""Senders of the network in the test's own process."""

import asyncio
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


async def test_a_connection_that_waited_for_a_place_counts_for_its_address(root: Path) -> None:
    async with serving(root, {"max_connections": 2, "reserved_percent": 0}) as served:
        listener = socket.create_server(("127.0.0.1", 0))
        where = listener.getsockname()
        served.server.listen(listener, "network", SYSLOG, network=Network(8, 1, 3600, 10))
        other = socket.create_server(("127.0.0.1", 0))
        others = other.getsockname()
        served.server.listen(other, "other", SYSLOG, network=Network(8, 8, 3600, 10))
        with contextlib.ExitStack() as stack:

            def connect(address: tuple[str, int]) -> socket.socket:
                connection = socket.create_connection(address)
                connection.setblocking(False)
                stack.callback(connection.close)
                return connection

            first = [connect(others) for _ in range(2)]
            for number, each in enumerate(first):
                each.sendall(b'<14>{"n":%d}\n' % number)
            await served.until(lambda: served.server.connections == 2)
            waiting = [connect(where) for _ in range(2)]
            for each in waiting:
                each.sendall(b'<14>{"n":7}\n')
            await served.until(lambda: len(served.server._waiting_room) == 2)
            for each in first:
                each.close()
            await served.until(lambda: served.numbers("network") == [7])
            loop = asyncio.get_running_loop()
            ended = [asyncio.create_task(loop.sock_recv(each, 1)) for each in waiting]
            await served.until(lambda: sum(each.done() for each in ended) == 1)
            assert served.server.connections == 1
            await served.server.stop()
            await asyncio.wait(ended)
        assert served.numbers("network") == [7]
