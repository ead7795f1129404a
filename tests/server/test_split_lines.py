"""How long parts of a split line wait for the others, in the test's own process."""

from collections.abc import Iterator
from unittest.mock import patch

import msgspec
import pytest

from logengine.intake import connection
from logengine.protocols.forward import PROTOCOL as FORWARD
from tests.server.test_server import Served, serve


@pytest.fixture(autouse=True)
def short_wait() -> Iterator[None]:
    with patch.object(connection, "_PARTS_WAIT_S", 0.01):
        yield


def part(ordinal: int, *, last: bool = False) -> bytes:
    """A message without a chunk, in JSON."""
    fields = {
        "log": "text",
        "n": ordinal,
        "partial_message": "true",
        "partial_id": "1",
        "partial_ordinal": str(ordinal),
        "partial_last": "true" if last else "false",
    }
    return msgspec.json.encode(["t", 1, fields, {}])


@serve(protocol=FORWARD)
async def test_parts_whose_others_do_not_come_in_time_are_stored_as_they_are(
    served: Served,
) -> None:
    client = await served.connect()
    await client.send(part(1) + part(2))
    await served.until(lambda: served.numbers() == [1, 2])
    await client.send(part(3, last=True))
    await served.until(lambda: served.numbers() == [1, 2, 3])


@serve(protocol=FORWARD)
async def test_parts_count_as_memory_until_they_are_stored(served: Served) -> None:
    with patch.object(connection, "_PARTS_WAIT_S", 3600.0):
        client = await served.connect()
        await client.send(part(1))
        await served.until(lambda: served.server.admission.held_bytes > 0)
        client.socket.close()
        await served.until(lambda: served.numbers() == [1])
    await served.until(lambda: served.server.admission.held_bytes == 0)


@serve(protocol=FORWARD)
async def test_parts_are_stored_if_the_daemon_ends_the_connection(served: Served) -> None:
    with patch.object(connection, "_PARTS_WAIT_S", 3600.0):
        client = await served.connect()
        await client.send(part(1))
        await served.until(lambda: served.server.admission.held_bytes > 0)
        (receiving,) = served.server._connections
        receiving.stall()
        await served.until(lambda: served.numbers() == [1])
