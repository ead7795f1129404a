"""The path that a system call is about, also where it has a name in an open directory."""

import os
from typing import Any


def whole_path(name: Any, dir_fd: int | None = None, **_: Any) -> str:
    """The path of `name`, for a double of a call that takes `dir_fd`, or `dst_dir_fd`."""
    name = os.fspath(name)
    return name if dir_fd is None else os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), name)
