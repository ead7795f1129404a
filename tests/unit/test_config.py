"""What the configuration may say, what it means, and what is said about the rest."""

import os
import re
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from logengine.cli.config import command
from logengine.daemon.config import load_config, parse_config, render_config
from logengine.daemon.config_sections import (
    Config,
    ListenConfig,
    LogConfig,
    StreamConfig,
    UidConfig,
)
from logengine.default_paths import default_data, default_socket
from logengine.errors import ConfigError
from logengine.intake.quota import QuotaConfig, QuotasConfig
from logengine.store.settings import CommitConfig, LimitsConfig
from logengine.units import RecordsPerSecond, Size, format_size
from logengine.upkeep.compaction_plan import FANOUT_MAX, SMALL_TIMES_LONGER, CompactionConfig

DEFAULT_FILE = Path(__file__).parents[2] / "config" / "logengine.toml"
ROOT = 0
USER = 1000


def load(
    text: str | None = None,
    tmp_path: Path | None = None,
    *,
    data: Path | None = None,
    socket: Path | None = None,
    environ: dict[str, str] | None = None,
    uid: int = ROOT,
) -> Config:
    path = None
    if text is not None:
        assert tmp_path is not None
        path = tmp_path / "logengine.toml"
        path.write_text(text)
    return load_config(path, data=data, socket=socket, environ=environ or {}, uid=uid)


def paths(config: Config) -> list[str]:
    return [listen.path for listen in config.listen]


# The defaults


def uncommented(text: str) -> str:
    """The file with every key in force."""
    return re.sub(r"^# (?=[a-z_]+ = |\[\[)", "", text, flags=re.MULTILINE)


def test_the_commented_file_says_exactly_the_defaults_of_the_code() -> None:
    config = parse_config(uncommented(DEFAULT_FILE.read_text()), "config/logengine.toml")
    assert config == load_config(None, data=None, socket=None, environ={}, uid=ROOT)


def test_the_commented_file_has_every_key_with_its_default_as_the_code_writes_it() -> None:
    said = tomllib.loads(uncommented(DEFAULT_FILE.read_text()))
    assert said == tomllib.loads(render_config(load()))


def test_the_comments_of_the_file_say_the_limits_of_the_code() -> None:
    text = DEFAULT_FILE.read_text().replace("\n# ", " ")
    compaction, limits = CompactionConfig(), LimitsConfig()
    assert f" 2 to {FANOUT_MAX}." in text
    assert f"If not set, {SMALL_TIMES_LONGER} times seal_after." in text
    assert f"less than {format_size(compaction.small_bytes)} (seal_bytes / fanout / fanout)" in text
    tiers = [*compaction.tiers[1:], compaction.seal_bytes]
    assert (
        "of {} into one of {}, and those into a sealed one of {}".format(*map(format_size, tiers))
        in text
    )
    assert 2 * limits.max_pending_stream == limits.max_pending
    assert "If not set: half of max_pending, but no more than this." in text


def test_the_commented_file_as_it_stands_changes_nothing(tmp_path: Path) -> None:
    assert load(DEFAULT_FILE.read_text(), tmp_path) == load()


def test_a_configuration_is_loaded_as_it_was_rendered() -> None:
    config = Config(
        data="/srv/lögs",
        commit=CommitConfig(threads=3),
        limits=LimitsConfig(max_producers=7),
        listen=(ListenConfig(path="/run/a"), ListenConfig(path='/run/"b"', stream="audit")),
        log=LogConfig(level="debug"),
        on_full="drop_oldest",
        quota=QuotasConfig(uid=QuotaConfig(records_per_s=RecordsPerSecond(9), over="drop")),
        stream={
            "app": StreamConfig(on_full="block"),
            "web": StreamConfig(quota=QuotaConfig(bytes_per_s=Size(5))),
        },
        uid={"0": UidConfig(quota=QuotaConfig())},
    )
    assert parse_config(render_config(config), "rendered") == config
    assert parse_config(render_config(load()), "rendered") == load()


# Where things are


def test_root_keeps_logs_and_socket_in_the_system_directories() -> None:
    config = load()
    assert config.data == "/var/log/logengine"
    assert paths(config) == ["/run/logengine/socket"]


