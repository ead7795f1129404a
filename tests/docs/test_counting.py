"""What `docs/counting.md` shows is what the commands print; its limits are the code's."""

import os
import re
import subprocess
import sys
from pathlib import Path

from logengine.aggregation.counting import FIELDS_MAX, GROUP_BYTES_MAX, GROUPS_MAX
from tests.daemon import Daemon

PAGE = (Path(__file__).parents[2] / "docs" / "counting.md").read_text()
STEPS = [
    tuple(part.partition("\n")[::2])
    for block in re.findall(r"```console\n(.*?)```", PAGE, re.DOTALL)
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]
]


def test_each_command_prints_what_the_page_says(daemon: Daemon) -> None:
    assert len(STEPS) >= 7
    for command, printed in STEPS:
        done = subprocess.run(
            ["bash", "-c", command],
            env=os.environ
            | {
                "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
                "LOGENGINE_DATA": str(daemon.data),
                "LOGENGINE_SOCKET": str(daemon.socket),
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), command
        assert done.stdout == printed, command


def test_the_page_has_the_limits() -> None:
    text = " ".join(PAGE.split())
    assert f"{GROUPS_MAX:,} different combinations" in text
    assert f"at most {GROUP_BYTES_MAX >> 20} MiB" in text
    assert FIELDS_MAX == 8
    assert "Up to eight fields" in text
