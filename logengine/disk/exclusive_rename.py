"""Renames a file only if no other file has the new name, without a race.

Sources: rename(2), RENAME_NOREPLACE; link(2).
"""

import errno
import functools
import os
from collections.abc import Callable

from logengine.disk.directory import Directory

_RENAME_NOREPLACE = 1
# The kernel or the file system does not support the call.
_UNKNOWN = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM})


def rename_exclusively(directory: Directory, source: str, target: str) -> None:
    """Renames `source` to `target`. Raises `FileExistsError` if that is taken, and `OSError`.

    Uses one call if the file system supports it. Otherwise the file has both names for a moment,
    and keeps both if the process is killed at that moment.
    """
    rename = _renameat2()
    if rename is None or not rename(directory.descriptor, source, target):
        directory.link(source, target)
        directory.unlink(source)


@functools.cache
def _renameat2() -> Callable[[int, str, str], bool] | None:
    """A function that returns whether it could; None if the C library has no `renameat2`."""
    try:
        import ctypes  # loaded only if needed

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
