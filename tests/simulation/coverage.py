"""Counts the states in which faults occurred: what was under way, where the failing stream was.

A state is (batches under way, which of them contain the failing stream, the failing call, what
else holds the stream). The report names those that never occurred.
"""

from collections import Counter
from itertools import product
from typing import NamedTuple

CALLS = ("create", "write", "fsync", "replace", "sync directory", "mkdir", "data directory")
HOLDERS = ("nobody", "compactor", "drop", "recovery")
_UNDER_WAY_MAX = 3


class State(NamedTuple):
    """A state. `holds` has a letter for each batch, `s` if it contains the stream."""

    holds: str
    call: str
    holder: str


def all_holds() -> list[str]:
    """Every way in which one to three batches may contain a stream, or not."""
    return [
        "".join(letters)
        for count in range(1, _UNDER_WAY_MAX + 1)
        for letters in product("s-", repeat=count)
        if "s" in letters
    ]


class Coverage(Counter[State]):
    """How often each state occurred."""

    def report(self) -> list[str]:
        """Tables of what failed in which state, and what never did."""
        lines = ["what failed, by the batches under way and which of them hold the stream (s):"]
        shapes = all_holds()
        lines.append("  " + " " * 16 + "".join(f"{shape:>9}" for shape in shapes))
        for call in CALLS:
            counts = [
                sum(self[State(shape, call, holder)] for holder in HOLDERS) for shape in shapes
            ]
            lines.append(f"  {call:16}" + "".join(f"{count:9}" for count in counts))
        others: Counter[str] = Counter()
        for state, count in self.items():
            if state.holds not in shapes:
                others[state.holds] += count
        told = ", ".join(f"{shape} {count}" for shape, count in sorted(others.items()))
        lines.append(f"  with a batch of retries besides: {told or 'never'}")
        lines.append("who else had the stream then:")
        for holder in HOLDERS:
            total = sum(count for state, count in self.items() if state.holder == holder)
            lines.append(f"  {holder:16}{total:9}")
        never = [
            f"{shape} {call}" for call in CALLS for shape in shapes
            if not any(self[State(shape, call, holder)] for holder in HOLDERS)
        ]  # fmt: skip
        lines.append("never occurred: " + (", ".join(never) if never else "none of them"))
        held = [
            f"{shape} {call} {holder}"
            for holder in HOLDERS[1:]
            for call in CALLS
            for shape in shapes
            if not self[State(shape, call, holder)]
        ]
        lines.append(f"never occurred while somebody had the stream: {len(held)}")
        return lines
