"""The errors that logengine raises on purpose: one type for each possible reaction of a caller."""

import copy
import errno
from typing import Any, TypeVar, cast

from logengine.printable import columns, escape

Error = TypeVar("Error", bound="LogEngineError")

# An error shows at most this much of an expression on each side of a mistake.
_SHOWN_CHARACTERS = 60


def renewed(error: Error) -> Error:
    """A copy of an error, to raise again without the traceback of the first time."""
    return copy.copy(error)


def _made_again(kind: type[Error], args: tuple[Any, ...], attributes: dict[str, Any]) -> Error:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class LogEngineError(Exception):
    """The base class: catch this to catch all of logengine's own errors."""

    def __str__(self) -> str:
        """The message, escaped: it may name other people's files, and is shown on terminals."""
        return escape(super().__str__())

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles without the constructor, whose arguments differ from `args`."""
        return _made_again, (type(self), self.args, self.__dict__)


class ConfigError(LogEngineError):
    """The configuration is invalid; correct the file or option that the message names."""


class AtomicWriteError(LogEngineError, OSError):
    """A file could not be written; its old content, if any, is untouched, or `published` is true.

    `errno`, `strerror` and `filename` are those of the failed call; `verb` names the failed
    operation. `published` is true if the file has taken its name, but its directory could not be
    synced: readers see the new content, and a power cut may restore the old one.
    """

    verb = "write"
    published = False

    def __reduce__(self) -> tuple[Any, ...]:
        """Reduces like `OSError`, which keeps more than its `args`."""
        return cast("tuple[Any, ...]", OSError.__reduce__(self))

    @classmethod
    def of(cls, error: OSError, path: str, verb: str) -> "AtomicWriteError":
        """The error of a system call on `path` while doing `verb`."""
        kind = TargetExists if error.errno == errno.EEXIST else AtomicWriteError
        wrapped = kind(error.errno, error.strerror, path)
        wrapped.verb = verb
        return wrapped

    def __str__(self) -> str:
        text = f"cannot {self.verb} {self.filename}: {self.strerror}"
        if self.published:
            text += "; the new content is there, but a power cut may restore the old one"
        return escape(text)


class TargetExists(AtomicWriteError, FileExistsError):
    """A file should have been created, but its name is already taken."""


class UnexpectedFile(LogEngineError, OSError):
    """Something else has the name of a file or directory of logengine, such as a FIFO or a link.

    `strerror` says what it is, `filename` where. Remove it, or move it away.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        """Reduces like `OSError`, which keeps more than its `args`."""
        return cast("tuple[Any, ...]", OSError.__reduce__(self))

    def __str__(self) -> str:
        return f"{self.filename}: {self.strerror}"


class OutdatedPlan(LogEngineError):
    """A commit was planned on a stream state that never became durable; plan it again.

    It is never published: its records would be stored after a hole.
    """


class InvalidStreamName(LogEngineError):
    """The stream name is invalid; choose one that follows the rule in the message."""


class TooManyStreams(LogEngineError):
    """A new stream would exceed `max_streams`; use an existing stream or raise the limit."""


class DamagedSegment(LogEngineError):
    """A segment file is not what a commit wrote: the disk or somebody changed it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return escape(f"{self.path} is damaged: {self.reason}")


class UnreadableSegment(DamagedSegment):
    """The disk could not read a segment; it may be whole, and readable later."""

    def __str__(self) -> str:
        return escape(f"{self.path}: {self.reason}")


class DamagedSearchFilters(LogEngineError):
    """A file of search filters is not what the daemon wrote. No record is damaged."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return escape(
            f"{self.path} is damaged: {self.reason}; no record is missing, but searches are "
            "slower; remove it, and the daemon makes it again"
        )


class RepairRefused(LogEngineError):
    """The disk cannot read a file that may be whole; its stream was not repaired."""


class DataDirectoryLocked(LogEngineError):
    """Another daemon uses this data directory; stop that daemon or use another directory."""


class DataDirectoryReplaced(LogEngineError):
    """The path of the data directory no longer leads to the locked directory.

    Nothing is committed until the directory that is there is recovered; that happens by itself.
    """


class DataDirectoryUnseen(LogEngineError):
    """The path of the data directory cannot be checked now; it is checked again later."""


class DataDirectoryIncomplete(LogEngineError):
    """The data directory contains less than the last daemon left; the message says what to do."""


