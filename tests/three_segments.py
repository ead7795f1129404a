"""A stream of three segments for tests of what changes stored ones."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from tests.compressed import compress_file
from tests.daemon import Daemon

_CONFIG = "[commit]\nrewrite_limit = 300\n"


def store_three_segments(root: Path, lines: Iterable[bytes]) -> Path:
    """The data directory of stream `app` with nine `lines`; the first segment is compressed."""
    daemon = Daemon(root, _CONFIG)
    daemon.start()
    try:
        for line in lines:
            daemon.cli("send", "-s", "app", stdin=line)
        assert daemon.stop() == 0
    finally:
        daemon.close()
    first, _, _ = sorted((daemon.data / "app").glob("[0-9]*"))
    compress_file(first)
    return daemon.data


def stopped_daemon(root: Path, data: Path) -> Daemon:
    """A stopped daemon with a copy of `data`."""
    daemon = Daemon(root, _CONFIG)
    shutil.copytree(data, daemon.data)
    return daemon
