"""What a file that is replaced is to others, given to the file that takes its place.

Its owner, group, mode, ACL and extended attributes, as far as the process may give them. What it
may not give makes the access narrower, never wider. Not kept: set-user-ID, set-group-ID and file
capabilities, for they vouch for the old content, and what is computed from that content.

Sources: acl(5), xattr(7), chown(2), capabilities(7); linux/posix_acl_xattr.h.
"""

import contextlib
import errno
import os
import re
import stat
import struct
from collections.abc import Iterator
from typing import NamedTuple

from logengine.disk.directory import Directory

_ACL = "system.posix_acl_access"
_ACL_HEADER = struct.Struct("<I")
_ACL_ENTRY = struct.Struct("<HHI")
_ACL_VERSION = 2
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20

# Capabilities as set-user-ID; ima and evm sign the old content; what overlayfs keeps of a file
# of one of its layers is false of another file.
_NOT_KEPT = re.compile(r"security\.(capability|ima|evm)$|(trusted|user)\.overlay\.")

_KINDS = {
    stat.S_IFDIR: (errno.EISDIR, "a directory"),
    stat.S_IFLNK: (errno.ELOOP, "a symbolic link, made just now"),
    stat.S_IFIFO: (errno.EINVAL, "a FIFO"),
    stat.S_IFSOCK: (errno.EINVAL, "a socket"),
    stat.S_IFCHR: (errno.EINVAL, "a device"),
    stat.S_IFBLK: (errno.EINVAL, "a device"),
}

# What says that something cannot be had here, or not by us.
_NOT_PERMITTED = frozenset(
    {
        errno.EPERM,
        errno.EACCES,
        errno.ENOTSUP,
        errno.EINVAL,
        errno.ENOSYS,
        errno.ENODATA,
        errno.EROFS,
    }
)


class FileIdentity(NamedTuple):
    """What a file was when it was looked at; `attributes` are those to be kept, without an ACL."""

    status: os.stat_result
    acl: bytes | None
    attributes: tuple[tuple[str, bytes], ...]

    def is_still(self, status: os.stat_result | None) -> bool:
        """Whether a later look shows the same file, with nothing of this changed."""
        return status is not None and _changing(status) == _changing(self.status)


def _changing(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_mode, status.st_ctime_ns)


def status_of(directory: Directory, name: str) -> os.stat_result | None:
    """The status of the regular file called `name`, or None if nothing is.

    Raises `OSError` for what is no file that can be replaced as a whole.
    """
    try:
        status = directory.stat(name, follow_links=False)
    except FileNotFoundError:
        return None
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        number, what = _KINDS.get(kind, (errno.EINVAL, "no regular file"))
        raise OSError(number, f"it is {what}; only a regular file can be replaced as a whole")
    return status


def look_at(directory: Directory, name: str, status: os.stat_result) -> FileIdentity:
    """All that is to be kept of the file called `name`. Raises `OSError`."""
    # By the open directory, where /proc is there: its path may mean another one by now.
    path = f"/proc/self/fd/{directory.descriptor}/{name}"
    try:
        found = dict(_attributes_of(path))
    except (FileNotFoundError, NotADirectoryError):
        found = dict(_attributes_of(directory.path_of(name)))
    return FileIdentity(status, found.pop(_ACL, None), tuple(found.items()))


def _attributes_of(path: str) -> Iterator[tuple[str, bytes]]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _NOT_PERMITTED:
            raise
        return
    for name in names:
        if not _NOT_KEPT.match(name):
            with _as_far_as_permitted():
                yield name, os.getxattr(path, name, follow_symlinks=False)


def give(descriptor: int, replaced: FileIdentity, permissions: int | None) -> None:
    """Makes an open file, of mode 0600 and the process's own, what `replaced` was.

    With `permissions`, those take the place of its mode and ACL. At no moment has anybody access
    who had none to `replaced`. Raises `OSError` where it cannot be made narrow enough.
    """
    status = replaced.status
    for name, value in replaced.attributes:
        if not name.startswith("system."):
            with _as_far_as_permitted():
                os.setxattr(descriptor, name, value)
    with_owner, with_group = _give_owner(descriptor, status)
    if permissions is not None:
        _set_mode(descriptor, permissions)
        return
    others = [each for each in replaced.attributes if each[0].startswith("system.")]
    if not all(_gives(descriptor, *each) for each in others):
        # ACLs of another kind, of which we know only that one is lost.
        _set_mode(descriptor, status.st_mode & stat.S_IRWXU)
    elif replaced.acl is None:
        _set_mode(
            descriptor, narrowed_mode(status.st_mode, with_owner=with_owner, with_group=with_group)
        )
    else:
        acl = narrowed_acl(replaced.acl, with_owner=with_owner, with_group=with_group)
        if acl is None or not _gives(descriptor, _ACL, acl):
            _set_mode(descriptor, _mode_within(replaced.acl, status.st_mode))


