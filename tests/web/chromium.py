"""A headless Chromium for the tests of the page: the one that is installed, or one unpacked here.

`python -m tests.web.chromium` fetches Debian's package and unpacks it next to the checkout's
files, without installing anything. Without any, the tests in a browser are skipped.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CACHE = Path(__file__).parents[2] / "browser-software"
_PACKAGE = "chromium-headless-shell"
_NAMES = (_PACKAGE, "chromium", "chromium-browser", "google-chrome")
_LIBRARIES = "usr/lib/x86_64-linux-gnu"


def find() -> tuple[str, dict[str, str]] | None:
    """The program, and the environment that it needs; None if there is none."""
    for name in (os.environ.get("CHROMIUM", ""), *_NAMES):
        if name and (path := shutil.which(name)):
            return path, dict(os.environ)
    program = CACHE / "root/usr/lib/chromium" / _PACKAGE
    if not program.exists():
        return None
    libraries = CACHE / "root" / _LIBRARIES
    path_of_libraries = f"{libraries}:{libraries / 'pulseaudio'}"
    return str(program), {**os.environ, "LD_LIBRARY_PATH": path_of_libraries}


@contextmanager
def browser() -> Iterator[Any]:
    """A Chromium, driven by Playwright."""
    from playwright.sync_api import sync_playwright

    found = find()
    assert found is not None
    program, environ = found
    # In a container it has no sandbox of its own.
    options = ["--no-sandbox", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=program,
            args=options,
            env=environ,  # type: ignore[arg-type]
        )
        try:
            yield chromium
        finally:
            chromium.close()


def _unpack() -> None:
    CACHE.mkdir(exist_ok=True)
    command = ["apt-get", "install", "--simulate", "--no-install-recommends", _PACKAGE]
    planned = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = [line.split() for line in planned.stdout.splitlines()]
    packages = [words[1] for words in lines if words[:1] == ["Inst"]]
    subprocess.run(["apt-get", "download", *packages], cwd=CACHE, check=True)
    for archive in CACHE.glob("*.deb"):
        subprocess.run(["dpkg", "-x", str(archive), str(CACHE / "root")], check=True)


if __name__ == "__main__":
    if find() is None:
        _unpack()
    if find() is None:
        sys.exit("there is no Chromium")
