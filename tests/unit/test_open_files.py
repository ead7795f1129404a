"""How the limit of open files is shared out."""

import resource

import pytest

from logengine.daemon.config_sections import Config, ListenConfig, NetworkConfig
from logengine.daemon.open_files import allow_open_files, connections_and_guests
from logengine.errors import ConfigError
from logengine.intake.waiting_room import GUESTS_MAX

OWN = 56 + 2 * Config().commit.threads
WANTED = OWN + Config().limits.max_connections + GUESTS_MAX
INFINITE = resource.RLIM_INFINITY


class Limit:
    """The limit of open files of this process, and what it was set to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, soft: int, hard: int) -> None:
        self.limits = (soft, hard)
        self.was_set = False
        monkeypatch.setattr(resource, "getrlimit", lambda _: self.limits)
        monkeypatch.setattr(resource, "setrlimit", self._set)

    def _set(self, _: int, limits: tuple[int, int]) -> None:
        self.limits = limits
        self.was_set = True


@pytest.mark.parametrize(
    ("soft", "hard", "raised_to"),
    [
        (1024, 2**20, WANTED),
        (1024, INFINITE, WANTED),
        (1024, 2000, 2000),
        (WANTED, 2**20, None),
        (INFINITE, INFINITE, None),
    ],
)
def test_the_soft_limit_is_raised_to_what_is_needed_as_far_as_allowed(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, raised_to: int | None
) -> None:
    limit = Limit(monkeypatch, soft, hard)
    allow_open_files(Config())
    assert limit.was_set is (raised_to is not None)
    assert limit.limits == (raised_to or soft, hard)


@pytest.mark.parametrize(("soft", "hard"), [(63, 63), (10, 63)])
def test_a_limit_with_which_nobody_can_be_served_is_refused(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int
) -> None:
    Limit(monkeypatch, soft, hard)
    with pytest.raises(ConfigError, match="the limit of open files is 63; expected at least 64"):
        allow_open_files(Config())
    Limit(monkeypatch, 64, 64)
    allow_open_files(Config())


@pytest.mark.parametrize("limit", [64, 65, 100, 144, 145, 256, 1024, 4096, WANTED - 1])
def test_connections_leave_the_daemon_its_own_files(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    Limit(monkeypatch, limit, limit)
    connections, guests = connections_and_guests(Config())
    assert limit - connections - guests == min(OWN, limit // 2)
    assert connections > 2 * guests > 0


@pytest.mark.parametrize("limit", [WANTED, 2**20, INFINITE])
def test_with_enough_files_there_are_as_many_connections_as_configured(
    monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    Limit(monkeypatch, limit, limit)
    assert connections_and_guests(Config()) == (Config().limits.max_connections, GUESTS_MAX)


def test_a_connection_of_grpc_counts_for_the_two_that_it_has_inside(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = Config(listen=(ListenConfig(path="/run/a", protocol="otlp-grpc"),))
    limit = Limit(monkeypatch, 1024, INFINITE)
    allow_open_files(config)
    assert limit.limits[0] == OWN + 1 + 3 * config.limits.max_connections + GUESTS_MAX
    Limit(monkeypatch, 2000, 2000)
    connections, guests = connections_and_guests(config)
    assert OWN + 1 + 3 * connections + guests <= 2000
    assert connections > 500


@pytest.mark.parametrize("limit", [64, 100, 256, 1024, 16384])
@pytest.mark.parametrize("most", [8, 256, 4000])
def test_a_connection_with_tls_counts_for_the_two_that_it_has_inside(
    monkeypatch: pytest.MonkeyPatch, limit: int, most: int
) -> None:
    encrypted = NetworkConfig(address="127.0.0.1:6514", certificate="c", max_connections=most)
    config = Config(network=(encrypted,))
    Limit(monkeypatch, limit, limit)
    connections, guests = connections_and_guests(config)
    of_tls = 2 * (min(connections, most) + guests)
    assert connections + guests + of_tls <= limit - min(OWN + 1, limit // 2)
    assert connections > guests > 0
