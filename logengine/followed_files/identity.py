"""What a followed file is recognized by, and the name that it has as a producer. No I/O.

    file:Zk3vQ0aB.2a41f.f46285ad.200.S1v0…      path, inode, generation, bytes, digest

The path is the one that the file has before any rotation, as a hash. The generation is what the
file system counts for each use of an inode (`FS_IOC_GETVERSION`), 0 if it does not count. The
digest is that of the file's first bytes, up to 1 KiB. All of it stays the same while lines are
appended and while the file is renamed next to its path; a copy has the same digest. Once a file was
overwritten, inode and generation are 0: only a copy may be left of what was read.
"""

import re
from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import NamedTuple

from logengine.format.producers import FILE_PREFIX

HEAD_BYTES_MAX = 1024
_PATH_HASH_BYTES = 6
_DIGEST_BYTES = 12
_NAME = re.compile(
    rf"{re.escape(FILE_PREFIX)}([\w-]{{8}})\.([0-9a-f]+)\.([0-9a-f]+)\.([0-9a-f]+)\.([\w-]{{16}})",
    re.ASCII,
)


class Inode(NamedTuple):
    """An inode number, and which use of it this is."""

    number: int
    generation: int


_NO_INODE = Inode(0, 0)


class Identity(NamedTuple):
    """See the module's docstring. `head_bytes` is how many bytes the digest covers."""

    path_hash: str
    inode: Inode
    head_bytes: int
    digest: str

    @property
    def name(self) -> str:
        """The name of the producer."""
        number, generation = self.inode
        return (
            f"{FILE_PREFIX}{self.path_hash}.{number:x}.{generation:x}.{self.head_bytes:x}."
            f"{self.digest}"
        )

    @property
    def overwritten(self) -> "Identity":
        """What is known once the inode has other bytes."""
        return self._replace(inode=_NO_INODE)

    @property
    def is_overwritten(self) -> bool:
        """Whether only a copy may be left."""
        return self.inode == _NO_INODE

    def begins(self, head: bytes) -> bool:
        """Whether a file that begins with `head` begins like this one did."""
        return len(head) >= self.head_bytes and self.digest == _digest(head[: self.head_bytes])


def identify(path: str, inode: Inode, head: bytes) -> Identity:
    """Returns the identity of the file of `path` that begins with `head`."""
    head = head[:HEAD_BYTES_MAX]
    return Identity(path_hash(path), inode, len(head), _digest(head))


def parse_name(name: str) -> Identity | None:
    """Returns the identity in a producer's name; None if it has another form."""
    found = _NAME.fullmatch(name)
    if found is None:
        return None
    inode = Inode(int(found[2], 16), int(found[3], 16))
    return Identity(found[1], inode, int(found[4], 16), found[5])


def path_hash(path: str) -> str:
    """Returns a short hash of a path, 8 characters."""
    return _text_of(blake2b(path.encode("utf-8", "surrogateescape"), digest_size=_PATH_HASH_BYTES))


def _digest(head: bytes) -> str:
    return _text_of(blake2b(head, digest_size=_DIGEST_BYTES))


def _text_of(digest: "blake2b") -> str:
    return urlsafe_b64encode(digest.digest()).decode()