def test_systemd_directories_come_first_and_of_several_the_first_counts() -> None:
    environ = {"LOGS_DIRECTORY": "/var/log/a:/var/log/b", "RUNTIME_DIRECTORY": "/run/a:/run/b"}
    for uid in (ROOT, USER):
        config = load(environ=environ, uid=uid)
        assert config.data == "/var/log/a"
        assert paths(config) == ["/run/a/socket"]


def test_a_user_has_them_in_the_xdg_directories() -> None:
    environ = {"XDG_STATE_HOME": "/home/u/state", "XDG_RUNTIME_DIR": "/run/user/1000"}
    config = load(environ=environ, uid=USER)
    assert config.data == "/home/u/state/logengine"
    assert paths(config) == ["/run/user/1000/logengine/socket"]


@pytest.mark.parametrize("unset", ["", "relative/is/no/xdg/directory"])
def test_a_user_without_xdg_directories_has_them_at_home_and_in_tmp(unset: str) -> None:
    environ = {"HOME": "/home/u", "XDG_STATE_HOME": unset, "XDG_RUNTIME_DIR": unset}
    assert default_data(environ, USER) == Path("/home/u/.local/state/logengine")
    assert default_socket(environ, USER) == Path("/tmp/logengine-1000/socket")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_the_runtime_directory_of_another_user_is_not_used(tmp_path: Path) -> None:
    environ = {"HOME": "/home/u", "XDG_RUNTIME_DIR": str(tmp_path)}
    os.chown(tmp_path, USER, USER)
    assert default_socket(environ, USER) == tmp_path / "logengine" / "socket"
    os.chown(tmp_path, USER + 1, USER + 1)
    assert default_socket(environ, USER) == Path("/tmp/logengine-1000/socket")


def test_the_file_overrides_the_environment_and_the_command_line_the_file(tmp_path: Path) -> None:
    environ = {"LOGS_DIRECTORY": "/var/log/environment"}
    text = 'data = "/var/log/file"'
    assert load(text, tmp_path, environ=environ).data == "/var/log/file"
    assert load(text, tmp_path, environ=environ, data=Path("/option")).data == "/option"
    assert load("", tmp_path, environ=environ).data == "/var/log/environment"


def test_relative_options_are_taken_from_the_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("logengine.daemon.config._SOCKET_PATH_BYTES_MAX", 4096)
    config = load(data=Path("data"), socket=Path("socket"))
    assert config.data == str(tmp_path / "data")
    assert paths(config) == [str(tmp_path / "socket")]


def test_the_socket_option_is_one_more_listener(tmp_path: Path) -> None:
    text = '[[listen]]\npath = "/run/file"\nstream = "app"'
    assert paths(load(text, tmp_path, socket=Path("/run/option"))) == ["/run/file", "/run/option"]


def test_the_socket_option_is_the_only_listener_where_the_file_names_none(tmp_path: Path) -> None:
    config = load("", tmp_path, socket=Path("/run/option"))
    assert config.listen == (ListenConfig(path="/run/option"),)


def test_the_socket_option_does_not_double_a_listener_of_the_file(tmp_path: Path) -> None:
    text = '[[listen]]\npath = "/run/file"\nstream = "app"'
    config = load(text, tmp_path, socket=Path("/run/../run/file"))
    assert config.listen == (ListenConfig(path="/run/file", stream="app"),)


# Values


def test_values_have_the_types_that_code_works_with(tmp_path: Path) -> None:
    config = load(
        """
        stop_timeout = "1m"
        [commit]
        linger = "250us"
        rewrite_limit = 4096
        [limits]
        max_record = "64KiB"
        [[listen]]
        path = "/run/a"
        mode = "0660"
        """,
        tmp_path,
    )
    assert config.stop_timeout == 60.0
    assert config.commit.linger == 0.00025
    assert config.commit.rewrite_limit == 4096
    assert config.limits.max_record == 65536
    assert config.listen[0].mode == 0o660


NETWORK = "[[network]]\naddress = '{}'\n"
LISTEN = '[[listen]]\npath = "/run/a"\n'
PATH_108 = "/" + "a" * 107


