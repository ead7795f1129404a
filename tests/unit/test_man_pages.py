"""Manual pages say what the help says, in roff that no program complains about."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from logengine.cli import _COMMANDS, cli
from logengine.cli.man_pages import configuration_page, escape, manual_pages
from logengine.daemon.config import parse_config

CONFIG = Path(__file__).parents[2] / "config" / "logengine.toml"
PAGES = manual_pages("2026-11-28") | {
    "man5/logengine.toml.5": configuration_page(CONFIG.read_text(), "2026-11-28")
}
# What a page consists of, apart from text; `\&` and `\e` keep text from being one of these.
REQUEST = re.compile(r"\.(TH|SH|SS|PP|TP|TQ|B|RS|RE|nf|fi)( .*)?")
ESCAPE = re.compile(r"\\(?:[&e-]|\((?:aq|ga|ha|ti)|f[BIR])")


def plain(page: str) -> str:
    """The text of a page, on one line."""
    names = {"\\e": "\\", "\\-": "-", "\\(aq": "'", "\\(ga": "`", "\\(ha": "^", "\\(ti": "~"}
    text = ESCAPE.sub(lambda found: names.get(found[0], ""), page)
    return " ".join(text.split())


def test_each_command_has_a_page_and_the_program_names_them_all() -> None:
    assert set(PAGES) == {
        "man1/logengine.1",
        "man5/logengine.toml.5",
        *(f"man1/logengine-{name}.1" for name in _COMMANDS),
    }
    for name, summary in _COMMANDS.items():
        assert f"logengine-{name}(1) {summary}" in plain(PAGES["man1/logengine.1"])
        assert f".SH NAME logengine-{name} - {summary} .SH" in plain(
            PAGES[f"man1/logengine-{name}.1"]
        )


@pytest.mark.parametrize("name", _COMMANDS)
def test_a_page_has_the_whole_help_of_its_command(name: str) -> None:
    root = click.Context(cli, info_name="logengine", **cli.context_settings)
    command = cli.get_command(root, name)
    assert command is not None
    page = plain(PAGES[f"man1/logengine-{name}.1"])
    for parameter in command.get_params(click.Context(command, root, name)):
        for option in parameter.opts if isinstance(parameter, click.Option) else ():
            assert re.search(rf"(?<!\S){option}(?![\w-])", page), option
        text = getattr(parameter, "help", None)
        assert " ".join((text or "").split()).replace("…", "...") in page
    for block in (command.help or "").split("\n\n"):
        assert " ".join(block.strip("\b\n").split()).replace(" .", " .") in page
    for line in (command.epilog or "").replace("\b", "").split("\n"):
        heading = f'.SH "{line.removesuffix(":").upper()}"'
        assert heading in page or " ".join(line.split()).replace("…", "...") in page


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_roff_in_which_no_text_is_a_request(page: str) -> None:
    for line in PAGES[page].splitlines():
        if line.startswith("."):
            assert REQUEST.fullmatch(line), line
        assert not line.startswith("'")
        assert "\\" not in ESCAPE.sub("", line), line
        assert "\x08" not in line


@pytest.mark.parametrize(
    "command",
    [["mandoc", "-T", "lint", "-W", "warning"], ["groff", "-man", "-ww", "-T", "utf8", "-z"]],
    ids=lambda command: str(command[0]),
)
def test_no_program_complains_about_a_page(command: list[str], tmp_path: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"there is no {command[0]} here")
    for name, text in PAGES.items():
        path = tmp_path / Path(name).name
        path.write_text(text)
        done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), name


def test_text_is_printed_as_it_is() -> None:
    assert escape("it's `a\\b` ^~-x") == "it\\(aqs \\(gaa\\eb\\(ga \\(ha\\(ti\\-x"


def test_the_page_of_the_configuration_has_each_key_with_its_comment() -> None:
    page = PAGES["man5/logengine.toml.5"]
    keys = re.findall(r"^# ([a-z_]+ = .*?)(?:  +#.*)?$", CONFIG.read_text(), re.MULTILINE)
    assert len(keys) > 50
    for key in keys:
        name, _, value = key.partition(" = ")
        assert f"\\fB{escape(name)}\\fR = {escape(value)}\n" in page, key
    parse_config(CONFIG.read_text(), "logengine.toml")
    for said in re.findall(r"^# ([^=\n]*\.)$", CONFIG.read_text(), re.MULTILINE):
        assert said in plain(page), said
    assert '.SH "[retention]"' in page
    assert plain(page).count("How many lines one cause may write") == 1


def test_several_keys_after_one_comment_have_it_together() -> None:
    page = configuration_page("# What both say.\n# a = 1\n# b = 2\n\n# c = 3  # its own\n", "d")
    assert "\\fBa\\fR = 1\n.TQ\n\\fBb\\fR = 2\nWhat both say.\n" in page
    assert "\\fBc\\fR = 3\nits own\n" in page


def test_the_pages_are_written_into_a_directory_of_manuals(tmp_path: Path) -> None:
    module = [sys.executable, "-m", "logengine.cli.man_pages"]
    subprocess.run([*module, "--config", str(CONFIG), str(tmp_path)], check=True, timeout=60)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*")} == set(PAGES)
