"""A client that is fenced in the midst of writing hears it, and does not fence back."""

import asyncio
import socket
import threading
from pathlib import Path

import pytest
import uvloop

from logengine import Client, ProducerFenced
from logengine.client.aio import _Link
from tests.daemon import PATIENCE_S

FENCED = b'{"error":"fenced"}\n'
MORE_THAN_ONE_READ = b'{"unknown":"%s"}\n' % (b"x" * 100_000)


def test_a_client_whose_write_fails_reads_that_it_was_fenced(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
        listener.listen()
        listener.settimeout(PATIENCE_S)
        client = Client("app", socket=root / "socket", producer="p")
        client.send({"n": 1})
        daemon, _ = listener.accept()
        daemon.recv(1000)
        # The client reads the beginning, and takes it only when all was said.
        said = threading.Event()
        take = client._delivery.received

        def take_later(data: bytes) -> None:
            assert said.wait(PATIENCE_S)
            take(data)

        monkeypatch.setattr(client._delivery, "received", take_later)
        daemon.sendall(b'{"welcome":1,"next":1,"max_record":1000}\n' + MORE_THAN_ONE_READ + FENCED)
        daemon.close()
        said.set()
        with pytest.raises(ProducerFenced):
            client.flush(PATIENCE_S)
        with pytest.raises(ProducerFenced):
            client.close()


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_transport_whose_write_fails_gives_what_was_still_said(new_loop) -> None:
    async def write_to_who_hung_up() -> bytes:
        heard = bytearray()
        ended = asyncio.Event()
        ours, daemons = socket.socketpair()
        transport, link = await asyncio.get_running_loop().create_unix_connection(
            lambda: _Link(heard.extend, ended.set), sock=ours
        )
        daemons.sendall(FENCED)
        daemons.close()
        transport.write(b"one\n")
        async with asyncio.timeout(PATIENCE_S):
            await ended.wait()
        transport.abort()
        link.close()
        assert link.ended is not None
        return bytes(heard)

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(write_to_who_hung_up()) == FENCED
