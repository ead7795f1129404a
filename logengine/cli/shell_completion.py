"""Completion in bash of words in quotes, such as expressions, which click leaves to the shell.

bash divides a line at `=`, `:`, `<` and `>` too, and replaces only what is after the last of them,
or after an opening quote. So the line is divided here, and an answer has only what bash replaces.
"""

import os
import re
from typing import Any, ClassVar, NamedTuple

from click.shell_completion import BashComplete, CompletionItem, add_completion_class

VARIABLE = "_LOGENGINE_COMPLETE"
# Outside quotes, the shell acts on these.
_SPECIAL = re.compile(r"[\s\"'\\$`!&|;<>()\[\]{}*?#~]")
_ACTIVE_IN_DOUBLE_QUOTES = re.compile(r"[\"\\$`]")
_SOURCE = """\
%(complete_func)s() {
    local line kind value
    COMPREPLY=()
    while IFS= read -r line; do
        kind=${line%%%%,*} value=${line#*,}
        case $kind in
            dir) compopt -o dirnames ;;
            file) compopt -o default ;;
            open) compopt -o nospace; COMPREPLY+=("$value") ;;
            plain) COMPREPLY+=("$value") ;;
        esac
    done < <(COMP_LINE="${COMP_LINE:0:COMP_POINT}" COMP_BREAKS="$COMP_WORDBREAKS" \
        %(complete_var)s=bash_complete "$1" 2>/dev/null)
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class Line(NamedTuple):
    """A command line up to the cursor, divided into words without their quotes."""

    words: list[str]
    begun: str  # the word at the cursor
    quote: str  # that is open in it, else ""
    kept: int  # how many of its characters the shell does not replace


def divided(line: str, breaks: str) -> Line:
    """Divides a line as a shell does; `breaks` are the characters at which bash ends a word."""
    words: list[str] = []
    word: list[str] = []
    quote, kept, is_begun, is_escaped = "", 0, False, False
    for character in line:
        if is_escaped:
            word.append(character)
            is_escaped = False
        elif character == "\\" and quote != "'":
            is_escaped = is_begun = True
        elif quote:
            if character == quote:
                quote = ""
            else:
                word.append(character)
        elif character in "\"'":
            quote, kept, is_begun = character, len(word), True
        elif character.isspace():
            if is_begun:
                words.append("".join(word))
            word, kept, is_begun = [], 0, False
        else:
            word.append(character)
            is_begun = True
            if character in breaks:
                kept = len(word)
    return Line(words, "".join(word), quote, kept)


class BashCompletion(BashComplete):
    """Completes words in quotes and with `=` and `:` in them.

    With `COMP_WORDS` in place of `COMP_LINE`, it is click's own: a script of an earlier version
    asks so.
    """

    source_template: ClassVar[str] = _SOURCE
    _line: Line | None = None

    @staticmethod
    def _check_version() -> None:
        """Starts no bash to ask for its version, as click does: the script runs in every one."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """See `ShellComplete`."""
        if "COMP_LINE" not in os.environ:
            return super().get_completion_args()
        self._line = divided(os.environ["COMP_LINE"], os.environ.get("COMP_BREAKS", ""))
        return self._line.words[1:], self._line.begun

    def complete(self) -> str:
        """See `ShellComplete`."""
        answer = super().complete()
        return "\n".join(filter(None, answer.split("\n")))

    def format_completion(self, item: CompletionItem[Any]) -> str:
        """See `ShellComplete`; empty if the word cannot go on so."""
        if self._line is None or item.type != "plain":
            return super().format_completion(item)
        begun, quote, kept = self._line.begun, self._line.quote, self._line.kept
        if begun.startswith("--") and "=" in begun:
            kept -= begun.index("=") + 1  # click completes only what is after it
        value = str(item.value)[max(kept, 0) :]
        if "\n" in value or (quote == "'" and "'" in value):
            return ""
        if quote == '"':
            value = _ACTIVE_IN_DOUBLE_QUOTES.sub(r"\\\g<0>", value)
        elif not quote and _SPECIAL.search(value):
            return ""
        is_open = value.endswith(("=", " ", "(", ":", "."))
        return f"{'open' if is_open else 'plain'},{value}"


def register() -> None:
    """Makes this bash's completion."""
    add_completion_class(BashCompletion, "bash")
