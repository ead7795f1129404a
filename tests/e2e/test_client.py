"""`logengine.Client` against a real daemon."""

import contextlib
import errno
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from logengine import Client, ClientClosed, ClientFull, NotDurable, ProducerFenced, RecordTooLarge
from logengine.client import delivery_thread
from logengine.client.delivery_thread import DeliveryThread
from logengine.errors import (
    DaemonUnavailable,
    InvalidOption,
    InvalidStreamName,
    ProtocolError,
    SpoolInUse,
    TooManyStreams,
)
from tests.daemon import Daemon, eventually
from tests.fake_server import FakeServer

PATIENCE_S = 20.0


def numbers(daemon: Daemon, stream: str = "app") -> list[int]:
    return [value["n"] for value in daemon.values(stream)]


def spools(root: Path) -> list[str]:
    # `rglob` raises where a directory is removed meanwhile.
    walked = [Path(at, name) for at, _, names in os.walk(root / "spool") for name in names]
    return sorted(str(path.relative_to(root)) for path in walked if path.suffix == ".ndjson")


def test_what_was_flushed_is_on_disk(daemon: Daemon) -> None:
    with Client("app", socket=daemon.socket) as client:
        assert [client.send({"n": n}) for n in (1, 2, 3)] == [1, 2, 3]
        client.flush(PATIENCE_S)
        assert (client.acked, client.pending) == (3, 0)
        assert numbers(daemon) == [1, 2, 3]


def test_bytes_are_a_line_of_json_or_text(daemon: Daemon) -> None:
    with Client("app", socket=daemon.socket) as client:
        client.send(b'{"a":1}')
        client.send(b"plain text\n")
        client.send(b'{\n  "b": 2\n}\n')
        client.send(b"two\nlines")
        assert client.send(b" \r\n") == 0
        client.send({"last": True})
        client.flush(PATIENCE_S)
        assert client.acked == 5
    assert daemon.values("app") == [
        {"a": 1},
        {"message": "plain text"},
        {"b": 2},
        {"message": "two\nlines"},
        {"last": True},
    ]


