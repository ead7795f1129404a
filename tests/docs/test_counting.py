"""What `docs/counting.md` shows is what the commands print; its limits are the code's."""

import os
import re
import subprocess
import sys
from pathlib import Path

from logengine.aggregation import field_survey, message_patterns
from logengine.aggregation.counting import FIELDS_MAX, GROUP_BYTES_MAX, GROUPS_MAX
from logengine.exchange.querying import COLUMNS
from logengine.format.record import MESSAGE_FIELDS
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
                "COLUMNS": "100",
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
    assert f"{field_survey.FIELDS_MAX:,} fields with" in text
    assert f"with {field_survey.NAME_CHARACTERS_MAX:,} characters" in text
    assert f"{field_survey.LEVELS_MAX} levels of nesting" in text
    assert f"first {field_survey.ELEMENTS_MAX} elements" in text
    assert f"at most {field_survey.EXAMPLE_BYTES_MAX} bytes" in text
    assert f"{message_patterns.PATTERNS_MAX:,} patterns" in text
    assert f"{message_patterns.CHARACTERS_MAX:,} characters and" in text
    assert f"and {message_patterns.WORDS_MAX} words" in text
    assert all(f"`{field}`" in text for field in MESSAGE_FIELDS)
    for column in COLUMNS:
        assert f"`{column}`" in PAGE.partition("## SQL")[2]
    assert FIELDS_MAX == 8
    assert "Up to eight fields" in text
