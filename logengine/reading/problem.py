"""What readers report: records that are gone, and files that are damaged or cannot be read."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

from logengine.errors import LogEngineError

Reason = Literal["removed", "recorded", "missing", "damaged"]


class Gone(msgspec.Struct, frozen=True, omit_defaults=True):
    """Records that were asked for and are not shown, `first` to `last`, and the reason.

    "removed": they were the oldest of the stream. Retention or a full disk removed them before
    they were read.
    "recorded": the stream has a recorded gap; `why` is what it says.
    "missing": no file has them, and nothing says why.
    "damaged": their file is there, and is not what was written.
    """

    first: int
    last: int
    reason: Reason
    why: str | None = None


@dataclass(frozen=True)
class Problem:
    """Something in a stream that could not be read. Reading goes on after it.

    `expected` is true where nothing is damaged: records were removed as configured, or the stream
    itself says that they are gone, and why. `gone` names the records, where they are known.
    """

    stream: str
    what: str
    expected: bool = False
    gone: Gone | None = None

    def __str__(self) -> str:
        return f"{self.stream}: {self.what}"


Report = Callable[[Problem], None]


class IncompleteRead(LogEngineError):
    """Something that was to be read is missing or damaged; `problem` says what.

    Raised where nobody takes problems. Give `on_problem` to go on after it.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem}; give on_problem to read on after it")
        self.problem = problem


class RecordsGone(UserWarning):
    """Records that were to be read are gone, as configured or as the stream says itself."""


def raise_or_warn(problem: Problem) -> None:
    """Takes a problem where nobody else does: damage is an error, what is expected a warning."""
    if not problem.expected:
        raise IncompleteRead(problem)
    warnings.warn(str(problem), RecordsGone, stacklevel=2)
