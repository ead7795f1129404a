"""What readers report: records that are gone, and files that are damaged or cannot be read."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

from logengine.errors import LogEngineError

Reason = Literal["removed", "recorded", "missing", "damaged"]


class Gone(msgspec.Struct, frozen=True, omit_defaults=True):
    """Requested records that are not shown, `first` to `last`, and the reason.

    "removed": they were the oldest of the stream. Retention, or `drop_oldest` on a full disk,
    removed them before they were read.
    "recorded": the stream has a recorded gap; `why` is its reason.
    "missing": no file has them, and nothing records why.
    "damaged": their file exists, and is not what was written.
    """

    first: int
    last: int
    reason: Reason
    why: str | None = None


@dataclass(frozen=True)
class Problem:
    """Something in a stream that could not be read. Reading continues after it.

    `expected` is true if nothing is damaged: records were removed as configured, or the stream
    itself records that they are gone, and why. `gone` names the records, if they are known.
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

    Raised if the caller does not handle problems. Pass `on_problem` to continue after it.
    """

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem}; pass on_problem to continue after it")
        self.problem = problem


class RecordsGone(UserWarning):
    """Records that were to be read are gone, as configured or as the stream itself records."""


def raise_or_warn(problem: Problem) -> None:
    """The default for problems: raises damage as an error, warns about what is expected."""
    if not problem.expected:
        raise IncompleteRead(problem)
    warnings.warn(str(problem), RecordsGone, stacklevel=2)