def test_the_socket_is_found_as_the_environment_says(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGENGINE_SOCKET", str(daemon.socket))
    with Client() as client:
        client.send({"n": 1})
    assert numbers(daemon, "default") == [1]


def test_a_client_may_be_made_before_the_daemon(root: Path) -> None:
    daemon = Daemon(root)
    with contextlib.closing(daemon):
        with Client("app", socket=daemon.socket) as client:
            client.send({"n": 1})

            def reason() -> str:
                with pytest.raises(NotDurable, match="1 records of stream 'app'") as raised:
                    client.flush(0.05)
                return str(raised.value)

            eventually(lambda: "no daemon at" in reason(), "its first try to connect")
            daemon.start()
            client.flush(PATIENCE_S)
        assert numbers(daemon) == [1]


def test_records_go_on_behind_a_daemon_that_was_killed(daemon: Daemon) -> None:
    with Client("app", socket=daemon.socket) as client:
        for n in range(3000):
            client.send({"n": n})
            if n % 1000 == 500:
                daemon.kill()
                daemon.start()
        client.flush(PATIENCE_S)
    assert numbers(daemon) == list(range(3000))


def test_a_socket_that_is_deleted_and_made_again_is_found(daemon: Daemon) -> None:
    with Client("app", socket=daemon.socket) as client:
        client.send({"n": 1})
        client.flush(PATIENCE_S)
        daemon.stop()
        assert not daemon.socket.exists()
        client.send({"n": 2})
        daemon.start()
        client.flush(PATIENCE_S)
    assert numbers(daemon) == [1, 2]


def test_a_named_producer_goes_on_where_its_last_process_stopped(daemon: Daemon) -> None:
    with Client("app", socket=daemon.socket, producer="web-1") as client:
        assert client.resumed_at(PATIENCE_S) == 0
        client.send({"n": 1})
        client.send({"n": 2})
    with Client("app", socket=daemon.socket, producer="web-1") as client:
        assert client.resumed_at(PATIENCE_S) == 2
        client.send({"n": 3})
        client.flush(PATIENCE_S)
        assert client.acked == 1
    (segment,) = daemon.segments("app")
    header = json.loads(segment.read_bytes().split(b"\n")[0])
    assert header["producers_of"] == {str(os.getuid()): {"web-1": 3}}


def test_a_second_client_of_a_producer_fences_the_first(daemon: Daemon) -> None:
    first = Client("app", socket=daemon.socket, producer="web-1")
    first.send({"n": 1})
    first.flush(PATIENCE_S)
    with Client("app", socket=daemon.socket, producer="web-1") as second:
        second.send({"n": 2})
        second.flush(PATIENCE_S)

        def is_fenced() -> bool:
            try:
                first.send({"n": -1})
            except ProducerFenced:
                return True
            return False

        eventually(is_fenced, "the first to be fenced")
        with pytest.raises(ProducerFenced, match="web-1"):
            first.flush(PATIENCE_S)
        with pytest.raises(ProducerFenced):
            first.close()
        second.send({"n": 3})  # the first does not take the name back
    assert numbers(daemon) == [1, 2, 3]


def test_the_client_tells_what_a_daemon_has_against_it(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon("[limits]\nmax_streams = 1\n")
    with Client("app", socket=daemon.socket) as client:
        client.send({"n": 1})
    other = Client("other", socket=daemon.socket)
    other.send({"n": 1})
    with pytest.raises(TooManyStreams, match="accepts no more streams"):
        other.flush(PATIENCE_S)
    with pytest.raises(TooManyStreams):
        other.send({"n": 2})
    with pytest.raises(TooManyStreams):
        other.close()


def test_what_is_no_daemon_is_told_apart(root: Path) -> None:
    path = root / "socket"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        client = Client("app", socket=path)
        client.send({"n": 1})
        connection, _ = listener.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"220 smtp ready\r\n")
            with pytest.raises(ProtocolError, match="220 smtp ready"):
                client.flush(PATIENCE_S)
    with pytest.raises(ProtocolError):
        client.close()


def test_what_a_client_that_ended_by_an_error_has_left_is_in_its_spool(root: Path) -> None:
    with contextlib.closing(FakeServer(root / "socket", "acks beyond what was sent")):
        client = Client("app", socket=root / "socket", spool=root / "spool", producer="me")
        for n in range(10):
            client.send({"n": n})
        with pytest.raises(ProtocolError):
            client.flush(PATIENCE_S)
        with pytest.raises(ProtocolError):
            client.close()
    away = Client("app", socket=root / "nobody", spool=root / "spool", away_max=0.05)
    away.send({"n": 10})
    with pytest.raises(DaemonUnavailable):
        away.flush(PATIENCE_S)
    with pytest.raises(DaemonUnavailable):
        away.close()
    (root / "socket").unlink()
    daemon = Daemon(root)
    daemon.start()
    with contextlib.closing(daemon):
        with Client("app", socket=daemon.socket, spool=root / "spool", producer="me") as client:
            client.flush(PATIENCE_S)
            eventually(lambda: not spools(root), "both spools to be sent")
        assert sorted(numbers(daemon)) == list(range(11))


def test_what_is_taken_while_a_client_ends_by_an_error_is_spooled_too(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = DeliveryThread._finish

    def finish(thread: DeliveryThread) -> None:
        real(thread)
        thread.handover.take(b'{"n":2}\n')  # its sender saw the client before it ended

    is_taken = threading.Event()

    def connect(*_: object) -> socket.socket:
        assert is_taken.wait(PATIENCE_S)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(DeliveryThread, "_finish", finish)
    monkeypatch.setattr(delivery_thread, "connect", connect)
    client = Client("app", socket=root / "socket", spool=root / "spool", away_max=0)
    client.send({"n": 1})
    is_taken.set()
    with pytest.raises(DaemonUnavailable):
        client.flush(PATIENCE_S)
    with pytest.raises(DaemonUnavailable):
        client.close()
    spooled = b"".join((root / each).read_bytes() for each in spools(root))
    assert b'"n":1' in spooled
    assert b'"n":2' in spooled


def test_a_daemon_that_is_away_too_long_is_given_up(root: Path) -> None:
    client = Client("app", socket=root / "socket", away_max=0.05)
    client.send({"n": 1})
    with pytest.raises(DaemonUnavailable, match="is `logengine run` running"):
        client.flush(PATIENCE_S)
    with pytest.raises(DaemonUnavailable):
        client.close()


@pytest.mark.parametrize(
    ("options", "error", "what"),
    [
        ({"stream": "No Stream"}, InvalidStreamName, "is not a valid stream name"),
        ({"producer": ""}, InvalidOption, "expected 1 to 128 characters"),
        ({"producer": "a\nb"}, InvalidOption, "without control characters"),
        ({"on_full": "wait"}, InvalidOption, "expected block or drop or raise"),
        ({"max_bytes": 0}, InvalidOption, "max_bytes 0: expected at least 1"),
        ({"close_timeout": "5"}, InvalidOption, "close_timeout '5': expected a number of seconds"),
        ({"close_timeout": float("nan")}, InvalidOption, "close_timeout nan: expected a number"),
        ({"away_max": -1}, InvalidOption, "away_max -1: expected a number of seconds, at least 0"),
        ({"socket": "/tmp/" + "x" * 200}, InvalidOption, "at most 107 bytes"),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(
    options: dict[str, Any], error: type[Exception], what: str
) -> None:
    with pytest.raises(error, match=what):
        Client(**options)


def test_a_closed_client_takes_nothing(daemon: Daemon) -> None:
    client = Client("app", socket=daemon.socket)
    client.send({"n": 1})
    client.close()
    client.close()
    with pytest.raises(ClientClosed):
        client.send({"n": 2})
    assert numbers(daemon) == [1]


def test_closing_without_a_daemon_tells_what_is_lost(root: Path) -> None:
    client = Client("app", socket=root / "socket")
    client.send({"n": 1})
    with pytest.raises(NotDurable) as raised:
        client.close(timeout=0.05)
    assert raised.value.count == 1
    assert not [thread for thread in threading.enumerate() if "logengine" in thread.name]


def test_an_error_in_the_block_is_not_hidden_by_records_that_are_lost(root: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError) as raised,
        Client("app", socket=root / "socket", close_timeout=0.05) as client,
    ):
        client.send({"n": 1})
        raise ZeroDivisionError
    assert "1 records of stream 'app' are not durable" in raised.value.__notes__[0]


def test_many_threads_may_send(daemon: Daemon) -> None:
    with Client("app", socket=daemon.socket, max_records=100) as client:

        def send(thread: int) -> None:
            for n in range(1000):
                client.send({"thread": thread, "n": n})

        threads = [threading.Thread(target=send, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    stored = defaultdict(list)
    for value in daemon.values("app"):
        stored[value["thread"]].append(value["n"])
    assert stored == {number: list(range(1000)) for number in range(4)}


# The bounds.


def test_a_full_client_blocks_until_there_is_room(root: Path) -> None:
    daemon = Daemon(root)
    with (
        contextlib.closing(daemon),
        Client("app", socket=daemon.socket, max_records=10) as client,
    ):
        for n in range(10):
            client.send({"n": n})
        blocked = threading.Thread(target=client.send, args=({"n": 10},))
        blocked.start()
        assert client.pending == 10
        daemon.start()
        blocked.join(PATIENCE_S)
        client.flush(PATIENCE_S)
        assert numbers(daemon) == list(range(11))


@pytest.mark.parametrize("bound", [{"max_records": 10}, {"max_bytes": 80}])
def test_a_full_client_raises_where_it_is_to(root: Path, bound: dict[str, int]) -> None:
    client = Client("app", socket=root / "socket", on_full="raise", **bound)  # type: ignore[arg-type]
    for n in range(10):
        client.send({"n": n})
    with pytest.raises(ClientFull, match="10 records of 80 bytes wait"):
        client.send({"n": 10})
    with pytest.raises(NotDurable):
        client.close(timeout=0)


def test_a_record_larger_than_the_bound_is_taken_alone(daemon: Daemon) -> None:
    with Client("app", socket=daemon.socket, max_bytes=100) as client:
        client.send({"text": "x" * 1000})
        client.send({"text": "y" * 1000})
    assert [value["text"][0] for value in daemon.values("app")] == ["x", "y"]


def test_drops_are_counted_and_told_in_the_stream(root: Path) -> None:
    daemon = Daemon(root)
    with contextlib.closing(daemon):
        with Client("app", socket=daemon.socket, on_full="drop", max_records=1000) as client:
            kept = [n for n in range(200_000) if client.send({"n": n})]
            assert client.dropped == 199_000
            daemon.start()
            client.flush(PATIENCE_S)
            client.send({"n": 200_000})
        values = daemon.values("app")
        assert [value["n"] for value in values if "n" in value] == [*kept, 200_000]
        assert [value for value in values if "n" not in value] == [
            {"level": "warning", "event": "records_dropped", "dropped": 199_000}
        ]


def test_a_drop_is_told_although_nothing_more_is_sent(root: Path) -> None:
    daemon = Daemon(root)
    with contextlib.closing(daemon):
        with Client("app", socket=daemon.socket, on_full="drop", max_records=1) as client:
            client.send({"n": 1})
            client.send({"n": 2})
            daemon.start()
            eventually(lambda: client.pending == 0 and client.acked == 2)
        assert daemon.values("app")[1]["dropped"] == 1


def test_a_record_too_large_is_not_taken(daemon: Daemon) -> None:
    with Client("app", socket=daemon.socket) as client:
        with pytest.raises(RecordTooLarge, match="the daemon takes 1048576"):
            client.send({"text": "x" * 10_000_000})
        client.send({"n": 1})
    assert numbers(daemon) == [1]


def test_a_record_that_the_daemon_refuses_is_told_by_flush(
    make_daemon: Callable[[str], Daemon],
) -> None:
    daemon = make_daemon('[limits]\nmax_record = "1KiB"\n')
    with Client("app", socket=daemon.socket) as client:
        client.send({"n": 1})
        client.send({"text": "x" * 2000})  # before the daemon could say what it takes
        client.send({"n": 2})
        with pytest.raises(NotDurable, match="refused 1 records: record_too_large"):
            client.flush(PATIENCE_S)
        assert (client.refused, client.refusals) == (1, [(2, 2, "record_too_large")])
        client.flush(PATIENCE_S)  # told once
        with pytest.raises(RecordTooLarge, match="takes 1024"):
            client.send({"text": "x" * 2000})
    assert numbers(daemon) == [1, 2]


# The spool.


def test_a_spool_holds_what_memory_does_not_while_the_daemon_is_away(root: Path) -> None:
    daemon = Daemon(root)
    with contextlib.closing(daemon):
        with Client("app", socket=daemon.socket, spool=root / "spool", max_bytes=2**20) as client:
            for n in range(200_000):
                client.send({"n": n, "text": "x" * 50})
            assert client.pending == 200_000
            assert client.pending_bytes <= 2**20
            assert spools(root)
            daemon.start()
            client.flush(PATIENCE_S)
        assert numbers(daemon) == list(range(200_000))
        assert list((root / "spool").iterdir()) == []


def test_what_is_unsent_at_the_end_is_sent_by_the_next_of_the_same_name(root: Path) -> None:
    daemon = Daemon(root)
    options: dict[str, Any] = {
        "socket": daemon.socket,
        "spool": root / "spool",
        "producer": "web-1",
        "close_timeout": 0.05,
    }
    with contextlib.closing(daemon):
        for start in (0, 10):
            with Client("app", **options) as client:
                for n in range(start, start + 10):
                    client.send({"n": n})
                assert client.pending == start + 10
        assert len(spools(root)) == 2
        daemon.start()
        with Client("app", **options) as client:
            client.send({"n": 20})
            client.flush(PATIENCE_S)
        assert numbers(daemon) == list(range(21))
        assert list((root / "spool").iterdir()) == []


def test_a_spool_can_be_read_like_a_data_directory(root: Path) -> None:
    with Client(
        "app", socket=root / "socket", spool=root / "spool", producer="w", close_timeout=0
    ) as client:
        client.send({"n": 1})
        client.send(b"text\n\n")
    (directory,) = (root / "spool").iterdir()
    done = Daemon(root).cli("cat", "app", "--format", "raw", "--data", str(directory))
    assert done.stdout == b'{"n":1}\ntext\n'


def test_the_next_client_sends_what_nameless_ones_left(root: Path) -> None:
    daemon = Daemon(root)
    with contextlib.closing(daemon):
        for n in range(3):
            with Client(
                "app", socket=daemon.socket, spool=root / "spool", close_timeout=0
            ) as client:
                client.send({"n": n})
        assert len(spools(root)) == 3
        daemon.start()
        with Client("other", socket=daemon.socket, spool=root / "spool") as client:
            client.send({"n": 3})
            eventually(lambda: not spools(root), "the spools to be emptied")
        assert sorted(numbers(daemon)) == [0, 1, 2]


def test_a_full_spool_is_a_full_client(root: Path) -> None:
    client = Client(
        "app",
        socket=root / "socket",
        spool=root / "spool",
        on_full="drop",
        max_bytes=1000,
        max_spool_bytes=5000,
        close_timeout=0,
    )
    for n in range(1000):
        client.send({"n": n})
    assert client.pending + client.dropped == 1000
    assert 5000 / 11 < client.pending < 6500 / 9
    with contextlib.suppress(NotDurable):
        client.close()


def test_a_spool_that_cannot_be_written_leaves_the_records_in_memory(root: Path) -> None:
    daemon = Daemon(root)
    with contextlib.closing(daemon):
        client = Client(
            "app",
            socket=daemon.socket,
            spool=root / "spool",
            producer="w",
            on_full="raise",
            max_records=10,
        )
        (directory,) = (root / "spool").iterdir()
        (directory / "app").write_text("in the way")
        with pytest.raises(ClientFull, match="cannot"):
            for n in range(1000):
                client.send({"n": n})
        sent = client.pending
        daemon.start()
        client.flush(PATIENCE_S)
        client.close()
        assert numbers(daemon) == list(range(sent))


def test_two_clients_do_not_share_a_spool(root: Path) -> None:
    options: dict[str, Any] = {"spool": root / "spool", "producer": "w", "close_timeout": 0}
    with (
        Client("app", socket=root / "socket", **options),
        pytest.raises(SpoolInUse, match="a name of its own"),
    ):
        Client("app", socket=root / "socket", **options)
    with Client("app", socket=root / "socket", **options):
        pass


def flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a bit of the header": lambda content: flipped(content, 20),
    "a bit of a record's text": lambda content: flipped(content, content.index(b"text-15") + 1),
    "a bit of a record's structure": lambda content: flipped(content, content.index(b'"n":15') - 1),
    "the end cut off": lambda content: content[: content.index(b'"n":17')],
    "nothing but zeros": lambda content: bytes(len(content)),
    "empty": lambda _: b"",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_spool_is_put_aside_and_what_is_whole_in_it_sent(
    root: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"spool": root / "spool", "producer": "w", "close_timeout": 0}
    for start in (0, 10, 20):
        with Client("app", socket=root / "socket", **options) as client:
            for n in range(start, start + 10):
                client.send({"n": n, "text": f"text-{n}"})
    capsys.readouterr()
    middle = sorted((root / "spool").rglob("*.ndjson"))[1]
    middle.write_bytes(DAMAGES[damage](middle.read_bytes()))
    daemon = Daemon(root)
    with contextlib.closing(daemon):
        daemon.start()
        with Client("app", socket=daemon.socket, **options | {"close_timeout": 5}) as client:
            client.send({"n": 30})
            client.flush(PATIENCE_S)
        stored = numbers(daemon)
    outside = [n for n in stored if not 10 <= n < 20]
    assert outside == [*range(10), *range(20, 31)]
    assert stored == sorted(set(stored))
    if damage in ("a bit of the header", "a bit of a record's text"):
        assert len(stored) == 31
    assert list((root / "spool").rglob(".damaged/*"))
    assert capsys.readouterr().err.count("is damaged") == 1


def test_a_spool_without_its_state_is_sent_all_the_same(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options: dict[str, Any] = {"spool": root / "spool", "producer": "w", "close_timeout": 0}
    with Client("app", socket=root / "socket", **options) as client:
        client.send({"n": 1})
    (state,) = (root / "spool").rglob("spool.json")
    state.write_bytes(b"{")
    daemon = Daemon(root)
    with contextlib.closing(daemon):
        daemon.start()
        with Client("app", socket=daemon.socket, **options | {"close_timeout": 5}) as client:
            client.send({"n": 2})
        assert numbers(daemon) == [1, 2]
    assert "may be sent twice" in capsys.readouterr().err


# Processes.


def test_forked_children_have_producers_of_their_own(daemon: Daemon) -> None:
    client = Client("app", socket=daemon.socket, producer="web")
    for n in range(100):
        client.send({"who": "parent", "n": n})
    children = []
    for child in range(4):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                for n in range(100):
                    client.send({"who": f"child {child}", "n": n})
                client.close()
                status = 0
            finally:
                os._exit(status)
        children.append(pid)
    for n in range(100, 200):
        client.send({"who": "parent", "n": n})
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 4
    client.close()
    stored = defaultdict(list)
    for value in daemon.values("app"):
        stored[value["who"]].append(value["n"])
    assert stored.pop("parent") == list(range(200))
    assert stored == {f"child {child}": list(range(100)) for child in range(4)}
    newest = daemon.segments("app")[-1]
    header = json.loads(newest.read_bytes().split(b"\n")[0])
    producers = header["producers_of"][str(os.getuid())]
    assert len(producers) == 5
    assert all(name.startswith("web") for name in producers)


def test_a_forked_child_leaves_the_records_of_its_parent_to_it(root: Path) -> None:
    daemon = Daemon(root)
    with (
        contextlib.closing(daemon),
        Client("app", socket=daemon.socket, spool=root / "spool") as client,
    ):
        client.send({"n": 1})
        pid = os.fork()
        if pid == 0:
            assert client.pending == 0
            client.send({"n": 2})
            client.close(timeout=0)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        daemon.start()
        client.flush(PATIENCE_S)
        # What the child left in its spool is sent by the one who is still there.
        eventually(lambda: sorted(numbers(daemon)) == [1, 2])


def _log(path: str, n: int, client: "Client | None" = None) -> None:
    (client or Client("app", socket=path)).send({"n": n})


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_process_of_multiprocessing_sends_at_its_exit(daemon: Daemon, method: str) -> None:
    context: Any = multiprocessing.get_context(method)
    with Client("app", socket=daemon.socket) as client:
        client.send({"n": 0})
        processes: list[Any] = [
            context.Process(
                target=_log,
                args=(str(daemon.socket), n, *([client] if method == "fork" else [])),
            )
            for n in (1, 2)
        ]
        for process in processes:
            process.start()
        for process in processes:
            process.join(PATIENCE_S)
            assert process.exitcode == 0
    assert sorted(numbers(daemon)) == [0, 1, 2]


def run(code: str, root: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=root,
        env=os.environ | environ,
    )


def test_a_program_that_just_ends_has_sent_everything(daemon: Daemon, root: Path) -> None:
    code = "import logengine; c = logengine.Client('app'); [c.send({'n': n}) for n in range(1000)]"
    done = run(code, root, LOGENGINE_SOCKET=str(daemon.socket))
    assert (done.returncode, done.stderr) == (0, "")
    assert numbers(daemon) == list(range(1000))


def test_a_program_that_ends_without_a_daemon_says_what_is_lost(root: Path) -> None:
    code = "import logengine; logengine.Client('app', close_timeout=0).send({'n': 1})"
    done = run(code, root, LOGENGINE_SOCKET=str(root / "socket"))
    assert done.stderr.startswith("logengine: 1 records of stream 'app' are not durable: no daemon")
    assert len(done.stderr.splitlines()) == 1


def test_workers_forked_by_a_server_that_loaded_the_application_before(
    daemon: Daemon, root: Path
) -> None:
    """As `gunicorn --preload` does: the client is made, and used, before the fork."""
    code = """
import logengine, os, sys
client = logengine.Client('app')
client.send({'n': 0})
workers = []
for n in (1, 2, 3):
    pid = os.fork()
    if pid == 0:
        client.send({'n': n})
        sys.exit(0)
    workers.append(pid)
assert [os.waitpid(pid, 0)[1] for pid in workers] == [0, 0, 0]
"""
    done = run(code, root, LOGENGINE_SOCKET=str(daemon.socket))
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(numbers(daemon)) == [0, 1, 2, 3]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    eventually(
        lambda: not [thread for thread in threading.enumerate() if "logengine" in thread.name],
        "the client's threads to end",
    )
