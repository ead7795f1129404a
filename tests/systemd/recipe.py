"""What a page of `docs/` says to write and to run on a machine with systemd."""

import re
from typing import Any

from tests.daemon import eventually
from tests.systemd.machine import PROJECT, Machine

CONFIG = "/etc/logengine/logengine.toml"


class Recipe:
    """The files and commands of a page, and the blocks of a unit that belong to no file."""

    def __init__(self, page: str) -> None:
        self.page = (PROJECT / "docs" / page).read_text()
        self.files: dict[str, str] = dict(
            re.findall(
                r"^`(/etc/[^`]+)`[^\n]*:\n\n```\w+\n(.*?)```", self.page, re.DOTALL | re.MULTILINE
            )
        )
        self.commands = re.findall(r"^    (systemctl .*?)(?: *#.*)?$", self.page, re.MULTILINE)

    def blocks(self, after: str) -> list[str]:
        """The blocks of units after the heading `after`."""
        rest = self.page[self.page.index(after) :]
        return re.findall(r"^```ini\n(.*?)```", rest, re.DOTALL | re.MULTILINE)

    def install(self, machine: Machine, changed: dict[str, str] | None = None) -> None:
        """Writes the files, with those that are `changed`, and runs the commands."""
        for path, content in (self.files | (changed or {})).items():
            machine.run("mkdir", "-p", path.rpartition("/")[0])
            machine.run("tee", path, stdin=content)
        for command in self.commands:
            machine.run(*command.split())


def stored(machine: Machine, stream: str, message: str) -> dict[str, Any]:
    """The record with this message, once it is there."""

    def found() -> list[dict[str, Any]]:
        if machine.run("test", "-d", f"/var/log/logengine/{stream}", check=False).returncode:
            return []
        return [each for each in machine.records(stream) if each.get("message") == message]

    (record,) = eventually(found, message)
    assert isinstance(record, dict)
    return record