def _give_owner(descriptor: int, status: os.stat_result) -> tuple[bool, bool]:
    """Gives the file its owner and group; whether it has them, which is not always the same."""
    mine = os.fstat(descriptor)
    if (mine.st_uid, mine.st_gid) == (status.st_uid, status.st_gid):
        return True, True
    try:
        os.fchown(descriptor, status.st_uid, status.st_gid)
    except OSError as error:
        if error.errno not in _NOT_PERMITTED:
            raise
        with _as_far_as_permitted():
            os.fchown(descriptor, -1, status.st_gid)
    mine = os.fstat(descriptor)
    return mine.st_uid == status.st_uid, mine.st_gid == status.st_gid


def _set_mode(descriptor: int, mode: int) -> None:
    """Sets the permission bits, and those alone: an ACL that the directory gave is taken away."""
    with _as_far_as_permitted():
        os.removexattr(descriptor, _ACL)
    os.fchmod(descriptor, mode & 0o777)


def _gives(descriptor: int, name: str, value: bytes) -> bool:
    with _as_far_as_permitted():
        os.setxattr(descriptor, name, value)
        return True
    return False


@contextlib.contextmanager
def _as_far_as_permitted() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _NOT_PERMITTED:
            raise


def umask() -> int:
    """The umask of the process, without setting it where that can be avoided: threads share it."""
    with contextlib.suppress(OSError), open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def narrowed_mode(mode: int, *, with_owner: bool, with_group: bool) -> int:
    """The permission bits of a file whose owner or group could not be given.

    Who was the owner is one of the group or of the others now, who was of the group one of the
    others, and one of the others may be of the new group.
    """
    user, group, other = mode >> 6 & 7, mode >> 3 & 7, mode & 7
    if not with_owner:
        group &= user
        other &= user
    if not with_group:
        group = other = group & other
    return user << 6 | group << 3 | other


def narrowed_acl(acl: bytes, *, with_owner: bool, with_group: bool) -> bytes | None:
    """The ACL of a file whose owner or group could not be given; None if it is of no known form."""
    entries = _entries(acl)
    if entries is None:
        return None
    granted = {tag: bits for tag, bits, _ in entries}
    user, group = granted.get(_USER_OBJ, 0), granted.get(_GROUP_OBJ, 0)
    given = _ACL_HEADER.pack(_ACL_VERSION)
    for tag, bits, who in entries:
        if tag not in (_USER_OBJ, _MASK) and not with_owner:
            bits &= user  # noqa: PLW2901
        if not with_group:
            if tag == _GROUP_OBJ:
                # One of the new group may be kept out by name of another one.
                bits = 0  # noqa: PLW2901
            elif tag == _OTHER:
                bits &= group  # noqa: PLW2901
        given += _ACL_ENTRY.pack(tag, bits, who)
    return given


def _mode_within(acl: bytes, mode: int) -> int:
    """The permission bits that give nobody more than an ACL did that cannot be set."""
    common = 0o7
    for tag, bits, _ in _entries(acl) or [(_OTHER, 0, 0)]:
        if tag != _MASK:
            common &= bits
    # The bits of the group are the mask, where there is an ACL.
    common &= mode >> 3 & 7
    return mode & stat.S_IRWXU | common << 3 | common


def _entries(acl: bytes) -> list[tuple[int, int, int]] | None:
    head, entries = acl[: _ACL_HEADER.size], acl[_ACL_HEADER.size :]
    if head != _ACL_HEADER.pack(_ACL_VERSION) or len(entries) % _ACL_ENTRY.size:
        return None
    return list(_ACL_ENTRY.iter_unpack(entries))
