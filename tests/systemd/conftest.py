"""A machine with logengine installed: one for each file of tests."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.systemd.machine import BASE, PROJECT, Machine


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    if os.getuid() != 0 or not BASE.exists():
        pytest.skip("needs root, and tests/systemd/prepare to have run")
    with tempfile.TemporaryDirectory(prefix="logengine-systemd-") as name:
        wheels = Path(name, "wheels")
        download = [sys.executable, "-m", "pip", "download", "--quiet", "-d", str(wheels)]
        for lock in ("requirements.lock", "requirements-build.lock"):
            subprocess.run([*download, "-r", str(PROJECT / lock)], check=True)
        root = Path(name, "root")
        subprocess.run(["cp", "-a", str(BASE), str(root)], check=True)
        machine = Machine(root, wheels)
        try:
            flags = "PIP_FLAGS=--no-index --find-links /wheels"
            machine.run("make", "-C", "/src", "install", flags)
            machine.run("systemd-sysusers")
            machine.run("systemctl", "daemon-reload")
            machine.run("systemctl", "enable", "--now", "logengine.socket", "logengine.service")
            yield machine
        finally:
            machine.close()
