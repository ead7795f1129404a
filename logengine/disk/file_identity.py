"""Gives the file that replaces another one its owner, group, mode, ACL and extended attributes.

This is done as far as the process may. Whatever it may not set makes access narrower, never wider.
Not kept: set-user-ID, set-group-ID and file capabilities, which vouch for the old content, and
attributes that are computed from that content.

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

# Capabilities are like set-user-ID; ima and evm sign the old content; what overlayfs stores about
# a file of one of its layers is false for another file.
_NOT_KEPT = re.compile(r"security\.(capability|ima|evm)$|(trusted|user)\.overlay\.")

_KINDS = {
    stat.S_IFDIR: (errno.EISDIR, "a directory"),
    stat.S_IFLNK: (errno.ELOOP, "a symbolic link that was just made"),
    stat.S_IFIFO: (errno.EINVAL, "a FIFO"),
    stat.S_IFSOCK: (errno.EINVAL, "a socket"),
    stat.S_IFCHR: (errno.EINVAL, "a device"),
    stat.S_IFBLK: (errno.EINVAL, "a device"),
}

# Errors that mean: not supported here, or not permitted for this process.
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
    """A file's state when it was inspected; `attributes` are those to keep, without an ACL."""

    status: os.stat_result
    acl: bytes | None
    attributes: tuple[tuple[str, bytes], ...]

    def is_still(self, status: os.stat_result | None) -> bool:
        """Whether a later `status` is of the same file, with its mode and attributes unchanged."""
        return status is not None and _changing(status) == _changing(self.status)


def _changing(status: os.stat_result) -> tuple[int, ...]:
    return (status.st_dev, status.st_ino, status.st_mode, status.st_ctime_ns)


def status_of(directory: Directory, name: str) -> os.stat_result | None:
    """The status of the regular file called `name`, or None if it does not exist.

    Raises `OSError` if `name` is not a file that can be replaced as a whole.
    """
    try:
        status = directory.stat(name, follow_links=False)
    except FileNotFoundError:
        return None
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        number, what = _KINDS.get(kind, (errno.EINVAL, "not a regular file"))
        raise OSError(number, f"it is {what}; only a regular file can be replaced as a whole")
    return status


def look_at(directory: Directory, name: str, status: os.stat_result) -> FileIdentity:
    """Everything to keep of the file called `name`. Raises `OSError`."""
    # Through the open directory if /proc exists: its path may lead to another one by now.
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
    """Gives an open file, which the process owns and which has mode 0600, the state of `replaced`.

    `permissions` replace the mode and ACL if given. At no moment does anyone have access who had
    none to `replaced`. Raises `OSError` if access cannot be made narrow enough.
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
        # ACLs of another kind: it is only known that one is lost.
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
    """Sets owner and group as far as permitted; returns whether the file now has each of them."""
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
    """Sets the permission bits alone: removes an ACL inherited from the directory."""
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
    """The umask of the process; avoids setting it if possible, because threads share it."""
    with contextlib.suppress(OSError), open("/proc/self/status", "rb") as file:
        for line in file:
            if line.startswith(b"Umask:"):
                return int(line.split()[1], 8)
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def narrowed_mode(mode: int, *, with_owner: bool, with_group: bool) -> int:
    """The permission bits of a file whose owner or group could not be set.

    The old owner now counts as group or other, members of the old group count as other, and
    others may be members of the new group.
    """
    user, group, other = mode >> 6 & 7, mode >> 3 & 7, mode & 7
    if not with_owner:
        group &= user
        other &= user
    if not with_group:
        group = other = group & other
    return user << 6 | group << 3 | other


def narrowed_acl(acl: bytes, *, with_owner: bool, with_group: bool) -> bytes | None:
    """The ACL of a file whose owner or group could not be set; None if its form is unknown."""
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
                # A named entry may exclude a member of the new group.
                bits = 0  # noqa: PLW2901
            elif tag == _OTHER:
                bits &= group  # noqa: PLW2901
        given += _ACL_ENTRY.pack(tag, bits, who)
    return given


def _mode_within(acl: bytes, mode: int) -> int:
    """The permission bits that grant nobody more than an ACL that cannot be set."""
    common = 0o7
    for tag, bits, _ in _entries(acl) or [(_OTHER, 0, 0)]:
        if tag != _MASK:
            common &= bits
    # With an ACL, the group bits are its mask.
    common &= mode >> 3 & 7
    return mode & stat.S_IRWXU | common << 3 | common


def _entries(acl: bytes) -> list[tuple[int, int, int]] | None:
    head, entries = acl[: _ACL_HEADER.size], acl[_ACL_HEADER.size :]
    if head != _ACL_HEADER.pack(_ACL_VERSION) or len(entries) % _ACL_ENTRY.size:
        return None
    return list(_ACL_ENTRY.iter_unpack(entries))
