"""Which daemon a client connects to: the one that it was told by name, or one that it trusts.

Anybody may make `/tmp/logengine-UID/socket`, and whoever listens there receives every record and
may acknowledge it. So a client that looks for a daemon itself connects only to one that its own
user or root runs. It looks at the owner and the mode of the directory, at the owner of the socket
file, and after it has connected at the user of the process that listens. It passes over anything
else, and anything that it may not look at.

The system's daemon may run as a user of its own. Only root can make its directory, so whoever root
gave that directory to is trusted as well. Blocking calls, but none waits for another process
unless `timeout_s` says so.

Sources: unix(7) for SO_PEERCRED, path_resolution(7).
"""

import errno
import os
import socket
import stat
from dataclasses import dataclass
from pathlib import Path

from logengine.client.descriptors import above_standard
from logengine.default_paths import SYSTEM_SOCKET, default_sockets
from logengine.peer_credentials import credentials_of_peer
from logengine.socket_address import address_of

_NOT_THERE = {errno.ENOENT, errno.ENOTDIR}
# Looked up once: an application's tests may replace it by one that connects nowhere.
_Socket = socket.socket


@dataclass(frozen=True)
class DefaultSocket:
    """A default path that a program keeps to. Nobody named it, so it is used only if trusted."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)


Socket = Path | DefaultSocket


def find_default() -> DefaultSocket:
    """Returns the first default path with a daemon to be trusted, or the preferred one."""
    paths = default_sockets(os.environ, os.getuid())
    return DefaultSocket(next((path for path in paths if _is_trusted(path)), paths[0]))


def connect(given: Socket | None, timeout_s: float = 0.0) -> socket.socket:
    """Returns a connection to the daemon at `given`, or at the first default path that is trusted.

    The connection keeps the timeout; 0 makes it non-blocking. Raises `OSError`. If a daemon is
    trusted but does not answer, the next default path is not tried: the daemon may be restarting.
    """
    if isinstance(given, Path):
        return _connected(given, timeout_s)
    passed_over: list[str] = []
    paths = [given.path] if given is not None else default_sockets(os.environ, os.getuid())
    for path in paths:
        try:
            trusted = _trusted_users(path)
            connection = _connected(path, timeout_s)
            try:
                _check_user(
                    credentials_of_peer(connection).uid, trusted, "the process that listens there"
                )
            except BaseException:
                connection.close()
                raise
        except _PassedOver as reason:
            passed_over.append(f"{path} is not trusted: {reason}")
        except FileNotFoundError:
            continue
        else:
            return connection
    if passed_over:
        raise PermissionError(
            errno.EACCES,
            f"{'; '.join(passed_over)}; to use it all the same, name it with --socket, the option "
            "`socket` or $LOGENGINE_SOCKET",
        )
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))


class _PassedOver(Exception):
    """Something is at a default path, but not a daemon to be trusted."""


def _is_trusted(path: Path) -> bool:
    try:
        _trusted_users(path)
    except (FileNotFoundError, _PassedOver):
        return False
    return True


def _trusted_users(path: Path) -> set[int]:
    """Returns whose daemon may listen at a default path, judging by its directory and its file.

    Raises `FileNotFoundError` if nothing is there, and `_PassedOver`.
    """
    trusted = {os.geteuid(), 0}
    directory = path.parent
    is_given_by_root = path == SYSTEM_SOCKET and _only_root_writes(directory.parent)
    found = _status(directory, follow_links=is_given_by_root)
    if is_given_by_root:
        trusted.add(found.st_uid)
    if not stat.S_ISDIR(found.st_mode):
        raise _PassedOver(f"{directory} is not a directory")
    _check_user(found.st_uid, trusted, "its directory")
    if found.st_mode & stat.S_IWOTH:
        raise _PassedOver("anybody may write to its directory")
    found = _status(path, follow_links=False)
    if not stat.S_ISSOCK(found.st_mode):
        raise _PassedOver("it is not a socket")
    _check_user(found.st_uid, trusted, "the file")
    return trusted


def _only_root_writes(directory: Path) -> bool:
    found = _status(directory, follow_links=True)
    return found.st_uid == 0 and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _status(path: Path, *, follow_links: bool) -> os.stat_result:
    try:
        return os.stat(path, follow_symlinks=follow_links)
    except OSError as error:
        if error.errno in _NOT_THERE:
            raise FileNotFoundError(error.errno, error.strerror, path) from None
        raise _PassedOver(f"{path}: {error.strerror}") from None


def _check_user(uid: int, trusted: set[int], what: str) -> None:
    if uid not in trusted:
        expected = " or ".join(f"user {each}" if each else "root" for each in sorted(trusted))
        raise _PassedOver(f"{what} belongs to user {uid}, expected {expected}")


def _connected(path: Path, timeout_s: float) -> socket.socket:
    connection = above_standard(_Socket(socket.AF_UNIX))
    try:
        connection.settimeout(timeout_s)
        connection.connect(address_of(path))
    except BaseException:
        connection.close()
        raise
    return connection
