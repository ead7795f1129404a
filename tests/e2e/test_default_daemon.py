"""A client that was not told a socket by name uses only a daemon of its own user, or root's."""

import asyncio
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import logengine
from logengine.cli import cli
from logengine.client import daemon_socket
from logengine.client.daemon_socket import DefaultSocket, connect, find_default
from tests.fake_server import FakeServer
from tests.users import acting_as

OTHER = 65534

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root acts as several users")

Serve = Callable[..., FakeServer]


@pytest.fixture
def paths(root: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The two default paths, in directories of their own; nothing is there yet."""
    monkeypatch.delenv("LOGENGINE_SOCKET", raising=False)
    root.chmod(0o755)
    found = [root / "own" / "socket", root / "system" / "socket"]
    monkeypatch.setattr(daemon_socket, "default_sockets", lambda *_: found)
    monkeypatch.setattr(daemon_socket, "SYSTEM_SOCKET", found[1])
    return found


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts a server as one user, in a directory that may be another's."""
    servers: list[FakeServer] = []

    def start(
        path: Path, *, listener: int = 0, directory: int | None = None, file: int | None = None
    ) -> FakeServer:
        path.parent.mkdir()
        os.chown(path.parent, listener, listener)
        with acting_as(listener):
            servers.append(FakeServer(path))
        os.chown(path.parent, *[listener if directory is None else directory] * 2)
        os.chown(path, *[listener if file is None else file] * 2)
        path.chmod(0o666)
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def test_a_daemon_of_ones_own_user_or_of_root_is_used(paths: list[Path], serve: Serve) -> None:
    serve(paths[0])
    connect(None).close()
    with acting_as(OTHER):
        connect(None).close()
    os.chown(paths[0].parent, OTHER, OTHER)
    with pytest.raises(PermissionError, match="its directory belongs to user 65534, expected root"):
        connect(None)


@pytest.mark.parametrize(
    ("of_another", "reason"),
    [
        ({"listener": OTHER}, "its directory belongs to user 65534"),
        ({"listener": OTHER, "directory": 0}, "the file belongs to user 65534"),
        (
            {"listener": OTHER, "directory": 0, "file": 0},
            "the process that listens there belongs to user 65534",
        ),
        ({"directory": OTHER}, "its directory belongs to user 65534"),
    ],
)
def test_what_another_user_made_is_passed_over_and_named(
    paths: list[Path], serve: Serve, of_another: dict[str, int], reason: str
) -> None:
    serve(paths[0], **of_another)
    with pytest.raises(PermissionError) as raised:
        connect(None)
    assert f"{paths[0]} is not trusted: {reason}, expected root" in str(raised.value)
    assert "$LOGENGINE_SOCKET" in str(raised.value)

    serve(paths[1])
    with connect(None) as connection:
        assert connection.getpeername() == str(paths[1])


def test_a_directory_that_anybody_may_write_to_is_passed_over(
    paths: list[Path], serve: Serve
) -> None:
    serve(paths[0])
    paths[0].parent.chmod(0o777)
    with pytest.raises(PermissionError, match="anybody may write to its directory"):
        connect(None)


def test_links_are_not_followed(paths: list[Path], root: Path, serve: Serve) -> None:
    elsewhere = root / "elsewhere" / "socket"
    serve(elsewhere)
    paths[0].parent.symlink_to(elsewhere.parent)
    with pytest.raises(PermissionError, match="is not a directory"):
        connect(None)
    paths[0].parent.unlink()
    paths[0].parent.mkdir()
    paths[0].symlink_to(elsewhere)
    with pytest.raises(PermissionError, match="it is not a socket"):
        connect(None)


def test_what_may_not_be_looked_into_is_passed_over(paths: list[Path], serve: Serve) -> None:
    serve(paths[0])
    paths[0].parent.chmod(0o700)
    with acting_as(OTHER):
        with pytest.raises(PermissionError, match="Permission denied"):
            connect(None)
        assert find_default().path == paths[0]
        os.seteuid(0)
        serve(paths[1])
        os.seteuid(OTHER)
        assert find_default().path == paths[1]
        connect(None).close()


def test_the_users_daemon_that_does_not_answer_is_not_replaced_by_the_systems(
    paths: list[Path], serve: Serve
) -> None:
    paths[0].parent.mkdir()
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(paths[0]))
    serve(paths[1])
    with pytest.raises(ConnectionRefusedError):
        connect(None)


def test_the_systems_daemon_may_run_as_the_user_that_root_gave_its_directory_to(
    paths: list[Path], root: Path, serve: Serve
) -> None:
    serve(paths[1], listener=OTHER)
    connect(None).close()
    root.chmod(0o775)  # now others could have made that directory
    with pytest.raises(PermissionError, match="its directory belongs to user 65534"):
        connect(None)


def test_a_named_socket_is_used_whoever_listens_there(
    paths: list[Path], serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(paths[0], listener=OTHER)
    connect(paths[0]).close()
    with logengine.Client("app", socket=paths[0]) as client:
        client.send({"n": 1})
    monkeypatch.setenv("LOGENGINE_SOCKET", str(paths[0]))
    with logengine.Client("app") as client:
        client.send({"n": 2})


def test_a_client_sends_nothing_to_another_users_socket(paths: list[Path], serve: Serve) -> None:
    foreign = serve(paths[0], listener=OTHER)
    client = logengine.Client("app", close_timeout=60)
    client.send({"secret": 1})
    with pytest.raises(logengine.NotDurable, match="is not trusted: its directory belongs to user"):
        client.flush(2)
    own = serve(paths[1])
    client.close()
    assert not foreign.speaking
    assert list(own.known.values()) == [1]


def test_an_async_client_sends_nothing_to_another_users_socket(
    paths: list[Path], serve: Serve
) -> None:
    foreign = serve(paths[0], listener=OTHER, directory=0, file=0)

    async def run() -> FakeServer:
        async with logengine.AsyncClient("app", close_timeout=60) as client:
            await client.send({"secret": 1})
            with pytest.raises(logengine.NotDurable, match="that listens there belongs to user"):
                await client.flush(2)
            return serve(paths[1])

    own = asyncio.run(run())
    assert not foreign.speaking
    assert list(own.known.values()) == [1]


@pytest.mark.parametrize(
    "command",
    [
        ["send", "--timeout", "0.2", "FILE"],
        ["send", "--resume", "job", "--timeout", "0.2", "FILE"],
        ["status"],
    ],
)
def test_a_command_sends_nothing_to_another_users_socket(
    paths: list[Path], serve: Serve, command: list[str], root: Path
) -> None:
    foreign = serve(paths[0], listener=OTHER, directory=0, file=0)
    file = root / "file"
    file.write_text("secret\n")
    done = CliRunner().invoke(cli, [str(file) if part == "FILE" else part for part in command])
    assert "is not trusted" in done.output + str(done.exception)
    assert not foreign.speaking
    assert not foreign.known


def test_a_program_that_keeps_to_a_default_path_does_not_go_to_another(
    paths: list[Path], serve: Serve
) -> None:
    chosen = DefaultSocket(paths[0])
    serve(paths[1])
    with pytest.raises(FileNotFoundError):
        connect(chosen)
    serve(paths[0], listener=OTHER)
    with pytest.raises(PermissionError, match="is not trusted"):
        connect(chosen)
