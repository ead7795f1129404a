"""What readers report: records that are gone, and files that are damaged or cannot be read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

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
