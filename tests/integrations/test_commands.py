"""The recipes of the page for commands, C, Python and Node run, and store what it shows."""

import sys

from tests.integrations.conftest import Host
from tests.integrations.programs import node_modules, program
from tests.namespaces import run_with


def test_logger(host: Host) -> None:
    program("logger")
    shown = host.recipe("logger")
    host.run("bash", "-ec", shown.code("sh"))
    host.has("syslog", shown)


def test_socat_and_nc(host: Host) -> None:
    shown = host.recipe("socat and nc")
    directory = host.root / "bin"
    directory.mkdir()
    for name in ("socat", "nc"):
        (directory / name).symlink_to(program(name))
    host.run("bash", "-ec", f"PATH={directory}:$PATH; {shown.code('sh')}")
    host.has("text", shown)


def test_systemd_cat(host: Host) -> None:
    program("systemd-cat")
    shown = host.recipe("systemd-cat")
    run_with(host.sockets / "journal", "/run/systemd/journal", "sh", "-c", shown.code("sh"))
    host.has("output", shown)


def test_syslog_of_c(host: Host) -> None:
    compiler = program("gcc")
    shown = host.recipe("syslog(3)")
    # Where it is found although there is another /dev.
    host.run(compiler, "-o", host.sockets / "billing", host.write("billing.c", shown.code("c")))
    pid, _ = run_with(host.sockets / "log", "/dev/log", "/mnt/billing")
    host.has("syslog", shown)
    assert [record["procid"] for record in host.daemon.records("syslog")] == [str(pid)]


def test_syslog_of_pythons_logging(host: Host) -> None:
    shown = host.recipe("syslog of Python's logging")
    host.run(sys.executable, "-W", "error", host.write("shop.py", shown.code("python")))
    host.has("syslog", shown)


def test_logging_journald(host: Host) -> None:
    shown = host.recipe("logging-journald")
    host.run(sys.executable, host.write("shop.py", shown.code("python")))
    host.has("journal", shown)


def test_fluent_logger_of_python(host: Host) -> None:
    shown = host.recipe("fluent-logger (Python)")
    assert host.run(sys.executable, host.write("shop.py", shown.code("python"))) == ""
    host.has("fluent", shown)


def test_fluent_org_logger_of_node(host: Host) -> None:
    shown = host.recipe("@fluent-org/logger (Node)")
    host.run(
        program("node"), host.write("shop.js", shown.code("js")), NODE_PATH=str(node_modules())
    )
    host.has("fluent", shown)


def test_fluent_logger_of_node(host: Host) -> None:
    shown = host.recipe("fluent-logger (Node)")
    host.run(
        program("node"), host.write("shop.js", shown.code("js")), NODE_PATH=str(node_modules())
    )
    host.has("fluent", shown)
