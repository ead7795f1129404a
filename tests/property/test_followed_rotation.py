"""Each line is read once and in order, however a file is rotated between the looks of a reader.

A model: files with names, inodes and bytes, and a reader that may be killed after any record. It
decides with the engine's own rules which file to read next, and knows only what is stored.
"""

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from logengine.followed_files.generations import Found, plan_reading
from logengine.followed_files.identity import HEAD_BYTES_MAX, Identity, Inode, identify
from logengine.resume.rotation import COMPRESSIONS, rotated_names

NAME = "app.log"


@dataclass
class File:
    inode: int
    data: bytes = b""


class Model:
    """A directory, the program that writes to it, and the reader."""

    def __init__(self) -> None:
        self.inodes = 1
        self.files = {NAME: File(1)}
        self.written = 0
        self.read: list[int] = []
        self.known: dict[Identity, int] = {}
        self.append(1)
        self.look(None)

    def append(self, count: int) -> None:
        file = self.files.setdefault(NAME, File(0))
        file.inode = file.inode or self.new_inode()
        for _ in range(count):
            self.written += 1
            file.data += b"%d\n" % self.written

    def new_inode(self) -> int:
        self.inodes += 1
        return self.inodes

    def shift(self) -> None:
        for generation in range(len(self.files), 0, -1):
            for suffix in ("", ".gz"):
                before = f"{NAME}.{generation}{suffix}"
                if before in self.files:
                    self.files[f"{NAME}.{generation + 1}{suffix}"] = self.files.pop(before)

    def rename(self) -> None:
        if NAME in self.files:
            self.shift()
            self.files[f"{NAME}.1"] = self.files.pop(NAME)

    def create(self) -> None:
        self.append(0)

    def compress(self) -> None:
        if f"{NAME}.1" in self.files:
            plain = self.files.pop(f"{NAME}.1")
            self.files[f"{NAME}.1.gz"] = File(self.new_inode(), plain.data)

    def copytruncate(self) -> None:
        if NAME in self.files:
            self.shift()
            file = self.files[NAME]
            self.files[f"{NAME}.1"] = File(self.new_inode(), file.data)
            file.data = b""

    def copy(self) -> None:
        if NAME in self.files:
            self.shift()
            self.files[f"{NAME}.1"] = File(self.new_inode(), self.files[NAME].data)

    def found(self, name: str) -> Found:
        file = self.files[name]
        is_compressed = name.endswith(tuple(COMPRESSIONS))
        size = None if is_compressed else len(file.data)
        return Found(name, Inode(file.inode, 0), file.data[:HEAD_BYTES_MAX], size)

    def look(self, lines_max: int | None) -> None:
        """Reads all there is to read, or is killed after some lines."""
        rotated = [self.found(each.name) for each in rotated_names(NAME, self.files)]
        current = self.found(NAME) if NAME in self.files else None
        for step in plan_reading(self.known, rotated, current):
            file = self.files[step.found.name]
            identity, position = step.identity, step.position
            for line in file.data[position:].splitlines(keepends=True):
                if lines_max is not None:
                    lines_max -= 1
                    if lines_max < 0:
                        return
                self.read.append(int(line))
                position += len(line)
                inode = identity.inode if identity else Inode(file.inode, 0)
                before = identity
                identity = identify(NAME, inode, file.data[:position][:HEAD_BYTES_MAX])
                self.known.pop(identity, None)
                self.known[identity] = position
                # The one before is forgotten after that. A kill may come between the two.
                if before is not None and before != identity and lines_max != 0:
                    self.known.pop(before, None)


WAYS = ["rename", "create", "compress", "copytruncate", "copy"]
steps = st.lists(
    st.one_of(
        st.sampled_from(WAYS),
        st.integers(1, 30).map(lambda count: ("append", count)),
        st.one_of(st.none(), st.integers(0, 30)).map(lambda count: ("look", count)),
    ),
    max_size=30,
)


@settings(max_examples=300)
@given(steps)
def test_each_line_is_read_once_and_in_order(
    drawn: list[str | tuple[str, int | None]],
) -> None:
    model = Model()
    for step in drawn:
        match step:
            case ("append", int(count)):
                model.append(count)
            case ("look", count):
                assert count is None or isinstance(count, int)
                model.look(count)
            case way:
                getattr(model, str(way))()
    model.look(None)
    assert model.read == list(range(1, model.written + 1))
