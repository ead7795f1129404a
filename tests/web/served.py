"""`logengine web` in a process of its own."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.daemon import PATIENCE_S


class Served:
    """Serves a data directory; `url` is what it printed."""

    def __init__(self, data: Path, *arguments: str) -> None:
        self._command = [
            *(sys.executable, "-m", "logengine", "web", "--data", str(data)),
            *(arguments or ("--port", "0")),
        ]
        self.url = ""

    def __enter__(self) -> Self:
        self.process = subprocess.Popen(
            self._command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONUNBUFFERED": "1"}
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().decode().strip()
        assert self.url.startswith("http://")
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends it; returns its status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            return self.process.wait(PATIENCE_S)
        finally:
            self.process.kill()
            assert self.process.stdout is not None
            self.process.stdout.close()
