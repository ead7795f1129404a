"""The servers of requests, each imported and begun with the first connection that needs it."""

from collections.abc import Callable

from logengine.intake.context import IntakeContext
from logengine.intake.credentials import peer_of
from logengine.intake.requests import RequestConnection, Requests, RequestSender
from logengine.intake.shares import Shares
from logengine.intake.waiting_room import Guest
from logengine.store.settings import LimitsConfig


class RequestServers:
    """Makes the connections of protocols that consist of requests.

    `shares` are the users' parts of how many requests there may be at once.
    """

    def __init__(self, around: IntakeContext, limits: LimitsConfig, shares: Shares) -> None:
        self._around = around
        self._requests = Requests(around, limits, shares)

    def connection(
        self, guest: Guest, on_closed: Callable[[RequestConnection], None]
    ) -> RequestConnection:
        """Returns the connection of a guest. Its `run` serves it."""
        # Only here: aiohttp is an optional package, and takes a tenth of a second to import.
        from logengine.intake.otlp_http import HttpConnection

        sender = RequestSender(peer_of(guest.connection), guest.stream)
        return HttpConnection(self._around, self._requests, guest.connection, sender, on_closed)

    def stop(self) -> None:
        """Refuses new requests from now on."""
        self._requests.is_stopping = True

    def close(self) -> None:
        """Ends what serves all connections."""
        self._requests.close()
