"""A reader that walks a data directory in a loop and takes nothing on trust.

Run as `python -m tests.crash.rig.walker DATA`; when its standard input ends, it prints what it
saw as JSON: how many files, and which were broken. It knows the documented format alone.
"""

import contextlib
import hashlib
import json
import os
import select
import sys
from collections.abc import Iterator
from pathlib import Path

import zstandard


def walk(data: Path) -> dict[str, object]:
    """Looks at every file under a final name, again whenever it was replaced."""
    known: dict[Path, tuple[int, int, int]] = {}
    broken: list[str] = []
    files = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        for path in segments_under(data):
            try:
                with path.open("rb") as file:
                    # Of this file, not of what has its name now; and the next file may get
                    # the number of an inode that is free again.
                    found = os.fstat(file.fileno())
                    version = (found.st_ino, found.st_mtime_ns, found.st_size)
                    if known.get(path) == version:
                        continue
                    content = file.read()
            except FileNotFoundError:
                continue
            known[path] = version
            files += 1
            if reason := fault_of(path, content):
                broken.append(f"{path}: {reason}")
    return {"files": files, "broken": broken}


def segments_under(data: Path) -> Iterator[Path]:
    """The files under final names, as far as they are not gone again.

    Not by a glob, which falls where a directory vanishes between two of its steps: one that a
    killed daemon left empty is made anew by the next.
    """
    for stream in os.listdir(data):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            for name in os.listdir(data / stream):
                if name[0].isdigit():
                    yield data / stream / name


def decompressed(path: Path, content: bytes) -> bytes:
    """What `zstdcat` prints of a compressed segment; of a plain one, its bytes."""
    if path.suffix != ".zst":
        return content
    decompressor = zstandard.ZstdDecompressor()
    with decompressor.stream_reader(content, read_across_frames=True) as reader:
        return reader.read()


def fault_of(path: Path, content: bytes) -> str | None:
    """What is wrong with a segment."""
    try:
        plain = decompressed(path, content)
        return _fault_of_plain(path, plain) or _fault_of_frames(path, content, plain)
    except zstandard.ZstdError as error:
        return f"not to be decompressed: {error}"
    except (KeyError, TypeError, ValueError) as error:
        return f"no header of a segment: {error!r}"


def _fault_of_plain(path: Path, plain: bytes) -> str | None:
    line, newline, body = plain.partition(b"\n")
    if not newline:
        return "no header line"
    header = json.loads(line)
    if header["first"] != int(path.name[:20]) or header["stream"] != path.parent.name:
        return "the header is not this file's"
    if header["bytes"] != len(body) or header["count"] != body.count(b"\n"):
        return "cut short"
    if header["sha256"] != hashlib.sha256(body).hexdigest():
        return "wrong hash"
    return None


def _fault_of_frames(path: Path, content: bytes, plain: bytes) -> str | None:
    """What is wrong with the places in a file that its header tells."""
    frames = json.loads(plain.partition(b"\n")[0]).get("frames")
    if (frames is not None) != (path.suffix == ".zst"):
        return "the header is not one of this kind"
    end = len(content)
    for stored_bytes, body_bytes, count in reversed(frames or []):
        frame = content[end - stored_bytes : end]
        end -= stored_bytes
        parameters = zstandard.get_frame_parameters(frame)
        if not parameters.has_checksum or parameters.content_size != body_bytes:
            return "a frame is not as the header says"
        part = zstandard.ZstdDecompressor().decompress(frame, allow_extra_data=False)
        if part.count(b"\n") != count or part[-1:] != b"\n":
            return "a frame does not hold whole records"
    if frames is not None:
        zstandard.ZstdDecompressor().decompress(content[:end], allow_extra_data=False)
    return None


if __name__ == "__main__":
    print(json.dumps(walk(Path(sys.argv[1]))))
