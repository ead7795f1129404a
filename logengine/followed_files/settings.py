"""The section `[[file]]`. `config/logengine.toml` explains each key."""

import re
from typing import Literal

import msgspec

from logengine.units import Duration, KiB, Size

FileFormat = Literal["auto", "lines", "json", "cri", "docker"]
_NOT_IN_STREAM_NAMES = re.compile(r"[^a-z0-9._-]+")
_STREAM_CHARACTERS_MAX = 64


class FileConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[[file]]`: the files that match a pattern. `start` is empty if each line is a record."""

    path: str
    stream: str = ""
    format: FileFormat = "auto"
    start: str = ""
    wait: Duration = Duration(1)
    begin: Literal["beginning", "end"] = "beginning"
    max_line: Size = Size(256 * KiB)
    follow_links: bool = False


def plain_path(path: str) -> str:
    """Returns the path without empty and `.` components: a file has the same path in all runs."""
    return "/" + "/".join(each for each in path.split("/") if each not in ("", "."))


def stream_of(path: str) -> str:
    """Returns the stream for the file at `path` if none is set: `app` for `/var/log/app.log`."""
    name = path.rpartition("/")[2].lower().removesuffix(".log")
    name = _NOT_IN_STREAM_NAMES.sub("_", name).strip(".-_")
    return name[:_STREAM_CHARACTERS_MAX] or "default"
