"""The section `[[file]]`. `config/logengine.toml` explains each key."""

import re
from typing import Literal

import msgspec

from logengine.format.segment import stream_name_from
from logengine.units import Duration, KiB, Size

FileFormat = Literal["auto", "lines", "json", "cri", "docker"]
# What a stream may be named by: only what all records of a file have in common, since how far the
# file is stored is kept in one stream.
FIELDS = ("name", "directory", "container", "pod", "namespace")
_BRACES = re.compile(r"\{([^{}]*)\}")
_SUFFIX = ".log"
# Where Kubernetes and Docker have the logs of containers. Source: the kubelet's
# `BuildContainerLogsDirectory` and `LogSymlink`, Docker's driver `json-file`.
_CONTAINERS = tuple(
    map(
        re.compile,
        (
            r"/(?P<pod>[^/_]+)_(?P<namespace>[^/_]+)_(?P<container>[^/_]+)-[0-9a-f]{64}\.log$",
            r"/pods/(?P<namespace>[^/_]+)_(?P<pod>[^/_]+)_[^/_]+/(?P<container>[^/]+)/[^/]+$",
            r"/containers/(?P<container>[0-9a-f]{64})/(?P=container)-json\.log$",
        ),
    )
)


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


def stream_of(path: str, template: str = "") -> str:
    """Returns the stream for the file at `path`: `app` for `/var/log/app.log`.

    `template` is a stream's name, or has `FIELDS` of the path in braces. If the path lacks one of
    them, or nothing of the text can be in a name, the file's own name is the stream's.
    """
    fields = _fields_of(path)
    own = stream_name_from(fields["name"]) or "default"
    if not template:
        return own
    names = _BRACES.findall(template)
    if not names:
        return template
    if not fields.keys() >= set(names):
        return own
    return stream_name_from(_BRACES.sub(lambda found: fields[found[1]], template)) or own


def is_template(text: str) -> bool:
    """Whether each field in `text`, which has one at least, can be one of a path."""
    names = _BRACES.findall(text)
    rest = _BRACES.sub("", text)
    return bool(names) and set(names) <= set(FIELDS) and not {"{", "}"} & set(rest)


def _fields_of(path: str) -> dict[str, str]:
    """Returns the fields that a path has, always with `name` and `directory`."""
    directory, _, name = path.rpartition("/")
    is_log = name.lower().endswith(_SUFFIX)
    fields = {
        "name": name[: -len(_SUFFIX)] if is_log else name,
        "directory": directory.rpartition("/")[2],
    }
    for pattern in _CONTAINERS:
        if found := pattern.search(path):
            return fields | found.groupdict()
    return fields
