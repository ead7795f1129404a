"""The recipes of the page for commands, C and Python run, and store what it shows."""

import subprocess
import sys

from tests.daemon import eventually
from tests.integrations.conftest import Host
from tests.integrations.programs import needs, program
from tests.namespaces import run_with


@needs("logger")
def test_logger(host: Host) -> None:
    shown = host.recipe("logger")
    host.run("bash", "-ec", shown.code("sh"))
    host.has("syslog", shown)


@needs("socat", "nc")
def test_socat_and_nc(host: Host) -> None:
    shown = host.recipe("socat and nc")
    directory = host.root / "bin"
    directory.mkdir()
    for name in ("socat", "nc"):
        (directory / name).symlink_to(program(name))
    host.run("bash", "-ec", f"PATH={directory}:$PATH; {shown.code('sh')}")
    host.has("text", shown)


@needs("systemd-cat")
def test_systemd_cat(host: Host) -> None:
    shown = host.recipe("systemd-cat")
    run_with(host.sockets / "journal", "/run/systemd/journal", "sh", "-c", shown.code("sh"))
    host.has("output", shown)


@needs("gcc")
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


def test_fluent_logger_of_python_sends_later_what_it_could_not_send(host: Host) -> None:
    made = host.recipe("fluent-logger (Python)").code("python").partition("if not")[0]
    code = (
        f"{made}\nfor line in sys.stdin:\n    print(sender.emit(None, {{'n': line}}), flush=True)"
    )
    path = host.write("shop.py", "import sys\n" + code)
    with subprocess.Popen(
        [sys.executable, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None

        def emit(text: str) -> str:
            print(text, file=process.stdin, flush=True)
            return process.stdout.readline().strip() if process.stdout else ""

        assert emit("before") == "True"
        eventually(lambda: host.daemon.values("fluent"))
        host.daemon.kill()
        assert emit("meanwhile") == "False"
        host.start()
        assert emit("after") == "True"
        process.stdin.close()
    eventually(lambda: len(host.daemon.values("fluent")) >= 3)
    sent = [value["n"].strip() for value in host.daemon.values("fluent")]
    assert sent == ["before", "meanwhile", "after"]


def test_opentelemetry_of_python(host: Host) -> None:
    shown = host.recipe("OpenTelemetry (Python)")
    host.run(sys.executable, host.write("shop.py", shown.code("python")))
    host.has("otel", shown)


@needs("curl")
def test_curl_of_otlp(host: Host) -> None:
    shown = host.recipe("OTLP with curl")
    assert host.run("bash", "-ec", shown.code("sh")) == "{}"
    host.has("otel", shown)


@needs("logger")
def test_logger_cuts_what_is_longer_than_its_size(host: Host) -> None:
    send = ["logger", "--socket", str(host.sockets / "log"), "--tag", "a"]
    host.run(*send, "x" * 3000)
    host.run("bash", "-c", f"printf %s {'y' * 3000} | {' '.join(send)}")
    host.run(*send, "--size", "64KiB", "z" * 3000)
    eventually(lambda: len(host.daemon.values("syslog")) == 5)
    sizes = [len(value["message"]) for value in host.daemon.values("syslog")]
    assert sizes[0] == 1024
    assert (sum(sizes[1:4]), sizes[4]) == (3000, 3000)


def test_the_handler_of_pythons_logging_goes_on_after_a_restart_of_the_daemon(host: Host) -> None:
    code = host.recipe("syslog of Python's logging").code("python").partition("logging.info")[0]
    code += "import sys\nfor line in sys.stdin:\n    logging.info(line)\n    print(flush=True)"
    with subprocess.Popen(
        [sys.executable, host.write("shop.py", code)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for text in ("before", "meanwhile", "after"):
            if text == "meanwhile":
                eventually(lambda: host.daemon.values("syslog"))
                host.daemon.kill()
            print(text, file=process.stdin, flush=True)
            process.stdout.readline()
            if text == "meanwhile":
                host.start()
        process.stdin.close()
        said = process.stderr.read()
    eventually(lambda: len(host.daemon.values("syslog")) >= 2)
    assert [value["message"].strip() for value in host.daemon.values("syslog")] == [
        "before",
        "after",
    ]
    assert "ConnectionRefusedError" in said
