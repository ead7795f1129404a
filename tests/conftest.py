"""What all tests share."""

import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.daemon import COMMANDS, Daemon

# Machines differ in speed, and no test is to depend on it. `make test` tries the same examples each
# time, so that it fails by a change and not by chance; `make crash` looks for new ones.
settings.register_profile("search", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("same", settings.get_profile("search"), derandomize=True)
settings.load_profile("same")


# Whoever runs the tests in the background, or under nohup, has these ignored, and so would all
# that a test starts. What has a handler here has none there.
for _each in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
    if signal.getsignal(_each) is signal.SIG_IGN:
        signal.signal(_each, lambda *_: None)


# Each of the thousands of processes that tests start would compile the engine again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# What a sync keeps is shown by tests/crash, on file systems of its own and by a model. Elsewhere a
# real sync only takes time. Whoever sets TMPDIR decides. Workers of xdist inherit both variables.
_MEMORY = "/dev/shm"
_ROOM_BYTES = 1 << 30
_DISK = os.environ.setdefault("LOGENGINE_TESTS_DISK", tempfile.gettempdir())
if (
    "TMPDIR" not in os.environ
    and os.access(_MEMORY, os.W_OK)
    and shutil.disk_usage(_MEMORY).free >= _ROOM_BYTES
):
    os.environ["TMPDIR"] = tempfile.tempdir = _MEMORY
COMMANDS.environ = dict(os.environ)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Half as many workers again as processors: tests also wait for daemons and their timers."""
    processors = len(os.sched_getaffinity(0))
    return processors + (processors + 1) // 2


@pytest.fixture(autouse=True, scope="session")
def _state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What `--resume` keeps is kept out of the home of whoever runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOGENGINE_STATE", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def disk_root() -> Iterator[Path]:
    """Like `root`, but never in memory."""
    with tempfile.TemporaryDirectory(prefix="le-", dir=_DISK) as name:
        yield Path(name)


@pytest.fixture
def root(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A short path: the name of a Unix socket has at most 107 bytes.

    In memory, if there is room, unless the test is marked `disk`.
    """
    if request.node.get_closest_marker("disk"):
        yield request.getfixturevalue("disk_root")
        return
    with tempfile.TemporaryDirectory(prefix="le-") as name:
        yield Path(name)


@pytest.fixture
def daemon(root: Path) -> Iterator[Daemon]:
    daemon = Daemon(root)
    try:
        yield daemon.start()
    finally:
        daemon.close()


@pytest.fixture
def make_daemon(root: Path) -> Iterator[Callable[[str], Daemon]]:
    """A daemon with a configuration of its own."""
    made: list[Daemon] = []

    def make(config: str) -> Daemon:
        made.append(Daemon(root, config).start())
        return made[-1]

    yield make
    for daemon in made:
        daemon.close()
