"""A command that finds the daemon's sockets at paths of the system, in a mount namespace."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.daemon import PATIENCE_S

# A file system of its own over /dev or /run, which may have no directory of systemd's.
_IN_NAMESPACE = """
import os, subprocess, sys
source, name, path = sys.argv[1:4]
subprocess.run(["mount", "--bind", source, "/mnt"], check=True)  # it may be below the next one
over = "/" + path.split("/")[1]
subprocess.run(["mount", "-t", "tmpfs", "none", over], check=True)
os.makedirs(os.path.dirname(path), exist_ok=True)
os.symlink("/mnt/" + name, path)
os.execvp(sys.argv[4], sys.argv[4:])
"""


def run_with(source: Path, path: str, *command: str | Path, stdin: str = "") -> tuple[int, str]:
    """Runs a command that finds `source` at `path`. Returns its pid, and what it printed.

    `path` is below /dev or /run, where nothing else is then. Skips the test if that is not possible
    here.
    """
    unshare = shutil.which("unshare")
    if os.getuid() or unshare is None:
        pytest.skip("a mount namespace needs root, and unshare(1)")
    with subprocess.Popen(
        [
            *(unshare, "--mount", sys.executable, "-c", _IN_NAMESPACE),
            *(str(source.parent), source.name, path, *command),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        printed, said = process.communicate(stdin, PATIENCE_S)
    if process.returncode and "mount" in said:
        pytest.skip(f"no mount namespace here: {said.splitlines()[-1]}")
    assert process.returncode == 0, said
    return process.pid, printed
