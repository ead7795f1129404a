"""Giving a file a name that no file has yet, and none can get in between.

Sources: rename(2), RENAME_NOREPLACE; link(2).
"""

import errno
import functools
import os
from collections.abc import Callable

from logengine.disk.directory import Directory

_RENAME_NOREPLACE = 1
# The kernel, or the file system, has no such call.
_UNKNOWN = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM})


def rename_exclusively(directory: Directory, source: str, target: str) -> None:
    """Gives the file called `source` the name `target`. Raises `FileExistsError`, and `OSError`.

    In one call where the file system has it; elsewhere the file has both names for a moment,
    and keeps both where the process is killed just then.
    """
    rename = _renameat2()
    if rename is None or not rename(directory.descriptor, source, target):
        directory.link(source, target)
        directory.unlink(source)


@functools.cache
def _renameat2() -> Callable[[int, str, str], bool] | None:
    """A function that says whether it could; None where the C library has no `renameat2`."""
    try:
        import ctypes  # only who needs it waits for it to be loaded

        call = ctypes.CDLL(None, use_errno=True).renameat2
    except (ImportError, OSError, AttributeError):
        return None
    call.argtypes = [
        ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint,
    ]  # fmt: skip

    def rename(directory: int, source: str, target: str) -> bool:
        before, after = os.fsencode(source), os.fsencode(target)
        if call(directory, before, directory, after, _RENAME_NOREPLACE) == 0:
            return True
        number = ctypes.get_errno()
        if number in _UNKNOWN:
            return False
        raise OSError(number, os.strerror(number), target)

    return rename
