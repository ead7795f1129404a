"""How records look: rows of stored lines in, bytes to print out. No I/O, no clock.

`pretty` is for people: one record, one row. `logfmt`, `comma_separated`, `json_fields` and
`template` are for programs and for a form of one's own. All print only what does nothing to a
terminal, whatever a sender wrote.

`fields` decodes stored lines, chooses fields and makes text of values; `clock` shows times;
`levels` shows levels; `styled` colours, highlights and wraps.
"""

from typing import Protocol

from logengine.format.block import Rows


class Rendering(Protocol):
    """A way to print records."""

    @property
    def heading(self) -> bytes:
        """What is printed once, before all records; often nothing."""

    def render(self, rows: Rows) -> bytes:
        """Returns the records as they are printed, each with its newline."""
