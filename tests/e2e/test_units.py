"""The unit of a process in a real cgroup, whose subtree somebody else has named."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon

MOUNTS = ("/sys/fs/cgroup/unified", "/sys/fs/cgroup")


def writable_hierarchy() -> Path | None:
    """Cgroups v2, where root may create cgroups and nothing else names the unit of this process."""
    found = [Path(each) for each in MOUNTS if Path(each, "cgroup.procs").exists()]
    others = [
        line
        for line in Path("/proc/self/cgroup").read_text().splitlines()
        if ":name=systemd:" in line and not line.endswith(":/")
    ]
    return found[0] if found and not others and os.access(found[0], os.W_OK) else None


@pytest.fixture
def hierarchy() -> Path:
    found = writable_hierarchy()
    if os.geteuid() != 0 or found is None:
        pytest.skip("needs root and cgroups v2")
    return found


@pytest.fixture
def top(hierarchy: Path) -> Iterator[str]:
    """The name of a slice of this test, removed in the end with all below."""
    name = f"logengine{os.getpid()}"
    yield name
    for directory, _, _ in os.walk(hierarchy / f"{name}.slice", topdown=False):
        os.rmdir(directory)


@pytest.mark.parametrize(
    ("path", "unit"),
    [
        ("{top}.slice/real.service", "real.service"),
        ("{top}.slice/real.service/sshd.service", "real.service"),
        ("{top}.slice/{top}-inner.slice/real@1.service/any/sshd.service", "real@1.service"),
        ("{top}.slice/own/sshd.service", None),
        ("{top}.slice/user-1000.slice/user@1000.service/sshd.service", None),
    ],
)
def test_the_unit_is_the_one_that_the_manager_named(
    daemon: Daemon, hierarchy: Path, top: str, path: str, unit: str | None
) -> None:
    cgroup = hierarchy / path.format(top=top)
    cgroup.mkdir(parents=True)
    subprocess.run(
        [
            *("sh", "-c", 'echo $$ >"$1"/cgroup.procs && shift && exec "$@"', "sh", str(cgroup)),
            *(sys.executable, "-m", "logengine", "send", "--socket", str(daemon.socket)),
        ],
        input=b"hello\n",
        check=True,
        timeout=60,
    )
    (record,) = daemon.records()
    assert record.get("_unit") == unit
    assert "_user_unit" not in record
    assert record["_comm"]
