"""Manual pages for man(1), made from the help of the commands: roff with the macros of man(7).

`python -m logengine.cli.man_pages DIRECTORY` writes `man1/logengine.1` and a page for each command,
such as `man1/logengine-tail.1`; with `--config FILE`, a configuration with comments, also
`man5/logengine.toml.5`.
"""

import os
import re
import textwrap
import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import click

from logengine import __version__
from logengine.cli import _COMMANDS, cli

NAME = "logengine"
_MANUAL = "logengine"
_EXIT_STATUS = (
    ("0", "Everything was done."),
    ("1", "It failed, or found something wrong. Standard error says what."),
    ("2", "The arguments are wrong. Nothing was done."),
    ("130", "It was interrupted by Ctrl-C."),
)
# What roff would make something else of: typographic quotes, hyphens that no search finds.
_ESCAPES = {
    "\\": "\\e",
    "-": "\\-",
    "'": "\\(aq",
    "`": "\\(ga",
    "^": "\\(ha",
    "~": "\\(ti",
    "…": "...",
}
_FLAG = re.compile(r"(?<!\S)--?[A-Za-z][\w-]*")
_KEY = re.compile(r"# ([a-z_]+) = (.*?)(?:\s+# (.*))?")
_TABLE = re.compile(r"(?:# )?(\[{1,2}[a-z_.]+\]{1,2})")
_CONTINUATION = re.compile(r"\s+# (.*)")
_EXAMPLE_INDENT = "  "
_LINE_COLUMNS = 68


def manual_pages(date: str) -> dict[str, str]:
    """Returns the pages by their paths; `date`, YYYY-MM-DD, is printed on each of them."""
    root = click.Context(cli, info_name=NAME, **cli.context_settings)
    names = cli.list_commands(root)
    pages = {f"man1/{NAME}.1": _page(cli, root, "log-writing daemon and its tools", names, date)}
    for name in names:
        command = cli.get_command(root, name)
        assert command is not None
        page = _page(command, click.Context(command, root, name), _COMMANDS[name], [], date)
        pages[f"man1/{NAME}-{name}.1"] = page
    return pages


def configuration_page(text: str, date: str) -> str:
    """Returns the page of a configuration: `text` is TOML with comments, each key in one."""
    lines = [
        _title(f"{NAME}.toml", 5, date),
        *_name_section(f"{NAME}.toml", "configuration of the logengine daemon"),
        ".SH DESCRIPTION",
        *_settings(text),
        *_see_also([f"{NAME}-config", f"{NAME}-run"]),
    ]
    return _joined(lines)


def escape(text: str) -> str:
    """Returns text as roff prints it: no character is part of a request."""
    return "".join(_ESCAPES.get(each, each) for each in text)


def _page(
    command: click.Command, ctx: click.Context, summary: str, others: Sequence[str], date: str
) -> str:
    path = ctx.command_path
    name = path.replace(" ", "-")
    usage = " ".join(command.collect_usage_pieces(ctx))
    lines = [
        _title(name, 1, date),
        *_name_section(name, summary),
        ".SH SYNOPSIS",
        f".B {escape(path)}",
        _text(usage),
        ".SH DESCRIPTION",
        *_paragraphs(command.help or ""),
        *_options(command, ctx),
    ]
    if isinstance(command, click.Group) and not others:
        lines += _subcommands(command, ctx)
    if others:
        lines += [".SH _COMMANDS"]
        for each in others:
            lines += [".TP", f"\\fB{escape(f'{NAME}-{each}')}\\fR(1)", _text(_COMMANDS[each])]
    lines += _epilog(command.epilog or "")
    lines += [".SH EXIT STATUS"]
    for status, meaning in _EXIT_STATUS:
        lines += [".TP", f".B {status}", _text(meaning)]
    see = [f"{NAME}-{each}" for each in others] or [NAME]
    return _joined([*lines, *_see_also(see)])


def _title(name: str, section: int, date: str) -> str:
    title = escape(name.upper())
    return f'.TH "{title}" "{section}" "{date}" "{NAME} {__version__}" "{_MANUAL}"'


def _name_section(name: str, summary: str) -> list[str]:
    return [".SH NAME", f"{escape(name)} \\- {escape(summary)}"]


def _options(
    command: click.Command, ctx: click.Context, heading: str | None = ".SH OPTIONS"
) -> list[str]:
    lines = [heading] if heading else []
    for parameter in command.get_params(ctx):
        record = parameter.get_help_record(ctx)
        if record is not None and record[1]:
            flags, text = record
            lines += [".TP", _flags(flags), _text(" ".join(text.split()))]
    return lines


def _flags(text: str) -> str:
    """Returns the names of an option in bold, and what it takes in italics."""
    parts: list[str] = []
    end = 0
    for found in _FLAG.finditer(text):
        parts += [_italics(text[end : found.start()]), f"\\fB{escape(found[0])}\\fR"]
        end = found.end()
    return "".join([*parts, _italics(text[end:])])


