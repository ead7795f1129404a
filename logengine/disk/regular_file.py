"""The one way to open a file in a data directory, a spool, or another directory of logengine.

Anything may have the name of a segment, a lock or a mark: a FIFO, whose other end is never opened;
a link, which leads elsewhere; a device; or a hard link to another user's file. So a file is opened
by its name in an open directory, never through a link and never waiting, and used only if it is a
regular file.

In a directory of another user, it must also belong to that user, to root, or to the user of this
process. If it has a second hard link, it must belong to the directory's owner: anybody can make a
hard link to a file of somebody else. In the user's own directory nobody else can put anything.

What is read into memory as a whole has a limit. Sources: open(2), link(2), proc(5)
"protected_hardlinks".
"""

import errno
import os
import stat

from logengine.errors import UnexpectedFile

_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFREG: "a regular file",
}
# What the kernel says about a file that is none: a link, a FIFO without a reader, a socket, a
# device without a driver, a directory to be written.
_OF_OTHER_KINDS = frozenset(
    {errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EISDIR, errno.ENOTDIR, errno.EMLINK}
)
_READ_BYTES = 1024 * 1024


def kind_of(mode: int) -> str:
    """What a file of this `st_mode` is, in words."""
    return _KINDS.get(stat.S_IFMT(mode), "not a regular file")


def open_at_path(path: str, flags: int) -> int:
    """Opens the regular file at `path`, for readers, which hold no directory open.

    As `open_regular_file`, but the directory in `path` may be replaced meanwhile, by its owner.
    """
    return open_regular_file(None, path, flags, 0, path)


def open_regular_file(directory: int | None, name: str, flags: int, mode: int, path: str) -> int:
    """Opens the regular file `name` in an open directory; `path` is its path, for messages.

    Returns a descriptor that child processes do not inherit. Raises `UnexpectedFile` and `OSError`.
    Never truncates: that would happen before anything is checked.
    """
    assert not flags & os.O_TRUNC, "open it, then truncate it"
    try:
        # Neither waits for the other end of a FIFO, nor takes a terminal as its own. For a regular
        # file, O_NONBLOCK means nothing.
        careful = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        descriptor = os.open(name, flags | careful, mode, dir_fd=directory)
    except OSError as error:
        if error.errno in _OF_OTHER_KINDS:
            check_kind(directory, name, stat.S_IFREG, path)
        error.filename = path
        raise
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _unexpected(found, stat.S_IFREG, path)
        if found.st_uid != os.geteuid() or found.st_nlink > 1:
            _check_owner(found, _around(directory, path), path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _around(directory: int | None, path: str) -> os.stat_result:
    if directory is not None:
        return os.fstat(directory)
    above = os.path.dirname(path) or os.curdir
    check_kind(None, above, stat.S_IFDIR, above)
    return os.stat(above, follow_symlinks=False)


def check_kind(directory: int | None, name: str, kind: int, path: str) -> None:
    """Raises `UnexpectedFile` if `name` exists and is not of this kind, such as `stat.S_IFREG`."""
    try:
        found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    except OSError:
        return
    if stat.S_IFMT(found.st_mode) != kind:
        raise _unexpected(found, kind, path) from None


def check_subdirectory(directory: int, above: int, path: str) -> None:
    """Raises `UnexpectedFile` if an open directory may not be used as part of the one `above`.

    As for a file: in another user's directory it must belong to that user, to root, or to the user
    of this process.
    """
    found = os.fstat(directory)
    if found.st_uid != os.geteuid():
        _check_owner(found, os.fstat(above), path)


def _check_owner(found: os.stat_result, around: os.stat_result, path: str) -> None:
    user, owner = os.geteuid(), around.st_uid
    if owner == user:
        return
    if found.st_uid not in (owner, 0, user):
        raise UnexpectedFile(
            errno.EPERM,
            f"it belongs to user {found.st_uid}, but the directory to user {owner}; "
            "give it to that user, or remove it",
            path,
        )
    if found.st_nlink > 1 and found.st_uid != owner and stat.S_ISREG(found.st_mode):
        raise UnexpectedFile(
            errno.EPERM,
            f"it belongs to user {found.st_uid}, but the directory to user {owner}, and it has "
            "another name, so it may be another file of that user; remove this name",
            path,
        )


def _unexpected(found: os.stat_result, kind: int, path: str) -> UnexpectedFile:
    number = errno.ENOTDIR if kind == stat.S_IFDIR else errno.EINVAL
    return UnexpectedFile(number, f"it is {kind_of(found.st_mode)}, expected {_KINDS[kind]}", path)


def read_whole(descriptor: int, bytes_max: int, path: str) -> bytes:
    """All bytes of an open file. Raises `UnexpectedFile` if there are more than `bytes_max`."""
    content = bytearray()
    while piece := os.pread(descriptor, min(_READ_BYTES, bytes_max + 1), len(content)):
        content += piece
        if len(content) > bytes_max:
            raise UnexpectedFile(
                errno.EFBIG, f"it has more than {bytes_max} bytes, which no writer makes", path
            )
    return bytes(content)
