"""gRPC's own server, inside of the daemon."""

import asyncio
import errno
import os
import socket
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest

from logengine.intake.otlp_grpc import GrpcServer

if TYPE_CHECKING:
    from logengine.intake.requests import Requests


def test_a_server_that_could_not_start_on_a_full_disk_starts_for_a_later_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, is_full = tempfile.mkdtemp, True

    def mkdtemp(**options: Any) -> str:
        if is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return make(dir=tmp_path, **options)

    monkeypatch.setattr(tempfile, "mkdtemp", mkdtemp)

    async def main() -> None:
        nonlocal is_full
        async with asyncio.TaskGroup() as tasks:
            server = GrpcServer(cast("Requests", SimpleNamespace(max_request=1024)), tasks)
            for _ in range(2):
                with pytest.raises(OSError, match="No space left"):
                    await server.path()
            is_full = False
            path = await server.path()
            assert Path(path).is_socket()
            assert await server.path() == path
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    asyncio.run(main())
    assert not list(tmp_path.iterdir())


def test_directories_of_killed_daemons_are_removed_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    names = ["logengine-grpc-killed", "logengine-grpc-served", "logengine-grpc-new", "other"]
    listeners = []
    for name in names:
        (tmp_path / name).mkdir()
        listeners.append(socket.socket(socket.AF_UNIX))
        listeners[-1].bind(str(tmp_path / name / "socket"))
        if name == "logengine-grpc-served":
            listeners[-1].listen()
        if name != "logengine-grpc-new":
            os.utime(tmp_path / name, (0, 0))
    (tmp_path / "logengine-grpc-link").symlink_to(tmp_path / "other")
    names.append("logengine-grpc-link")

    async def main() -> None:
        async with asyncio.TaskGroup() as tasks:
            await GrpcServer(cast("Requests", SimpleNamespace(max_request=1024)), tasks).path()
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

    asyncio.run(main())
    assert {each.name for each in tmp_path.iterdir()} == set(names) - {"logengine-grpc-killed"}
    for listener in listeners:
        listener.close()