def _italics(text: str) -> str:
    word = text.strip(" ,")
    return (
        escape(text) if not word else escape(text).replace(escape(word), f"\\fI{escape(word)}\\fR")
    )


def _subcommands(group: click.Group, ctx: click.Context) -> list[str]:
    lines = [".SH _COMMANDS"]
    for name in group.list_commands(ctx):
        command = group.get_command(ctx, name)
        assert command is not None
        inner = click.Context(command, ctx, name)
        usage = " ".join([inner.command_path, *command.collect_usage_pieces(inner)])
        lines += [f".SS {escape(usage)}", *_paragraphs(command.help or "")]
        lines += _options(command, inner, None)
    return lines


def _epilog(text: str) -> Iterator[str]:
    """Yields a section for each block that begins with a line such as `Examples:`."""
    for block in text.split("\n\n"):
        heading, *lines = block.strip("\b\n").split("\n")
        if not lines:
            yield from _paragraphs(block)
            continue
        yield f'.SH "{escape(heading.rstrip(":").upper())}"'
        yield from _example(lines)


def _paragraphs(text: str) -> Iterator[str]:
    for number, block in enumerate(text.split("\n\n")):
        if number:
            yield ".PP"
        if block.startswith("\b"):
            yield from _example(block.strip("\b\n").split("\n"))
        else:
            yield _text(" ".join(block.split()))


def _example(lines: Sequence[str]) -> list[str]:
    indent = min((len(each) - len(each.lstrip()) for each in lines if each.strip()), default=0)
    return [".PP", ".RS 4", ".nf", *(_line(each[indent:]) for each in lines), ".fi", ".RE"]


def _settings(text: str) -> Iterator[str]:
    """Yields what the comments say: each key, or several after one comment, then the comment.

    A comment in the line of a key, and in the lines after it, is about this key alone.
    """
    for block in text.split("\n\n"):
        said: list[str] = []  # before a key
        keys: list[str] = []
        own: list[str] = []  # in its line
        for line in [*block.splitlines(), ""]:
            key = _KEY.fullmatch(line)
            more = _CONTINUATION.fullmatch(line)
            if keys and not more and (own or not key or key[3]):
                yield from _setting(keys, own or said)
                said, keys, own = [] if not own else said, [], []
            if key:
                keys.append(f"\\fB{escape(key[1])}\\fR = {escape(key[2])}")
                own += [key[3]] if key[3] else []
            elif more:
                own.append(more[1])
            elif table := _TABLE.fullmatch(line):
                yield from _comment(said)
                said = []
                yield f'.SH "{escape(table[1])}"'
            else:
                said.append(line.removeprefix("#").removeprefix(" "))
        yield from _comment(said)


def _setting(keys: Sequence[str], said: Sequence[str]) -> Iterator[str]:
    for number, key in enumerate(keys):
        yield ".TQ" if number else ".TP"
        yield key
    yield from _comment(said, is_of_key=True)


def _comment(lines: Sequence[str], *, is_of_key: bool = False) -> Iterator[str]:
    """Yields the lines of a comment: what is indented is an example."""
    for is_example, group in groupby(lines, lambda line: line.startswith(_EXAMPLE_INDENT)):
        if is_example:
            yield from _example(list(group))
            continue
        for is_prose, part in groupby(group, lambda line: bool(line.strip())):
            if is_prose:
                if not is_of_key:
                    yield ".PP"
                yield _text(" ".join(line.strip() for line in part))


def _see_also(names: Sequence[str]) -> list[str]:
    references = [f"\\fB{escape(each)}\\fR(1)" for each in names]
    return [".SH SEE ALSO", ",\n".join(references)]


def _text(text: str) -> str:
    """Returns text in lines that roff does not take for requests."""
    wrapped = textwrap.wrap(text, _LINE_COLUMNS, break_long_words=False, break_on_hyphens=False)
    return "\n".join(map(_line, wrapped))


def _line(text: str) -> str:
    escaped = escape(text)
    return f"\\&{escaped}" if escaped.startswith((".", "\\(aq")) else escaped


def _joined(lines: Sequence[str]) -> str:
    # A section begins a paragraph itself.
    kept = [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if line != ".PP" or not before.startswith((".SH", ".SS"))
    ]
    return "\n".join(kept) + "\n"


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--config", type=click.Path(path_type=Path, exists=True), metavar="FILE")
def main(directory: Path, config: Path | None) -> None:
    """Writes the pages into a directory of manuals, such as /usr/local/share/man."""
    # https://reproducible-builds.org/specs/source-date-epoch/
    now_s = int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())
    date = time.strftime("%Y-%m-%d", time.gmtime(now_s))
    pages = manual_pages(date)
    if config is not None:
        pages[f"man5/{NAME}.toml.5"] = configuration_page(config.read_text(), date)
    for name, text in pages.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


if __name__ == "__main__":
    main()
