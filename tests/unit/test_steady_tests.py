"""No test depends on how busy the machine is. Finds those of which the code shows that they do."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
PATIENT_S = 60
# These make load, or are programs; nothing is asserted once a pause is over.
MAY_SLEEP = (
    *("crash/", "simulation/", "conformance/", "systemd/test_systemd.py"),
    *("docs/screenshots.py", "web/screenshot.py", "daemon.py"),
    "e2e/test_otlp_http.py",
)
MAY_BE_IMPATIENT = {
    "crash/test_file_systems.py": "what is not taken for a second is not taken",
    "e2e/test_otlp_grpc.py": "a client of its own, which tries again",
    "server/test_server.py": "the end of a test, which may be without success",
}
WAITS = {"wait", "join", "settimeout", "timeout"}


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    """The calls, each with the dotted name of what is called, as far as it has one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, ast.unparse(node.func)


def seconds(call: ast.Call, name: str) -> Iterator[float]:
    """The limits of time that are written out in a call of something that waits."""
    given = [each.value for each in call.keywords if each.arg == "timeout"]
    if name.rpartition(".")[2] in WAITS and "." in name and len(call.args) == 1:
        given += call.args
    for each in given:
        if isinstance(each, ast.Constant) and isinstance(each.value, int | float):
            yield each.value


def found(path: Path) -> Iterator[str]:
    name = str(path.relative_to(TESTS))
    for call, called in calls(ast.parse(path.read_bytes())):
        where = f"tests/{name}:{call.lineno}"
        if called == "time.sleep" and not name.startswith(MAY_SLEEP):
            yield f"{where} sleeps: wait for a condition, with `eventually`"
        if called == "next" and ".iterdir()" in ast.unparse(call.args[0]):
            yield f"{where} takes any file of a directory: use `Daemon.segments`"
        # What is shorter than a second is a step between two looks, or is to be over.
        if name not in MAY_BE_IMPATIENT and any(1 <= s < PATIENT_S for s in seconds(call, called)):
            yield f"{where} has less than {PATIENT_S} s of patience: use `PATIENCE_S`"


def test_no_test_sleeps_or_is_impatient() -> None:
    assert [each for path in sorted(TESTS.rglob("*.py")) for each in found(path)] == []


@pytest.mark.parametrize(
    "code",
    [
        "time.sleep(0.1)",
        "process.wait(20)",
        "subprocess.run(command, timeout=5)",
        "asyncio.timeout(2)",
        "next(daemon.data.joinpath('app').iterdir())",
    ],
)
def test_it_finds_what_depends_on_the_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    monkeypatch.setattr(f"{__name__}.TESTS", tmp_path)
    path = tmp_path / "test_one.py"
    path.write_text(code)
    assert len(list(found(path))) == 1