class ProtocolError(LogEngineError):
    """The peer sent something that the protocol does not define."""


class DaemonUnavailable(LogEngineError):
    """No daemon answers on the socket; start it, or specify the right socket."""


class MalformedInput(LogEngineError):
    """The input of an import does not have the specified format; specify another format."""


class AnotherInput(LogEngineError):
    """The input is not the one in which an earlier run stopped; the message describes it."""


class ResumeInUse(LogEngineError):
    """Another run with the same `--resume` name is active; wait until it exits."""


class DamagedResumeState(LogEngineError):
    """The file that records where a run with `--resume` stopped is damaged."""


class OldBytesRemain(LogEngineError):
    """Erased records are still on disk, in the file that the message names; try again."""


class BackupRefused(LogEngineError):
    """A backup cannot be made at that place."""


class IncompleteExport(LogEngineError):
    """Some records to export cannot be read; repair the stream, or export the rest."""


class NotInstalled(LogEngineError):
    """An optional package is needed; install it, or use another option."""


class InvalidCursor(LogEngineError):
    """A cursor does not have the form `stream:seq`."""


class InvalidFilter(LogEngineError):
    """A pattern or an expression is invalid; the message says why.

    `expression` is the expression, and the mistake is from `start` to `stop` in it; None for a
    pattern. The message then has the expression on a second line, and marks the place on a third.
    """

    expression: str | None = None
    start = stop = 0

    @classmethod
    def at(cls, problem: str, expression: str, start: int, stop: int) -> "InvalidFilter":
        """The error of a mistake at this place of an expression."""
        error = cls(problem)
        error.expression, error.start, error.stop = expression, start, stop
        return error

    def lines(self) -> list[str]:
        """The message in lines, each escaped."""
        problem = super().__str__()
        if self.expression is None:
            return [problem]
        # Of a long expression, only the surroundings of the mistake.
        first = max(0, self.start - _SHOWN_CHARACTERS)
        last = min(len(self.expression), self.start + _SHOWN_CHARACTERS)
        before = escape(self.expression[first : self.start])
        marked = escape(self.expression[self.start : min(self.stop, last)])
        after = escape(self.expression[min(self.stop, last) : last])
        opening = "…" if first else ""
        closing = "…" if last < len(self.expression) else ""
        return [
            problem,
            f"  {opening}{before}{marked}{after}{closing}",
            f"  {' ' * columns(opening + before)}{'^' * max(1, columns(marked))}",
        ]

    def __str__(self) -> str:
        return "\n".join(self.lines())


class UnknownStream(LogEngineError):
    """The stream or the data directory does not exist; see `logengine ls`."""


class InvalidOption(LogEngineError, ValueError):
    """A client option is invalid; the message says which values are allowed."""


class RecordTooLarge(LogEngineError):
    """A record is longer than the daemon accepts; shorten it, or raise the daemon's `max_record`.

    `limit` is the daemon's maximum, in bytes, without a newline.
    """

    def __init__(self, message: str, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class ClientFull(LogEngineError):
    """The queue of a client with `on_full="raise"` is full; the record was not accepted."""


class ClientClosed(LogEngineError):
    """The client is closed; send records before closing it."""


class NotDurable(LogEngineError):
    """Records accepted by a client are not known to be on the daemon's disk; see the message.

    `count` is their number. `spooled` of them are safe in the client's spool and will still be
    sent; the others are lost if the process exits now.
    """

    def __init__(self, message: str, count: int, spooled: int = 0) -> None:
        super().__init__(message)
        self.count = count
        self.spooled = spooled


class ProducerFenced(LogEngineError):
    """Another sender took over the producer's name; give each sender its own name."""


class ProducerForgotten(LogEngineError):
    """The daemon knows no records of the producer, though it acknowledged some, or may have.

    It forgot the name, or its data is new. Raised only with `on_forgotten="raise"`.
    """


class SpoolInUse(LogEngineError):
    """Another client has this producer's spool open; give each client its own producer name."""


class UnsafeSpool(LogEngineError, PermissionError):
    """Other users may write to a spool, or have; make it the user's own, or use another."""


class InvalidKey(LogEngineError):
    """A file is not a key for signing or checking seals, or a key already exists."""


class InvalidSealList(LogEngineError):
    """A file is not a list of seals, as `logengine seals` prints it."""


class CommandNotStarted(LogEngineError):
    """A command does not exist or cannot be run; `status` is what a shell would exit with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
