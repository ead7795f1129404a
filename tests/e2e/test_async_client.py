"""`logengine.AsyncClient` against a real daemon: what it does otherwise than `Client`."""

import asyncio
import contextlib
import os
from pathlib import Path

import pytest
import uvloop

from logengine import AsyncClient, ClientClosed, ClientFull, NotDurable, ProducerFenced
from logengine.errors import DaemonUnavailable, LogEngineError, ProtocolError
from tests.daemon import Daemon
from tests.fake_server import FakeServer

PATIENCE_S = 20.0


def numbers(daemon: Daemon) -> list[int]:
    return [value["n"] for value in daemon.values("app")]


async def test_send_waits_for_room_and_durable_for_the_disk(daemon: Daemon) -> None:
    async with AsyncClient("app", socket=daemon.socket) as client:
        places = [await client.send({"n": n}) for n in range(10)]
        assert places == list(range(1, 11))
        await client.durable(places[4], PATIENCE_S)
        assert client.acked >= 5
        await client.flush(PATIENCE_S)
        assert numbers(daemon) == list(range(10))


def test_it_runs_on_uvloop(daemon: Daemon) -> None:
    async def main() -> None:
        async with AsyncClient("app", socket=daemon.socket) as client:
            for n in range(5000):
                await client.send({"n": n})

    uvloop.run(main())
    assert numbers(daemon) == list(range(5000))


async def test_a_loop_of_sends_lets_others_run(daemon: Daemon) -> None:
    async with AsyncClient("app", socket=daemon.socket, max_records=100_000) as client:
        for n in range(50_000):
            await client.send({"n": n, "text": "x" * 100})
        assert client.acked > 0  # although nothing here ever waited


async def test_records_go_on_behind_a_daemon_that_was_killed(daemon: Daemon) -> None:
    async with AsyncClient("app", socket=daemon.socket) as client:
        for n in range(3000):
            await client.send({"n": n})
            if n % 1000 == 500:
                await client.flush(PATIENCE_S)
                await asyncio.to_thread(daemon.kill)
                await asyncio.to_thread(daemon.start)
        await client.flush(PATIENCE_S)
    assert numbers(daemon) == list(range(3000))


async def test_lines_are_sent_together(daemon: Daemon) -> None:
    async with AsyncClient("app", socket=daemon.socket) as client:
        assert await client.send_lines(b'{"n":1}\n\n{"n":2}\n') == 2
        assert await client.send({"n": 3}) == 3
        await client.flush(PATIENCE_S)
        assert (client.acked, client.pending) == (3, 0)
    assert numbers(daemon) == [1, 2, 3]


async def test_a_full_client_waits_for_room(root: Path) -> None:
    daemon = Daemon(root)
    with contextlib.closing(daemon):
        async with AsyncClient("app", socket=daemon.socket, max_records=10) as client:
            for n in range(10):
                await client.send({"n": n})
            waiting = asyncio.create_task(client.send({"n": 10}))
            done, _ = await asyncio.wait([waiting], timeout=0.05)
            assert not done
            await asyncio.to_thread(daemon.start)
            assert await waiting == 11
        assert numbers(daemon) == list(range(11))


async def test_a_send_that_was_cancelled_took_nothing(root: Path) -> None:
    client = AsyncClient("app", socket=root / "socket", max_records=1)
    await client.send({"n": 0})
    waiting = asyncio.create_task(client.send({"n": 1}))
    await asyncio.wait([waiting], timeout=0.05)
    waiting.cancel()
    await asyncio.wait([waiting])
    assert client.pending == 1
    with pytest.raises(NotDurable, match="1 records of stream 'app' are not durable: no daemon"):
        await client.close(timeout=0)


async def test_a_send_that_was_cancelled_while_others_ran_took_nothing(daemon: Daemon) -> None:
    async with AsyncClient("app", socket=daemon.socket) as client:
        said = []
        for n in range(1000):
            sending = asyncio.create_task(client.send({"n": n}))
            await asyncio.sleep(0)
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending
                said.append(n)

        async def send() -> None:
            for n in range(1000, 2000):
                await client.send({"n": n})
                said.append(n)

        all_of_them = asyncio.create_task(send())
        await asyncio.sleep(0)
        all_of_them.cancel()
        with pytest.raises(asyncio.CancelledError):
            await all_of_them
    assert numbers(daemon) == said


async def test_tasks_that_send_one_record_each_go_on_in_their_order(daemon: Daemon) -> None:
    async with AsyncClient("app", socket=daemon.socket) as client:
        await asyncio.gather(*(client.send({"n": n}) for n in range(1000)))
    assert numbers(daemon) == list(range(1000))


async def test_a_loop_in_another_thread_is_refused_while_the_first_one_runs(
    daemon: Daemon,
) -> None:
    async with AsyncClient("app", socket=daemon.socket) as client:
        await client.send({"n": 1})
        with pytest.raises(LogEngineError, match="in use by an event loop in another thread"):
            await asyncio.to_thread(lambda: asyncio.run(client.send({"n": 2})))
        await client.send({"n": 3})
    assert numbers(daemon) == [1, 3]


