r"""Finds the systemd units in the text of a /proc/PID/cgroup. Pure.

The system's manager lays its units out as `SLICE/…/UNIT`, where each slice is inside the one that
its name extends: `system.slice/system-getty.slice/getty@tty1.service`. It alone may create cgroups
there. Everything below a unit may be delegated to whoever the unit runs for: a container, or a
user's own manager. They name what they create as they like, such as `sshd.service`, so a unit is
read only where the manager puts it, and never below another unit.

A user's manager has the same layout of slices and units, below
`user.slice/user-UID.slice/user@UID.service`. That user chose the name of such a unit.

Sources: cgroups(7), systemd.slice(5), systemd.unit(5), and "Control Group APIs and Delegation" of
systemd.
"""

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

_UNIFIED = b""  # the controllers of the one hierarchy of cgroups v2
_OF_SYSTEMD = b"name=systemd"  # the hierarchy of cgroups v1 that the manager keeps its units in
_REMOVED = b" (deleted)"  # the kernel adds it if the cgroup is gone, as after the end of a unit
_NAME_BYTES_MAX = 255
_UNIT = re.compile(rb"[A-Za-z0-9:_.\\@-]+\.(?:service|scope|socket|mount|swap)")
_SLICE = re.compile(rb"((?:[A-Za-z0-9:_.\\@]+-)*[A-Za-z0-9:_.\\@]+)\.slice")
_USER_SLICE = re.compile(rb"user-(\d+)\.slice")


class Units(NamedTuple):
    r"""The units that a process is in, as systemd writes their names, with escapes like `\x2d`.

    `unit` belongs to the system's manager, `user_unit` to the manager of a user. None if there is
    none, or if the text does not prove it.
    """

    unit: str | None = None
    user_unit: str | None = None


def units_of_cgroup(text: bytes) -> Units:
    """Returns the units in the text of a /proc/PID/cgroup.

    With cgroups v1 and v2 mounted at once (hybrid), the hierarchies must agree. One in which the
    process is at the root says nothing.
    """
    found = {_units_of_path(path) for path in _paths(text)}
    return found.pop() if len(found) == 1 else Units()


def _paths(text: bytes) -> Iterator[bytes]:
    for line in text.split(b"\n"):
        _, _, rest = line.partition(b":")
        controllers, _, path = rest.partition(b":")
        if controllers in {_UNIFIED, _OF_SYSTEMD} and path.startswith(b"/") and path != b"/":
            yield path.removesuffix(_REMOVED)


def _units_of_path(path: bytes) -> Units:
    names = path[1:].split(b"/")
    slices, unit, below = _innermost_slice(names)
    if slices[:1] != [b"user.slice"]:
        return Units(unit=_text(unit))
    match slices:
        case [_, innermost] if unit and (user := _USER_SLICE.fullmatch(innermost)):
            if unit != b"user@%s.service" % user[1]:
                return Units()  # a session, which logind starts
            return Units(user_unit=_text(_innermost_slice(below)[1]))
    return Units()


def _innermost_slice(names: Sequence[bytes]) -> tuple[list[bytes], bytes, Sequence[bytes]]:
    """Returns the slices at the start of a path, the unit in the last one, and the names below.

    The unit is empty if the name there is not that of a unit.
    """
    slices: list[bytes] = []
    parent = b""
    for index, escaped in enumerate(names):
        # The manager adds `_` to a name that could be a file of the kernel's, as `memory.service`.
        name = escaped.removeprefix(b"_")
        found = _SLICE.fullmatch(name)
        if found is None:
            is_unit = len(name) <= _NAME_BYTES_MAX and _UNIT.fullmatch(name)
            return slices, name if is_unit else b"", names[index + 1 :]
        if found[1].rpartition(b"-")[0] != parent:
            break  # not where the manager puts this slice
        parent = found[1]
        slices.append(name)
    return slices, b"", ()


def _text(name: bytes) -> str | None:
    return name.decode("ascii") or None
