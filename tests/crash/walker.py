"""A reader that walks a data directory in a loop and takes nothing on trust.

Run as `python -m tests.crash.walker DATA`; when its standard input ends, it prints what it
saw as JSON: how many files, and which were broken. It knows the documented format alone.
"""

import hashlib
import json
import select
import sys
from pathlib import Path


def walk(data: Path) -> dict[str, object]:
    """Looks at every file under a final name, again whenever it was replaced."""
    known: dict[Path, int] = {}
    broken: list[str] = []
    files = 0
    while not select.select([sys.stdin], [], [], 0)[0]:
        for path in data.glob("*/[0-9]*"):
            try:
                with path.open("rb") as file:
                    inode = path.stat().st_ino
                    if known.get(path) == inode:
                        continue
                    content = file.read()
            except FileNotFoundError:
                continue
            known[path] = inode
            files += 1
            if reason := fault_of(path, content):
                broken.append(f"{path}: {reason}")
    return {"files": files, "broken": broken}


def fault_of(path: Path, content: bytes) -> str | None:
    """What is wrong with a segment."""
    line, newline, body = content.partition(b"\n")
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


if __name__ == "__main__":
    print(json.dumps(walk(Path(sys.argv[1]))))