@pytest.mark.parametrize(
    ("text", "said"),
    [
        # Keys
        ("comit = 1", "unknown key 'comit'; did you mean 'commit'? (allowed here: data,"),
        ("[commit]\nlingr = 1", "unknown key 'commit.lingr'; did you mean 'linger'?"),
        ("[log]\nqqq = 1", "unknown key 'log.qqq' (allowed here: level, format, max_lines, "),
        (LISTEN + "port = 1", "unknown key 'listen[0].port'"),
        # Types
        ("data = 3", "data: 3; expected text, in quotes"),
        ("commit = 3", "commit: 3; expected a table"),
        ("[listen]\npath = '/a'", "listen: a table; expected an array of tables, [[listen]]"),
        ("listen = [3]", "listen[0]: 3; expected a table"),
        ("[[listen]]", "listen[0].path: missing; expected an absolute path"),
        ("[commit]\nthreads = 0", "commit.threads: 0; expected a whole number from 1 to 1000000"),
        ("[commit]\nthreads = '8'", "commit.threads: '8'; expected a whole number"),
        ("[commit]\nthreads = true", "commit.threads: True; expected a whole number"),
        ("[commit]\nlinger = 5", 'commit.linger: 5; expected a duration such as "250ms"'),
        ("[commit]\nlinger = '5 min'", "commit.linger: '5 min'; expected a duration such as"),
        ("[commit]\nmax_batch = '8M'", "commit.max_batch: '8M'; expected a size such as"),
        ("[commit]\nmax_batch = -1", "commit.max_batch: '-1'; expected a size such as"),
        (LISTEN + "mode = 438", 'listen[0].mode: 438; expected permissions such as "0660"'),
        (LISTEN + "mode = '999'", "listen[0].mode: '999'; expected permissions in octal"),
        # Choices
        ("[log]\nlevel = 'trace'", "log.level: 'trace'; expected 'debug' or 'info' or 'warning'"),
        (LISTEN + "protocol = 'morse'", "listen[0].protocol: 'morse'; expected 'ndjson'"),
        (LISTEN + "type = 'datagram'", "datagram is not for it"),
        # What does not go together
        ("data = 'here'", "data: 'here'; expected an absolute path"),
        ("data = ''", "data: ''; expected an absolute path, or omit the key"),
        ('data = "/a\\u0000"', "data: '/a\\x00'; expected an absolute path without NUL"),
        ("[[listen]]\npath = 'here'", "listen[0].path: 'here'; expected an absolute path"),
        (f"[[listen]]\npath = '{PATH_108}'", "expected at most 107 bytes"),
        (LISTEN + LISTEN, "listen[1].path: '/run/a'; expected a path that no other listener has"),
        (LISTEN + "[[listen]]\npath = '//run/./a'", "listen[1].path: '//run/./a'; expected a path"),
        (LISTEN + "stream = '../etc'", "listen[0].stream: '../etc'; expected [a-z0-9]["),
        (LISTEN + "on_pressure = 'drop'", "listen[0].on_pressure: 'drop'; expected 'block' for"),
        (LISTEN + "on_pressure = 'wait'", "listen[0].on_pressure: 'wait'; expected 'block' or"),
        (LISTEN + "fallback = '{app}'", "listen[0].fallback: '{app}'; expected [a-z0-9]["),
        (LISTEN + "stream = '{app}'", "(a sender of ndjson names another one itself)"),
        (LISTEN + "protocol = 'lines'\nstream = '{app'", "listen[0].stream: '{app'; expected ["),
        (LISTEN + "protocol = 'forward'\nstream = '{unit}'", "so not _unit, _user_unit)"),
        (NETWORK.format("localhost:514"), "'localhost:514'; expected an address and a port"),
        (NETWORK.format("[::1]:1") * 2, "expected an address that no other [[network]] has"),
        (NETWORK.format("[::1]:1") + "protocol = 'ndjson'", "'ndjson'; expected 'syslog'"),
        (NETWORK.format("[::1]:1") + "key = '/k'", "a certificate and a key, or neither"),
        (NETWORK.format("[::1]:1") + "client_ca = '/k'", "a certificate and a key, or neither"),
        (NETWORK.format("[::1]:1") + "key = 'k'", "network[0].key: 'k'; expected an absolute"),
        (NETWORK.format("[::1]:1") + "idle_timeout = '0s'", "expected more than 0ms"),
        (
            NETWORK.format("[::1]:1") + "type='datagram'\nkey='/k'\ncertificate='/c'",
            "expected none for datagrams: TLS needs a connection",
        ),
        ("[[network]]", "network[0].address: missing; expected an address and a port"),
        ("[[route]]\nstream = 'a'", "route[0].where: missing; expected an expression"),
        ("[[route]]\nwhere = 'a ='\nstream = 'a'", "route[0].where: 'a ='; expected an expr"),
        ("[[route]]\nwhere = 'a=1'\nstream = 'A'", "route[0].stream: 'A'; expected [a-z0-9]["),
        ("[[route]]\nwhere='a=1'\nstream='{a[}'", "route[0].stream: '{a[}'; expected [a-z0-9]["),
        ("[[route]]\nwhere = 'a=1'\nstream = 'a'\npath = '/no'", "expected the path of a [["),
        ("[route]\nwhere = 'a=1'", "route: a table; expected an array of tables, [[route]]"),
        (
            "[limits]\nmax_record = '32MiB'",
            "limits.max_pending: 64MiB; expected at least 128MiB (4 times limits.max_record)",
        ),
        (
            "[limits]\nmax_pending = '8MiB'\nmax_pending_stream = '16MiB'",
            "limits.max_pending_stream: 16MiB; expected at most 8MiB (limits.max_pending)",
        ),
        (
            "[limits]\nmax_pending_stream = '1KiB'",
            "limits.max_pending_stream: 1KiB; expected at least 1MiB (limits.max_record)",
        ),
        ("[limits]\nmax_record = 0", "limits.max_record: 0B; expected at least 64B"),
        ("[limits]\nstall_timeout = '0s'", "limits.stall_timeout: 0ms; expected more than 0ms"),
        ("stop_timeout = '0s'", "stop_timeout: 0ms; expected more than 0ms"),
        ("[commit]\nretry_min = '0s'", "commit.retry_min: 0ms; expected more than 0ms"),
        (
            "[commit]\nretry_min = '6s'",
            "commit.retry_min: 6s; expected at most 5s (commit.retry_max)",
        ),
        # Streams and users
        ("on_full = 'drop'", "on_full: 'drop'; expected 'block' or 'drop_oldest'"),
        ("[stream.app]\non_full = 'x'", "stream.app.on_full: 'x'; expected 'block' or"),
        ("[stream.app]\nonfull = 'x'", "unknown key 'stream.app.onfull'; did you mean 'on_full'"),
        ("[stream]\napp = 1", "stream.app: 1; expected a table"),
        ("stream = 1", "stream: 1; expected a table"),
        ("[stream.App]", "stream.App: not a stream's name; expected [a-z0-9]["),
        (
            "[uid.ann]\n[uid.ann.quota]",
            "uid.ann: not a user's number; expected a number, as in [uid.1000",
        ),
        ("[uid.5000000000.quota]", "uid.5000000000: not a user's number; expected"),
        ("[uid.1000.quota]\nover = 'x'", "uid.1000.quota.over: 'x'; expected 'block' or 'drop'"),
        ("[uid.1000.quota]\nburts = '1s'", "unknown key 'uid.1000.quota.burts'; did you mean"),
        (
            "[stream.app.quota]\nrecords_per_s = -1",
            "stream.app.quota.records_per_s: '-1'; expected a whole number from 0 to",
        ),
        (
            "[quota.uid]\nrecords_per_s = 'many'",
            "quota.uid.records_per_s: 'many'; expected a whole number from 0 to",
        ),
        (
            "[quota.uid]\nrecords_per_s = 1.5",
            "quota.uid.records_per_s: 1.5; expected a whole number of records, 0 for no limit",
        ),
        ("[quota.stream]\nburst = '0s'", "quota.stream.burst: 0ms; expected more than 0ms"),
        ("[uid.0.quota]\nburst = '0s'", "uid.0.quota.burst: 0ms; expected more than 0ms"),
        ("[log]\nreport_every = '0s'", "log.report_every: 0ms; expected more than 0ms"),
        ("[log]\nmax_waiting = 5", "log.max_waiting: 5B; expected at least 4KiB"),
        ("[log]\nmax_lines = 0", "log.max_lines: "),
        ("[quota]\nreport_every = '0s'", "quota.report_every: 0ms; expected more than 0ms"),
        ("[compaction]\nseal_key = 'seal.key'", "compaction.seal_key: 'seal.key'; expected an abs"),
        ("[compaction]\nfanout = 32", "compaction.fanout"),
        ("[compaction]\nseal_after = '0s'", "compaction.seal_after: 0ms; expected more than 0ms"),
        ("[retention]\nkeep_free = '100%'", "retention.keep_free: '100%'; expected a size such as"),
        ("[quota]\nkeep_free = 'most'", "quota.keep_free: 'most'; expected a size such as"),
        ("[retention]\nmax_age = 30", "retention.max_age: 30; expected a duration such as"),
        (
            "[retention]\nmax_age = '30d'\n[compaction]\nenabled = false",
            "compaction.enabled: false; expected true if there is a [retention]",
        ),
        ("[stream.app]\nretain = 5", "unknown key 'stream.app.retain'"),
        ("[stream.app.retention]\nmin_age = 5", "unknown key 'stream.app.retention.min_age'"),
        (
            "[stream.app.retention]\nmax_age = 5",
            "stream.app.retention.max_age: 5; expected a duration such as",
        ),
        (
            "[[listen]]\nprotocol = 'otlp'",
            "listen[0].path: missing; expected an absolute path without NUL; or an address",
        ),
        (
            "[[listen]]\nprotocol = 'otlp'\naddress = 'localhost:4318'",
            "listen[0].address: 'localhost:4318'; expected an IP address and a port, such as",
        ),
        (
            "[[listen]]\nprotocol = 'otlp'\naddress = '127.0.0.1:65536'",
            "listen[0].address: '127.0.0.1:65536'; expected an IP address and a port",
        ),
        (
            "[[listen]]\naddress = '127.0.0.1:4318'",
            "listen[0].address: '127.0.0.1:4318'; expected a path: only otlp and otlp-grpc may",
        ),
        (
            LISTEN + "address = '127.0.0.1:4318'\nprotocol = 'otlp'",
            "listen[0].address: '127.0.0.1:4318'; expected none besides a path",
        ),
        (
            ("[[listen]]\nprotocol = 'otlp'\naddress = '[::1]:4318'\n" * 2),
            "listen[1].address: '[::1]:4318'; expected an address that no other listener has",
        ),
        (
            "[limits]\nmax_request = '17MiB'",
            "limits.max_request: 17MiB; expected at most 16MiB (a quarter of limits.max_pending)",
        ),
        # TOML
        ("a = 1\nb = ?\n", "not TOML: Invalid value (at line 2, column 5)"),
        ("a = " + "1" * 5000, "not TOML: "),
        ("a = " + "[" * 3000, "not TOML: "),
    ],
)
def test_an_error_is_one_line_with_file_key_what_was_found_and_what_is_allowed(
    text: str, said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(text, "logengine.toml")
    assert str(error.value).startswith("logengine.toml: ")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path = 'app.log'", "file[0].path: 'app.log'; expected an absolute path"),
        ("path = '/srv/x/app.log'", "file[0].path: '/srv/x/app.log'; expected a path outside"),
        ("path = '/l/*'\nstream = 'A'", "file[0].stream: 'A'; expected [a-z0-9]"),
        ("path = '/l/*'\nstart = '('", "file[0].start: '('; expected a regular expression"),
        ("path = '/l/*'\nwait = '0ms'", "file[0].wait: 0ms; expected more than 0ms"),
        ("path = '/l/*'\nmax_line = '1B'", "file[0].max_line: 1B; expected 64B to 32MiB"),
        ("path = '/l/*'\nformat = 'xml'", "file[0].format: 'xml'; expected 'auto' or"),
        ("paths = '/l/*'", "unknown key 'file[0].paths'; did you mean 'path'?"),
        ("stream = 'a'", "file[0].path: missing"),
    ],
)
def test_a_wrong_key_of_a_followed_file_is_named(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(f"data = '/srv/x'\n[[file]]\n{text}\n", "logengine.toml")
    assert said in str(error.value)


def test_a_stream_has_a_retention_of_its_own() -> None:
    text = (
        "data = '/srv'\n[retention]\nkeep_free = '5%'\n[stream.audit.retention]\nmax_age = '1w'\n"
    )
    config = parse_config(text, "file")
    assert config.stream["audit"].retention
    assert float(config.stream["audit"].retention.max_age) == 7 * 24 * 3600
    assert parse_config(render_config(config), "rendered") == config


def test_a_socket_path_as_long_as_the_kernel_takes_is_allowed() -> None:
    assert parse_config(f"[[listen]]\npath = '{PATH_108[:-1]}'", "file").listen


def test_a_file_that_cannot_be_read_is_named_with_the_reason(tmp_path: Path) -> None:
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff")
    for path, reason in [
        (tmp_path / "missing", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (binary, "not UTF-8"),
    ]:
        with pytest.raises(ConfigError, match=f"{re.escape(str(path))}: .*{reason}"):
            load_config(path, data=None, socket=None, environ={}, uid=ROOT)


# The command


def run(*arguments: str) -> Result:
    return CliRunner().invoke(
        command, arguments, env={"LOGENGINE_DATA": "", "LOGENGINE_SOCKET": ""}
    )


def test_check_says_ok_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "logengine.toml"
    path.write_text('data = "/srv/logs"')
    result = run("check", str(path))
    assert (result.exit_code, result.output) == (0, f"{path}: ok\n")


def test_check_raises_what_is_wrong(tmp_path: Path) -> None:
    path = tmp_path / "logengine.toml"
    path.write_text("threads = 8")
    result = run("check", str(path))
    assert result.exit_code == 1
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith(f"{path}: unknown key 'threads'")


def test_check_takes_the_systems_file_and_without_one_the_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "logengine.toml"
    monkeypatch.setattr("logengine.cli.config.SYSTEM_CONFIG", path)
    assert run("check").output == "built-in defaults: ok\n"
    path.write_text("")
    assert run("check").output == f"{path}: ok\n"


def test_show_prints_toml_of_what_is_in_force_and_where_it_is_from(tmp_path: Path) -> None:
    path = tmp_path / "logengine.toml"
    path.write_text("[commit]\nthreads = 3")
    result = run("show", "--config", str(path), "--data", "/srv/logs", "--socket", "/run/s")
    assert result.exit_code == 0, result.output
    assert result.output.startswith(f"# From {path}, --data, --socket, defaults\n")
    config = parse_config(result.output, "shown")
    assert (config.data, paths(config), config.commit.threads) == ("/srv/logs", ["/run/s"], 3)


@pytest.mark.parametrize(("said", "small_s"), [("", 86_400), ("seal_after = '2s'", 48)])
def test_small_streams_wait_longer_to_be_sealed_unless_told_otherwise(
    said: str, small_s: float
) -> None:
    config = parse_config(f"[compaction]\n{said}", "f")
    assert config.compaction.seal_small_after == small_s
    config = parse_config(f"[compaction]\n{said}\nseal_small_after = '5s'", "f")
    assert config.compaction.seal_small_after == 5.0


@pytest.mark.parametrize(("said", "share"), [("8MiB", 4), ("64MiB", 32), ("1GiB", 32)])
def test_a_stream_may_take_half_of_the_memory_unless_told_otherwise(said: str, share: int) -> None:
    config = parse_config(f"[limits]\nmax_pending = '{said}'", "f")
    assert config.limits.max_pending_stream == share * 1024 * 1024


def test_a_protocol_whose_packages_are_missing_is_refused_in_one_line() -> None:
    for missing in ("aiohttp", "opentelemetry"):
        with (
            without_package(missing),
            pytest.raises(ConfigError) as error,
        ):
            parse_config(LISTEN + "protocol = 'otlp'", "file")
        assert str(error.value) == (
            "file: listen[0].protocol: 'otlp'; expected another one, or its packages: "
            "pip install 'logengine[otlp]'"
        )


@contextmanager
def without_package(name: str) -> Iterator[None]:
    """Nothing below `name` can be found, as if it were not installed."""

    class Finder:
        @staticmethod
        def find_spec(found: str, *_: object) -> None:
            if found == name:
                raise ModuleNotFoundError(found)

    loaded = {each: sys.modules.pop(each) for each in list(sys.modules) if within(each, name)}
    sys.meta_path.insert(0, Finder)
    try:
        yield
    finally:
        sys.meta_path.remove(Finder)
        sys.modules.update(loaded)


def within(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")
