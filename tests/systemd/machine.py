"""A real systemd, booted in a container."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.daemon import eventually

PROJECT = Path(__file__).parents[2]
BASE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"), "logengine", "bookworm")


class Machine:
    """A booted container."""

    def __init__(self, root: Path, wheels: Path) -> None:
        self.root = root
        self._booted = subprocess.Popen(
            [
                *("systemd-nspawn", "--register=no", "--keep-unit", "-D", str(root), "-b"),
                *("--console=pipe", f"--bind-ro={PROJECT}:/src", f"--bind-ro={wheels}:/wheels"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            eventually(self._is_up, "systemd to be up")
        except BaseException:
            self._booted.kill()
            self._booted.wait()
            raise

    def _is_up(self) -> bool:
        # Looked for each time: the first child is not yet the container's init.
        children = Path(f"/proc/{self._booted.pid}/task/{self._booted.pid}/children").read_text()
        if not children:
            return False
        self._init = children.split()[0]
        state = self.run("systemctl", "is-system-running", check=False)
        return state.stdout.strip() in {"running", "degraded"}

    def start(self, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Starts a command in the container."""
        return subprocess.Popen(["nsenter", "-t", self._init, "-a", *command], text=True, **options)

    def run(
        self, *command: str, check: bool = True, stdin: str = ""
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["nsenter", "-t", self._init, "-a", *command],
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done

    def main_pid(self) -> str:
        return self.run("systemctl", "show", "-P", "MainPID", "logengine").stdout.strip()

    def records(self, stream: str) -> list[dict[str, Any]]:
        shown = self.run("logengine", "cat", stream, "--format", "raw").stdout
        return [json.loads(line) for line in shown.splitlines()]

    def close(self) -> None:
        self.run("systemctl", "poweroff", check=False)
        try:
            self._booted.wait(60)
        except subprocess.TimeoutExpired:
            self._booted.kill()
            self._booted.wait()
