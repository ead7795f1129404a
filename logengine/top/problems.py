"""What could not be read, as the screen lists it: each problem once, the newest last. No I/O."""

from collections.abc import Sequence

from logengine.printable import escape

KEPT_MAX = 200


class Problems:
    """The last problems. `count` is how many different ones there were."""

    def __init__(self) -> None:
        self.count = 0
        self._texts: dict[str, None] = {}

    def add(self, problem: object) -> None:
        """Adds a problem, unless it is known already."""
        text = escape(str(problem))
        if text in self._texts:
            return
        self.count += 1
        self._texts[text] = None
        if len(self._texts) > KEPT_MAX:
            del self._texts[next(iter(self._texts))]

    def texts(self) -> Sequence[str]:
        """Returns the problems, escaped, the oldest first."""
        return list(self._texts)

    @property
    def newest(self) -> str:
        """The last problem; empty if there is none."""
        return next(reversed(self._texts), "")
