"""Chunks in the test's own process: what an ack waits for, and what is stored once.

`test_forward` sends them to a real daemon. Here the disk is held, and made to fail.
"""

import asyncio

import msgspec

from logengine.disk.segment_file import list_segments, read_segment
from logengine.format.producers import CHUNKS_MAX, numbers_in
from logengine.intake.chunks import QUEUED_MAX
from logengine.protocols.forward import PROTOCOL as FORWARD
from tests.server.test_server import Client, Served, serve


def chunk(name: str, *numbers: int, text: str = "") -> bytes:
    """A chunk in JSON, so that its ack is JSON too."""
    entries = [[1, {"n": number, "text": text}] for number in numbers]
    return msgspec.json.encode(["t", entries, {"chunk": name}])


class Acks:
    """The acks on a connection."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._received = b""

    async def next(self, count: int = 1) -> list[str]:
        acks: list[str] = []
        loop = asyncio.get_running_loop()
        while len(acks) < count:
            answer, brace, rest = self._received.partition(b"}")
            if brace:
                acks.append(msgspec.json.decode(answer + brace)["ack"])
                self._received = rest
            elif data := await loop.sock_recv(self._client.socket, 65536):
                self._received += data
            else:
                raise ConnectionResetError
        return acks


async def connected(served: Served) -> tuple[Client, Acks]:
    client = await served.connect()
    return client, Acks(client)


def chunk_names(served: Served) -> int:
    """How many chunks the newest header names."""
    directory = served.data / "default"
    header, _ = read_segment(directory, list(list_segments(directory))[-1])
    return len(numbers_in(header))


@serve(protocol=FORWARD)
async def test_a_chunk_is_acknowledged_after_the_sync_of_its_directory(served: Served) -> None:
    client, acks = await connected(served)
    await client.send(chunk("begin", 1))
    assert await acks.next() == ["begin"]
    served.disk.hold(directories_only=True)
    await client.send(chunk("one", 2))
    await served.until(served.disk.held.is_set)
    assert await client.says_nothing()
    served.disk.go_on()
    assert await acks.next() == ["one"]
    assert served.numbers() == [1, 2]


@serve(protocol=FORWARD)
async def test_a_chunk_that_comes_again_while_it_is_stored_is_acknowledged_twice_and_stored_once(
    served: Served,
) -> None:
    client, acks = await connected(served)
    await client.send(chunk("begin", 1))
    assert await acks.next() == ["begin"]
    served.disk.hold()
    await client.send(chunk("one", 2))
    await served.until(served.disk.held.is_set)
    other, acks_of_other = await connected(served)
    await client.send(chunk("one", 2))
    await other.send(chunk("one", 2))
    assert await other.says_nothing()
    assert await client.says_nothing()
    served.disk.go_on()
    assert await acks.next(2) == ["one", "one"]
    assert await acks_of_other.next() == ["one"]
    assert served.numbers() == [1, 2]


@serve(protocol=FORWARD)
async def test_a_chunk_whose_commit_fails_is_stored_once_and_acknowledged_then(
    served: Served,
) -> None:
    client, acks = await connected(served)
    await client.send(chunk("begin", 1))
    assert await acks.next() == ["begin"]
    served.disk.failing = "default"
    await client.send(chunk("one", 2))
    await served.until(served.committer.failing)
    await client.send(chunk("one", 2))
    other, acks_of_other = await connected(served)
    await other.send(chunk("one", 2))
    assert await client.says_nothing()
    served.disk.failing = ""
    assert await acks.next(2) == ["one", "one"]
    assert await acks_of_other.next() == ["one"]
    assert served.numbers() == [1, 2]


@serve(protocol=FORWARD)
async def test_a_commit_has_no_more_chunks_of_a_user_than_its_header_remembers(
    served: Served,
) -> None:
    client, acks = await connected(served)
    await client.send(chunk("begin", 0))
    await acks.next()
    served.disk.hold()
    many = range(1, 4 * CHUNKS_MAX)
    await client.send(chunk("held", *many[:1]))
    await served.until(served.disk.held.is_set)
    senders = [await connected(served) for _ in range(3)]
    for index, (sender, _) in enumerate(senders):
        await sender.send(b"".join(chunk(f"{index}-{n}", n) for n in many))
    await asyncio.sleep(0)
    served.disk.go_on()
    for index, (_, acks_of_sender) in enumerate(senders):
        for n in many:
            assert await acks_of_sender.next() == [f"{index}-{n}"]
    batches = served.committer.totals.batches
    assert batches >= len(senders) * len(many) / QUEUED_MAX
    assert chunk_names(served) == CHUNKS_MAX


@serve(protocol=FORWARD)
async def test_senders_that_wait_for_room_take_turns(served: Served) -> None:
    first, acks = await connected(served)
    await first.send(chunk("begin", 0))
    await acks.next()
    await first.send(b"".join(chunk(f"c{n}", n) for n in range(1, 20 * QUEUED_MAX)))
    other, acks_of_other = await connected(served)
    await other.send(chunk("one", 1))
    assert await acks_of_other.next() == ["one"]
    other.close()
    assert len(await acks.next(20 * QUEUED_MAX - 1)) == 20 * QUEUED_MAX - 1


@serve(protocol=FORWARD)
async def test_a_sender_that_ends_while_it_waits_holds_up_nobody(served: Served) -> None:
    first, acks = await connected(served)
    await first.send(chunk("begin", 0))
    await acks.next()
    served.disk.hold()
    await first.send(b"".join(chunk(f"c{n}", n) for n in range(1, 2 * QUEUED_MAX)))
    await served.until(served.disk.held.is_set)
    other, acks_of_other = await connected(served)
    await other.send(chunk("one", 1000))
    first.close()
    served.disk.go_on()
    assert await acks_of_other.next() == ["one"]


@serve(protocol=FORWARD, max_record=1024)
async def test_a_chunk_of_which_nothing_is_stored_is_known_too(served: Served) -> None:
    client, acks = await connected(served)
    refused = chunk("refused", 1, text="x" * 2000)
    await client.send(refused)
    assert await acks.next() == ["refused"]
    assert served.server.totals.refused == 1
    await client.send(refused)
    assert await acks.next() == ["refused"]
    assert served.server.totals.refused == 1
    assert served.values() == []


@serve(protocol=FORWARD)
async def test_a_connection_that_sent_chunks_is_freed_and_leaves_no_names(served: Served) -> None:
    for number in range(3):
        client, acks = await connected(served)
        await client.send(chunk("one", 1) + chunk(f"c{number}", number))
        assert len(await acks.next(2)) == 2
        client.close()
    await served.until(lambda: not served.server.connections)
    assert not served.server._chunks._queued
    assert not served.server._chunks._names
    assert not served.server._chunks._waiting
