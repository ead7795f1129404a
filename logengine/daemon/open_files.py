"""Shares out the limit of open files: to the daemon's own work first, the rest to senders.

Without files of its own the daemon could commit nothing, so that no sender would get its acks and
disconnect.
"""

import resource

import structlog

from logengine.daemon.config_sections import Config
from logengine.errors import ConfigError
from logengine.intake.waiting_room import GUESTS_MAX
from logengine.protocols.registry import protocols

log = structlog.get_logger()

# With fewer, even a commit may lack one: an idle daemon has 16 files open, a busy one 30.
OPEN_FILES_MIN = 64
# What the daemon keeps if there are plenty: the data directory, the event loop, the log, watches,
# accepting, compaction; and for each commit thread a directory and a file.
_OWN = 56
_OF_A_COMMIT_THREAD = 2
_CONNECTIONS_PER_GUEST = 8
# A connection that is passed on to gRPC has two more, inside of the process.
_FILES_PER_CONNECTION, _FILES_PER_GRPC_CONNECTION = 1, 3
# One with TLS has the pair of sockets for what is decrypted, also while it waits for its turn.
_FILES_OF_TLS = 2
_FOLLOWED_MAX = 8192


def allow_open_files(config: Config) -> None:
    """Raises the soft limit of open files to what `max_connections` needs, as far as allowed.

    Raises `ConfigError` if that is too few to serve anybody.
    """
    followed = _FOLLOWED_MAX if config.file else 0
    of_connections = _files_per_connection(config) * config.limits.max_connections
    wanted = (
        _own_files(config) + followed + of_connections + _of_tls(config, GUESTS_MAX) + GUESTS_MAX
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    if soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    if soft < OPEN_FILES_MIN:
        raise ConfigError(
            f"the limit of open files is {soft}; expected at least {OPEN_FILES_MIN}: raise it with "
            "`ulimit -n`, or with LimitNOFILE= in the unit"
        )


def connections_and_guests(config: Config) -> tuple[int, int]:
    """Returns how many connections, and how many waiting ones, the limit of open files permits."""
    configured = config.limits.max_connections
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return configured, GUESTS_MAX
    room = limit - min(_own_files(config), limit // 2)
    guests = min(GUESTS_MAX, room // _CONNECTIONS_PER_GUEST)
    of_one, of_tls = _files_per_connection(config), _of_tls(config, guests)
    # Either there are enough for all connections with TLS that there may be, or each may be one.
    connections = max(
        (room - guests - of_tls) // of_one,
        (room - guests - _of_tls_guests(config, guests))
        // (of_one + (_FILES_OF_TLS if of_tls else 0)),
    )
    if connections < configured:
        log.warning(
            "max_connections_lowered",
            max_connections=connections,
            configured=configured,
            reason=f"the limit of open files is {limit}",
        )
    return min(connections, configured), guests


def followed_files_max(config: Config) -> int:
    """Returns how many followed files may be open."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not config.file or limit == resource.RLIM_INFINITY:
        return _FOLLOWED_MAX
    return min(_FOLLOWED_MAX, limit // 4)


def _own_files(config: Config) -> int:
    followed = followed_files_max(config) if config.file else 0
    return (
        _OWN
        + _OF_A_COMMIT_THREAD * config.commit.threads
        + len(config.listen)
        + len(config.network)
        + followed
    )


def _files_per_connection(config: Config) -> int:
    spoken = [each.protocol for each in config.listen] + [each.protocol for each in config.network]
    served = {protocols()[name].served_by for name in spoken}
    return _FILES_PER_GRPC_CONNECTION if "grpc" in served else _FILES_PER_CONNECTION


def _of_tls(config: Config, guests: int) -> int:
    """Returns how many files all connections with TLS take, besides one for each."""
    most = sum(each.max_connections for each in config.network if each.certificate)
    return _FILES_OF_TLS * most + _of_tls_guests(config, guests)


def _of_tls_guests(config: Config, guests: int) -> int:
    return _FILES_OF_TLS * guests if any(each.certificate for each in config.network) else 0
