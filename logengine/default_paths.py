"""Default paths of the data and the socket, for the daemon and for other programs.

A daemon run by root is the system's; any other belongs to its user. A program that looks for a
daemon uses the user's own, or the system's if the user has none. A client also asks whose the
daemon is: `client/daemon_socket.py`.
"""

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path

SYSTEM_DATA = Path("/var/log/logengine")
SYSTEM_SOCKET = Path("/run/logengine/socket")
SYSTEM_STATE = Path("/var/lib/logengine")
PERSISTENT_TEMPORARY = Path("/var/tmp")  # noqa: S108 - see `_made_for`


def default_data(environ: Mapping[str, str], uid: int) -> Path:
    """Where a daemon keeps records; systemd may set it with `$LOGS_DIRECTORY`."""
    if given := environ.get("LOGS_DIRECTORY"):
        return Path(given.split(":")[0])
    return _own_data(environ, uid)


def default_socket(environ: Mapping[str, str], uid: int) -> Path:
    """Where a daemon listens; systemd may set it with `$RUNTIME_DIRECTORY`."""
    if given := environ.get("RUNTIME_DIRECTORY"):
        return Path(given.split(":")[0], "socket")
    return _own_socket(environ, uid)


def find_data(environ: Mapping[str, str], uid: int) -> Path:
    """The data directory to read: `$LOGENGINE_DATA`, or a default path. It may not exist."""
    if given := environ.get("LOGENGINE_DATA"):
        return Path(given)
    return _there(_own_data(environ, uid), SYSTEM_DATA)


def default_sockets(environ: Mapping[str, str], uid: int) -> list[Path]:
    """Where to look for a daemon to send to, the preferred path first. None may exist."""
    return list(dict.fromkeys([_own_socket(environ, uid), SYSTEM_SOCKET]))


def resume_directory(environ: Mapping[str, str], uid: int) -> Path:
    """Where a sender stores its progress: by `$LOGENGINE_STATE`, by systemd, or per user.

    Not in a daemon's data directory, where each directory is a stream.
    """
    if given := environ.get("LOGENGINE_STATE"):
        return Path(given).absolute() / "resume"
    if given := environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0], "resume")
    if uid == 0:
        return SYSTEM_STATE / "resume"
    state = _own_state(environ)
    if not _xdg_directory(environ, "XDG_STATE_HOME") and not _can_be_made(state):
        # The account of a service may have no home, and `sudo` may keep root's $HOME.
        state = _made_for(uid) or state
    return state / "logengine-client" / "resume"


def _there(own: Path, system: Path) -> Path:
    return own if own.exists() or not system.exists() else system


def _own_data(environ: Mapping[str, str], uid: int) -> Path:
    if uid == 0:
        return SYSTEM_DATA
    return _own_state(environ) / "logengine"


def _own_state(environ: Mapping[str, str]) -> Path:
    state = _xdg_directory(environ, "XDG_STATE_HOME")
    return Path(state or Path(environ.get("HOME") or "/", ".local", "state"))


def _can_be_made(path: Path) -> bool:
    there = next((each for each in (path, *path.parents) if os.path.exists(each)), None)
    return there is not None and os.access(there, os.W_OK | os.X_OK, effective_ids=True)


def _made_for(uid: int) -> Path | None:
    """Makes a directory of the user in a place for all users; None if it is another user's.

    It is checked after it was made. From then on nobody else can replace it, because the place has
    the sticky bit.
    """
    made = PERSISTENT_TEMPORARY / f"logengine-{uid}"
    with contextlib.suppress(OSError):
        made.mkdir(0o700)
    try:
        found = made.lstat()
    except OSError:
        return None
    is_own = stat.S_ISDIR(found.st_mode) and found.st_uid == uid and not found.st_mode & 0o022
    return made if is_own else None


def _own_socket(environ: Mapping[str, str], uid: int) -> Path:
    """Without `$XDG_RUNTIME_DIR` it is below `/tmp`, where all of a user's processes look."""
    if uid == 0:
        return SYSTEM_SOCKET
    runtime = _runtime_directory(environ, uid)
    return Path(runtime, "logengine", "socket") if runtime else Path(f"/tmp/logengine-{uid}/socket")  # noqa: S108


def _runtime_directory(environ: Mapping[str, str], uid: int) -> str | None:
    """`$XDG_RUNTIME_DIR`, unless it is another user's, as it is after `su`."""
    given = _xdg_directory(environ, "XDG_RUNTIME_DIR")
    if given is None:
        return None
    try:
        owner = os.stat(given).st_uid
    except PermissionError:
        return None
    except OSError:
        return given  # a daemon creates it
    is_usable = owner in (uid, 0) and os.access(given, os.X_OK, effective_ids=True)
    return given if is_usable else None


def _xdg_directory(environ: Mapping[str, str], name: str) -> str | None:
    """The directory in `name`; the standard says that a relative path must be ignored."""
    given = environ.get(name, "")
    return given if given.startswith("/") else None
