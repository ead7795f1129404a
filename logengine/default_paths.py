"""Where the data and the socket are if nobody says otherwise: for the daemon, and for others.

A daemon of root's is the system's; any other is its user's own. Whoever looks for a daemon
takes the user's own, and the system's where there is no such.
"""

from collections.abc import Mapping
from pathlib import Path

SYSTEM_DATA = Path("/var/log/logengine")
SYSTEM_SOCKET = Path("/run/logengine/socket")
SYSTEM_STATE = Path("/var/lib/logengine")


def default_data(environ: Mapping[str, str], uid: int) -> Path:
    """Where a daemon keeps records; systemd may say so by `$LOGS_DIRECTORY`."""
    if given := environ.get("LOGS_DIRECTORY"):
        return Path(given.split(":")[0])
    return _own_data(environ, uid)


def default_socket(environ: Mapping[str, str], uid: int) -> Path:
    """Where a daemon listens; systemd may say so by `$RUNTIME_DIRECTORY`."""
    if given := environ.get("RUNTIME_DIRECTORY"):
        return Path(given.split(":")[0], "socket")
    return _own_socket(environ, uid)


def find_data(environ: Mapping[str, str], uid: int) -> Path:
    """The data directory to read, there or not: `$LOGENGINE_DATA`, or where one is looked for."""
    if given := environ.get("LOGENGINE_DATA"):
        return Path(given)
    return _there(_own_data(environ, uid), SYSTEM_DATA)


def find_socket(environ: Mapping[str, str], uid: int) -> Path:
    """The socket to send to, there or not: `$LOGENGINE_SOCKET` says, or it is looked for."""
    if given := environ.get("LOGENGINE_SOCKET"):
        return Path(given)
    return _there(_own_socket(environ, uid), SYSTEM_SOCKET)


def resume_directory(environ: Mapping[str, str], uid: int) -> Path:
    """Where a sender keeps how far it is: `$LOGENGINE_STATE` says, or systemd, or it is the user's.

    No daemon's data directory, where each directory is a stream.
    """
    if given := environ.get("LOGENGINE_STATE"):
        return Path(given).absolute() / "resume"
    if given := environ.get("STATE_DIRECTORY"):
        return Path(given.split(":")[0], "resume")
    if uid == 0:
        return SYSTEM_STATE / "resume"
    return _own_state(environ) / "logengine-client" / "resume"


def _there(own: Path, system: Path) -> Path:
    return own if own.exists() or not system.exists() else system


def _own_data(environ: Mapping[str, str], uid: int) -> Path:
    if uid == 0:
        return SYSTEM_DATA
    return _own_state(environ) / "logengine"


def _own_state(environ: Mapping[str, str]) -> Path:
    state = _xdg_directory(environ, "XDG_STATE_HOME")
    return Path(state or Path(environ.get("HOME") or "/", ".local", "state"))


def _own_socket(environ: Mapping[str, str], uid: int) -> Path:
    """Without `$XDG_RUNTIME_DIR` that is below `/tmp`, where all of a user's processes look."""
    if uid == 0:
        return SYSTEM_SOCKET
    runtime = _xdg_directory(environ, "XDG_RUNTIME_DIR")
    return Path(runtime, "logengine", "socket") if runtime else Path(f"/tmp/logengine-{uid}/socket")  # noqa: S108


def _xdg_directory(environ: Mapping[str, str], name: str) -> str | None:
    """The directory that `name` gives; a relative one is to be ignored, says the standard."""
    given = environ.get(name, "")
    return given if given.startswith("/") else None
