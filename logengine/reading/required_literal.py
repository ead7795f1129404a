"""Finds a literal that a line must contain for a regular expression to match in it.

Searching for a literal is many times as fast as matching. The literal found here need not be the
longest one. Every match must contain it, so anything that is not plain is skipped.
"""

import re

_TOKEN = re.compile(
    rb"""
      (?P<unclear> \\[0-9xuUN] | \(\? )  # escapes of several characters; flags and the like
    | (?P<class> \\[A-Za-z] | \[\^?\]?(?:\\.|[^\]\\])*\] | [.^$] )
    | (?P<optional> [*?] | \{[0-9]*,?[0-9]*\} )
    | (?P<repeat> \+ )
    | (?P<open> \( ) | (?P<close> \) ) | (?P<or> \| )
    | \\?(?P<plain> . )
    """,
    re.VERBOSE | re.DOTALL,
)


def required_literal(pattern: bytes) -> bytes:
    """The longest bytes that are obviously in every match of `pattern`; may be empty."""
    runs = [b""]
    depth = 0  # groups are skipped
    for token in _TOKEN.finditer(pattern):
        kind = token.lastgroup
        if kind == "unclear" or (kind == "or" and depth == 0):
            return b""
        depth += (kind == "open") - (kind == "close")
        if depth:
            runs.append(b"")
        elif kind == "plain":
            runs[-1] += token["plain"]
        else:
            if kind == "optional":
                runs[-1] = runs[-1][:-1]
            runs.append(b"")
    return max(runs, key=len)