@pytest.mark.parametrize("on_full", ["raise", "drop"])
async def test_a_full_client_does_not_wait_where_it_is_not_to(root: Path, on_full: str) -> None:
    client = AsyncClient("app", socket=root / "socket", max_records=1, on_full=on_full)  # type: ignore[arg-type]
    await client.send({"n": 0})
    if on_full == "raise":
        with pytest.raises(ClientFull):
            await client.send({"n": 1})
    else:
        assert await client.send({"n": 1}) == 0
        assert client.dropped == 1
    with pytest.raises(NotDurable):
        await client.close(timeout=0)


async def test_a_spool_holds_what_memory_does_not(root: Path) -> None:
    daemon = Daemon(root)
    with contextlib.closing(daemon):
        async with AsyncClient(
            "app", socket=daemon.socket, spool=root / "spool", max_bytes=100_000
        ) as client:
            for n in range(20_000):
                await client.send({"n": n})
            assert client.pending == 20_000
            assert client.pending_bytes <= 100_000
            await asyncio.to_thread(daemon.start)
            await client.flush(PATIENCE_S)
        assert numbers(daemon) == list(range(20_000))
        assert list((root / "spool").iterdir()) == []


async def test_what_is_unsent_at_the_end_is_sent_by_the_next(root: Path) -> None:
    daemon = Daemon(root)
    with contextlib.closing(daemon):
        for n in (1, 2):
            async with AsyncClient(
                "app",
                socket=daemon.socket,
                spool=root / "spool",
                producer="w",
                close_timeout=0,
            ) as client:
                await client.send({"n": n})
        await asyncio.to_thread(daemon.start)
        async with AsyncClient(
            "app", socket=daemon.socket, spool=root / "spool", producer="w"
        ) as client:
            assert await client.resumed_at(PATIENCE_S) == 2
        assert numbers(daemon) == [1, 2]


async def test_a_second_client_of_a_producer_fences_the_first(daemon: Daemon) -> None:
    first = AsyncClient("app", socket=daemon.socket, producer="w")
    await first.send({"n": 1})
    await first.flush(PATIENCE_S)
    async with AsyncClient("app", socket=daemon.socket, producer="w") as second:
        await second.resumed_at(PATIENCE_S)
        with pytest.raises(ProducerFenced):
            await asyncio.wait_for(first.failed(), PATIENCE_S)
        with pytest.raises(ProducerFenced):
            await first.send({"n": -1})
        with pytest.raises(ProducerFenced):
            await first.close()


async def test_a_daemon_that_is_away_too_long_is_given_up(root: Path) -> None:
    client = AsyncClient("app", socket=root / "socket", away_max=0.05)
    await client.send({"n": 1})
    with pytest.raises(DaemonUnavailable):
        await client.flush(PATIENCE_S)
    with pytest.raises(DaemonUnavailable):
        await client.close()
    with pytest.raises(ClientClosed):
        await client.send({"n": 2})


@pytest.mark.parametrize("fault", ["acks beyond what was sent", None])
async def test_what_a_client_that_ended_by_an_error_has_left_is_in_its_spool(
    root: Path, fault: str | None
) -> None:
    with contextlib.ExitStack() as stack:
        if fault is not None:
            stack.enter_context(contextlib.closing(FakeServer(root / "socket", fault)))
        client = AsyncClient(
            "app", socket=root / "socket", spool=root / "spool", producer="me", away_max=0.05
        )
        for n in range(10):
            await client.send({"n": n})
        expected = ProtocolError if fault else DaemonUnavailable
        with pytest.raises(expected):
            await client.flush(PATIENCE_S)
        with pytest.raises(expected):
            await client.close()
    (root / "socket").unlink(missing_ok=True)
    daemon = Daemon(root)
    daemon.start()
    with contextlib.closing(daemon):
        async with AsyncClient(
            "app", socket=daemon.socket, spool=root / "spool", producer="me"
        ) as client:
            await client.flush(PATIENCE_S)
        assert numbers(daemon) == list(range(10))


async def test_no_task_is_left_when_a_close_is_cancelled(root: Path) -> None:
    client = AsyncClient("app", socket=root / "socket")
    await client.send({"n": 1})
    closing = asyncio.create_task(client.close(timeout=60))
    await asyncio.wait([closing], timeout=0.05)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert len(asyncio.all_tasks()) == 1


async def test_a_forked_process_is_told_to_make_its_own(daemon: Daemon) -> None:
    async with AsyncClient("app", socket=daemon.socket) as client:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                client.send({"n": 1}).send(None)
            except LogEngineError as error:
                status = 0 if "before its process forked" in str(error) else 2
            finally:
                os._exit(status)
        assert os.waitpid(pid, 0)[1] == 0  # noqa: ASYNC222 - it has ended
