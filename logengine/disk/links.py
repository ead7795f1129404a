"""Resolves the symbolic links at the end of a path to an open directory and a name in it.

Sources: path_resolution(7); proc(5), "/proc/sys/fs/protected_symlinks".
"""

import contextlib
import errno
import os
import stat

from logengine.disk.directory import Directory

_LINKS_MAX = 40  # as many as the kernel follows


def follow_links(path: str) -> tuple[Directory, str]:
    """The directory that `path` leads to, and the name in it, which need not exist yet.

    A relative link is resolved from its own directory; a dangling one leads to the file that it
    names. Raises `OSError`: for a name that only a directory can have, for a loop, and for
    another user's link in a directory where anybody may make one, such as `/tmp`.
    """
    directory, name = open_parent(path)
    try:
        for followed in range(_LINKS_MAX + 1):
            link = _link_at(directory, name)
            if link is None:
                if followed:
                    _check_that_it_is_meant(path, directory, name)
                return directory, name
            parent, name = _split(link)
            if parent:
                passed, directory = directory, directory.walk(parent)
                passed.close()
        raise OSError(errno.ELOOP, f"more than {_LINKS_MAX} symbolic links, or a loop of them")
    except BaseException:
        directory.close()
        raise


def _check_that_it_is_meant(path: str, directory: Directory, name: str) -> None:
    """Refuses links whose text differs from their target, such as those of open files in /proc."""
    with contextlib.suppress(FileNotFoundError):
        meant = os.stat(path)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(meant, directory.stat(name, follow_links=False)):
                return
        raise OSError(errno.EINVAL, "the link leads to a file that has no name to replace")


def open_parent(path: str) -> tuple[Directory, str]:
    """The directory that `path` is in, and its name there. Raises `OSError`."""
    parent, name = _split(path)
    return Directory.open(parent or os.curdir), name


def _split(path: str) -> tuple[str, str]:
    parent, name = os.path.split(path)
    if name in ("", os.curdir, os.pardir):
        raise OSError(errno.EISDIR, "the path names a directory; expected a file")
    return parent, name


def _link_at(directory: Directory, name: str) -> str | None:
    """The text of the link called `name`, or None if `name` is missing or not a link."""
    try:
        if not stat.S_ISLNK(directory.stat(name, follow_links=False).st_mode):
            return None
    except FileNotFoundError:
        return None
    # Opened, so that the link that is checked is the one that is followed.
    with directory.place_of(name) as link:
        status = os.fstat(link.descriptor)
        if not stat.S_ISLNK(status.st_mode):
            return None
        around = os.fstat(directory.descriptor)
        anybody = stat.S_ISVTX | stat.S_IWOTH
        is_public = around.st_mode & anybody == anybody
        if is_public and status.st_uid not in (os.geteuid(), around.st_uid):
            raise OSError(
                errno.EACCES,
                f"a symbolic link of user {status.st_uid} in {directory}, where anybody may "
                "make one, is not followed",
            )
        return os.readlink("", dir_fd=link.descriptor)
