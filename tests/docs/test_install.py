"""What `make install`, which runs as root, installs and executes."""

import re
import subprocess
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

from logengine.cli.man_pages import manual_pages

PROJECT = Path(__file__).parents[2]
PAGES = [*manual_pages("2026-11-28"), "man5/logengine.toml.5"]
LOCKS = sorted(PROJECT.glob("requirements*.lock"))


def commands_of(target: str) -> list[str]:
    """The commands of a target, each on one line."""
    printed = subprocess.run(
        ["make", "--dry-run", "--always-make", target, "DESTDIR=/nowhere"],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.replace("\\\n", " ")
    return [" ".join(part.split()) for line in printed.splitlines() for part in line.split(";")]


@pytest.mark.parametrize("target", ["install", "lint"])
def test_nothing_is_installed_that_is_not_in_a_lock(target: str) -> None:
    of_pip = [each for each in commands_of(target) if re.search(r"-m pip (install|wheel)", each)]
    locked = [each for each in of_pip if "-r requirements" in each]
    own = [each for each in of_pip if each not in locked]
    assert len(locked) >= 2
    assert len(own) >= 1
    for each in locked:
        assert "--require-hashes --only-binary :all:" in each
    for each in own:
        assert "--no-index" in each
        assert "--no-deps" in each
        assert "--no-build-isolation" in each or ".whl" in each


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.name))
def test_every_line_of_a_lock_has_a_version_and_hashes(lock: Path) -> None:
    text = re.sub(r"^\s*#.*\n", "", lock.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip()]
    assert lines
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==\S+( ;.*?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", line)


def test_the_build_backend_is_locked() -> None:
    needed = tomllib.loads((PROJECT / "pyproject.toml").read_text())["build-system"]["requires"]
    lock = (PROJECT / "requirements-build.lock").read_text()
    for name in needed:
        assert re.search(rf"^{re.escape(name)}==", lock, re.MULTILINE)


def test_uninstall_removes_each_file_that_install_creates_except_the_configuration() -> None:
    installed = [each.split() for each in commands_of("install") if "install -m 644" in each]
    removed = {path for each in commands_of("uninstall") for path in each.split()}
    assert len(installed) >= 3
    for command in installed:
        *sources, target = command[command.index("644") + 1 :]
        for source in sources:
            path = target if "." in Path(target).name else f"{target}/{Path(source).name}"
            if not path.endswith("logengine.toml"):
                assert path in removed, path


def test_uninstall_removes_what_install_generates() -> None:
    generated = [each for each in commands_of("install") if " -m logengine" in each]
    removed = [path for each in commands_of("uninstall") for path in each.split()]
    # The installed package makes it, and not the one in the directory above the Makefile.
    assert all("/bin/python -P -m logengine" in each for each in generated)
    scripts = [each.partition(">")[2] for each in generated if " completion " in each]
    assert len(scripts) == 3
    assert set(scripts) <= set(removed)
    (pages,) = [each.split()[-1] for each in generated if "man_pages" in each]
    for name in PAGES:
        assert any(fnmatch(f"{pages}/{name}", pattern) for pattern in removed), name
