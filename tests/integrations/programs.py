"""The programs that the recipes of `docs/integrations.md` are for: unpacked, and not installed.

`python -m tests.integrations.programs` fetches those that are not installed: Debian's packages
with `apt-get`, those for Node with `npm`. They stay in a directory that git ignores. A test never
fetches anything: what is neither installed nor fetched, it skips.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.software import environ, fetch_package

CACHE = Path(__file__).parents[2] / ".integration-programs"
_ROOT = CACHE / "root"
_NODE = CACHE / "node"
_MODULES = _NODE / "node_modules"

# Each program, and the packages that have it and the libraries that a machine may lack.
_DEBIAN = {
    "haproxy": ("haproxy", "liblua5.3-0", "libopentracing-c-wrapper0", "libopentracing1"),
    "nc": ("netcat-openbsd", "libbsd0"),
    "nginx": ("nginx",),
    "rsyslogd": ("rsyslog", "libestr0", "libfastjson4", "liblognorm5"),
    "socat": ("socat", "libwrap0"),
    "syslog-ng": (
        *("syslog-ng-core", "libivykis0", "libpcre3", "libnet1", "libglib2.0-0", "libjson-c5"),
        "libwrap0",
    ),
}
_UNPACKED_AS = {"nc": "nc.openbsd"}
_DIRECTORIES = ("usr/sbin", "usr/bin", "bin", "sbin")
_NPM = (
    *("@fluent-org/logger@1.0.10", "fluent-logger@3.4.1"),
    *("@opentelemetry/api-logs@0.223.1", "@opentelemetry/sdk-logs@0.223.1"),
    "@opentelemetry/exporter-logs-otlp-http@0.223.1",
    "@opentelemetry/exporter-logs-otlp-proto@0.223.1",
    "@opentelemetry/exporter-logs-otlp-grpc@0.223.1",
)
_TO_FETCH = "`make test-integrations` fetches what is missing"


def needs(*names: str) -> pytest.MarkDecorator:
    """Skips a test without these programs, before a daemon starts for it."""
    missing = [name for name in names if _find(name) is None]
    reason = f"not installed: {', '.join(missing)}"
    if _DEBIAN.keys() & set(missing):
        reason += f"; {_TO_FETCH}"
    return pytest.mark.skipif(bool(missing), reason=reason)


def needs_node_modules() -> pytest.MarkDecorator:
    """Skips a test without Node, or without the packages for it."""
    if not _has_node_modules():
        reason = f"the packages for Node are not there; {_TO_FETCH}"
        return pytest.mark.skipif(True, reason=reason)
    return needs("node")


def program(name: str) -> Path:
    """The program, as unpacked or as installed. The test says that it `needs` it."""
    found = _find(name)
    assert found is not None, f"{name} is not there"
    return found


def environment() -> dict[str, str]:
    """The environment in which unpacked programs find their libraries."""
    return environ(_ROOT)


def unpacked(path: str) -> Path:
    """A directory of an unpacked package, or the same one of the installed package."""
    below = _ROOT / path
    return below if below.exists() else Path("/", path)


def run_in_node() -> dict[str, str]:
    """The variable by which a program for Node finds the packages."""
    return {"NODE_PATH": str(_MODULES)}


def _find(name: str) -> Path | None:
    for directory in _DIRECTORIES:
        below = _ROOT / directory / _UNPACKED_AS.get(name, name)
        if below.exists():
            return below
    # Programs that only root runs may be in no directory of PATH.
    installed = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
    return Path(installed) if installed else None


def _fetch() -> list[str]:
    """Fetches what is missing. Returns what is still missing."""
    _ROOT.mkdir(parents=True, exist_ok=True)
    packages = {each for name in _DEBIAN if _find(name) is None for each in _DEBIAN[name]}
    if packages and os.getuid() == 0 and shutil.which("apt-get"):
        # What a new machine knows of packages is old, or nothing.
        subprocess.run(["apt-get", "update", "-qq"], check=False)
    for package in sorted(packages):
        fetch_package(package, CACHE, _ROOT)
    missing = [name for name in _DEBIAN if _find(name) is None]
    return missing if _fetch_for_node() else [*missing, *_NPM]


def _fetch_for_node() -> bool:
    npm = shutil.which("npm")
    if not _has_node_modules() and npm is not None:
        _NODE.mkdir(parents=True, exist_ok=True)
        (_NODE / "package.json").write_text("{}")
        options = ("--no-audit", "--no-fund", "--ignore-scripts")
        subprocess.run([npm, "install", *options, *_NPM], cwd=_NODE, check=False)
    return _has_node_modules()


def _has_node_modules() -> bool:
    return all((_MODULES / each.rpartition("@")[0]).exists() for each in _NPM)


if __name__ == "__main__":
    if absent := _fetch():
        # Their tests are skipped.
        print(f"could not be had: {', '.join(absent)}", file=sys.stderr)
    print(f"the programs for the tests of the recipes are in {os.path.relpath(CACHE)}")
