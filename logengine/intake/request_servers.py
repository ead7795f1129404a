"""The servers of requests, each imported and begun for the first listener that needs it."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from logengine.format.record import Peer
from logengine.intake.context import IntakeContext
from logengine.intake.credentials import peer_of
from logengine.intake.requests import RequestConnection, Requests, RequestSender
from logengine.intake.shares import Shares
from logengine.intake.waiting_room import Guest
from logengine.protocols.otlp import Encoding, decode
from logengine.protocols.wire import Served
from logengine.store.settings import LimitsConfig

if TYPE_CHECKING:
    from logengine.intake.otlp_grpc import GrpcConnection, GrpcServer
    from logengine.intake.otlp_http import HttpConnection


class RequestServers:
    """Makes the connections of protocols that consist of requests.

    `shares` are the users' parts of how many requests there may be at once. A server that needs a
    task runs in `tasks`.
    """

    def __init__(
        self,
        around: IntakeContext,
        limits: LimitsConfig,
        shares: Shares,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._around = around
        self._requests = Requests(around, limits, shares)
        self._tasks = tasks
        self._new_http: type[HttpConnection]
        self._new_grpc: type[GrpcConnection]
        self._grpc: GrpcServer | None = None

    def prepare(self, served: Served) -> None:
        """Imports what serves such connections, and begins it.

        Only now: the packages are optional, and take a quarter of a second to import.
        """
        if served == "http":
            from logengine.intake.otlp_http import HttpConnection

            self._new_http = HttpConnection
        elif served == "grpc" and self._grpc is None:
            from logengine.intake.otlp_grpc import GrpcConnection, GrpcServer

            self._new_grpc = GrpcConnection
            self._grpc = GrpcServer(self._requests, self._tasks)
        decode(b"", Encoding.PROTOBUF, 1, 1)  # imports protobuf too

    def connection(
        self, guest: Guest, on_closed: Callable[[RequestConnection], None]
    ) -> RequestConnection:
        """Returns the connection of a guest. Its `run` serves it."""
        is_of_network = guest.address is not None
        peer = Peer(address=guest.address) if is_of_network else peer_of(guest.connection)
        sender = RequestSender(peer, guest.uid, guest.stream, guest.router)
        if guest.protocol.served_by == "grpc":
            assert self._grpc is not None
            return self._new_grpc(self._around, self._grpc, guest.connection, sender, on_closed)
        return self._new_http(self._around, self._requests, guest.connection, sender, on_closed)

    def stop(self) -> None:
        """Refuses new requests from now on."""
        self._requests.is_stopping = True

    def close(self) -> None:
        """Ends what serves all connections."""
        self._requests.close()
