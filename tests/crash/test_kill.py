"""Real senders and a daemon killed with -9 again and again.

Withstands: SIGKILL of the daemon at any time, under load from several senders, with
readers about. The page cache survives a kill, so this proves the protocol, recovery and
the atomicity of what is visible; what a power cut does is for other tests.
"""

import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import ENVELOPE, Daemon

SENDERS = 8


def expected_of(line: bytes) -> dict[str, Any]:
    """What a reader must get for a line that was sent, by the documented outcomes alone."""
    try:
        value = json.loads(line)
        if isinstance(value, dict):
            return value
    except ValueError:
        pass
    return {"message": line.removesuffix(b"\r").decode("utf-8", "backslashreplace")}


def under_fire(root: Path, inputs: list[Path], kills: int, pause_s: tuple[float, float]) -> str:
    """Sends `inputs` at once, one sender each, and kills the daemon `kills` times meanwhile."""
    source = random.Random(int(os.environ.get("SEED", "20261123")))
    daemon = Daemon(root)
    with contextlib.closing(daemon):
        return _under_fire(daemon.start(), inputs, kills, pause_s, source)


def _under_fire(
    daemon: Daemon,
    inputs: list[Path],
    kills: int,
    pause_s: tuple[float, float],
    source: random.Random,
) -> str:
    walker = subprocess.Popen(
        [sys.executable, "-m", "tests.crash.rig.walker", str(daemon.data)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    began = time.monotonic()
    senders = [
        subprocess.Popen(
            [*(sys.executable, "-m", "logengine", "send"), "--socket", str(daemon.socket), path]
        )
        for path in inputs
    ]
    done = 0
    try:
        while done < kills and any(sender.poll() is None for sender in senders):
            time.sleep(source.uniform(*pause_s))
            daemon.kill()
            done += 1
            daemon.cli("verify")
            daemon.start()
        statuses = [sender.wait(600) for sender in senders]
    finally:
        seen, _ = walker.communicate()
        for sender in senders:
            sender.kill()
    assert statuses == [0] * len(senders)
    assert walker.returncode == 0, "the walking reader met what it could not read"
    walked = json.loads(seen)
    assert walked["broken"] == []
    assert walked["files"] > 0
    assert daemon.stop() == 0
    daemon.cli("verify")
    took_s = time.monotonic() - began
    stored: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for record in daemon.records():
        own = {name: value for name, value in record.items() if name not in ENVELOPE}
        stored[record["_pid"]].append(own)
    records = 0
    for sender, path in zip(senders, inputs, strict=True):
        lines = [line for line in path.read_bytes().split(b"\n") if line.strip(b" \t\r")]
        records += len(lines)
        assert len(stored[sender.pid]) == len(lines)
        assert stored[sender.pid] == [expected_of(line) for line in lines]
    return (
        f"{records:,} records from {len(inputs)} senders, {done} kills, {took_s:.0f} s, "
        f"{walked['files']:,} files looked at by a walking reader: none lost, doubled or broken"
    )


@pytest.mark.disk
def test_nothing_acked_is_lost_or_doubled_by_kills(root: Path) -> None:
    inputs = []
    for number in range(SENDERS):
        path = root / f"input-{number}"
        with path.open("wb") as file:
            for line in range(25000):
                if line % 50 == 0:
                    file.write(b"plain text %d of sender %d\n" % (line, number))
                else:
                    record = {"n": line, "sender": number, "text": "x" * (line % 300)}
                    file.write(json.dumps(record).encode() + b"\n")
        inputs.append(path)
    print(under_fire(root, inputs, kills=6, pause_s=(0.02, 0.15)))


@pytest.mark.campaign
def test_real_logs_survive_twenty_kills() -> None:
    with tempfile.TemporaryDirectory(prefix="le-") as name:
        root = Path(name)
        inputs = list(real_inputs(root))
        print(under_fire(root, inputs, kills=20, pause_s=(0.02, 0.15)))


def real_inputs(root: Path) -> Iterator[Path]:
    """Every line of this machine's text logs, and a listing of its files as NDJSON."""
    logs = [path for path in Path("/var/log").rglob("*") if path.is_file()]
    text = root / "logs"
    with text.open("wb") as file:
        for log in logs:
            content = log.read_bytes()
            if b"\0" not in content[:1000]:
                file.write(content.removesuffix(b"\n") + b"\n")
    yield text
    wanted = int(os.environ.get("RECORDS", "1000000"))
    files = [(root / f"files-{number}").open("wb") for number in range(SENDERS - 1)]
    written = 0
    while written < wanted:
        for directory, _, names in os.walk("/usr"):
            for name in names:
                path = os.path.join(directory, name)
                try:
                    found = os.lstat(path)
                except OSError:
                    continue
                record = {"path": path, "size": found.st_size, "mode": oct(found.st_mode)}
                line = json.dumps(record | {"mtime": found.st_mtime, "n": written}).encode()
                files[written % len(files)].write(line + b"\n")
                written += 1
    for listing in files:
        listing.close()
        yield Path(listing.name)
