"""Everything that logengine raises on purpose: one type for each thing a caller can do."""

import copy
import errno
from typing import Any, TypeVar, cast

Error = TypeVar("Error", bound="LogEngineError")


def renewed(error: Error) -> Error:
    """The same error to be raised once more: one that is raised again drags its traceback along."""
    return copy.copy(error)


def _made_again(kind: type[Error], args: tuple[Any, ...], attributes: dict[str, Any]) -> Error:
    error = kind.__new__(kind, *args)
    error.__dict__.update(attributes)
    return error


class LogEngineError(Exception):
    """The root: catch this to catch all of logengine's own errors."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles it without its constructor, whose arguments are not its `args`."""
        return _made_again, (type(self), self.args, self.__dict__)


class ConfigError(LogEngineError):
    """The configuration says something that cannot be; mend the file or the option named."""


class AtomicWriteError(LogEngineError, OSError):
    """A file could not be written; its old content, if any, is untouched, or `published` is true.

    `errno`, `strerror` and `filename` are those of the failed call; `verb` says what was
    being done. `published` is true where it was the directory that could not be synced after
    the file had taken its name: readers see the new content, and a power cut may bring the old
    one back.
    """

    verb = "write"
    published = False

    def __reduce__(self) -> tuple[Any, ...]:
        """As `OSError`, which keeps more than its `args`."""
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
            text += "; the new content is there, but a power cut may bring the old one back"
        return text


class TargetExists(AtomicWriteError, FileExistsError):
    """A file was to be written that is not there yet, and something has its name."""


class OutdatedPlan(LogEngineError):
    """A commit was planned on a state of its stream that did not come about; plan it again.

    It is never published: its records would stand after a hole.
    """


class InvalidStreamName(LogEngineError):
    """No stream can have this name; choose one that fits the rule in the message."""


class TooManyStreams(LogEngineError):
    """One more stream would pass `max_streams`; use another stream or raise the limit."""


class DamagedSegment(LogEngineError):
    """A file under a segment's name is not what a commit wrote: a disk or a hand changed it."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path} is damaged: {self.reason}"


class UnreadableSegment(DamagedSegment):
    """The disk could not read a segment just now; it may be whole, and readable another time."""

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class RepairRefused(LogEngineError):
    """The disk does not give a file now, which may be whole; its stream was not repaired."""


class DataDirectoryLocked(LogEngineError):
    """Another daemon has this data directory; stop that one or use another directory."""


class DataDirectoryReplaced(LogEngineError):
    """The path of the data directory means another one than is locked, or none.

    Nothing is committed until the one that is there is recovered; nothing need be called.
    """


class DataDirectoryUnseen(LogEngineError):
    """The path of the data directory cannot be looked at just now; it is looked at again."""


class DataDirectoryIncomplete(LogEngineError):
    """Less is in the data directory than the last daemon left; the message says what to do."""


class ProtocolError(LogEngineError):
    """The other end of a socket said something that the protocol does not know."""


class DaemonUnavailable(LogEngineError):
    """No daemon answers at the socket; start it, or name its socket."""


class MalformedInput(LogEngineError):
    """What is to be imported is not of the format it is said to be of; name another format."""


class AnotherInput(LogEngineError):
    """An input is not the one that an earlier run stopped in; the message says what it is."""


class ResumeInUse(LogEngineError):
    """Another run with the same `--resume` name is under way; wait for its end."""


class DamagedResumeState(LogEngineError):
    """The file that says where a run with `--resume` stopped is not what was written."""


class OldBytesRemain(LogEngineError):
    """Erased records are still on the disk, in a file that the message names; try again."""


class IncompleteExport(LogEngineError):
    """Records that were to be exported cannot be read; repair the stream, or export the rest."""


class NotInstalled(LogEngineError):
    """A package that is optional would be needed; install it, or do it another way."""


class InvalidCursor(LogEngineError):
    """A cursor is not of the form `stream:seq`."""


class InvalidFilter(LogEngineError):
    """A pattern or a condition that no record can be held against; the message says why."""


class UnknownStream(LogEngineError):
    """There is no such stream, or no data directory; look at `logengine ls`."""


class InvalidOption(LogEngineError, ValueError):
    """A client cannot be made with this option; the message says what it may be."""


class RecordTooLarge(LogEngineError):
    """A record is longer than the daemon takes; shorten it, or raise `max_record` there.

    `limit` is what it takes, in bytes, without a newline.
    """

    def __init__(self, message: str, limit: int) -> None:
        super().__init__(message)
        self.limit = limit


class ClientFull(LogEngineError):
    """A client with `on_full="raise"` holds all it may; the record was not taken."""


class ClientClosed(LogEngineError):
    """The client was closed; records are to be sent before that."""


class NotDurable(LogEngineError):
    """Records that a client took are not known to be on the daemon's disk; the message says why.

    `count` is how many. `spooled` is how many of them are safe in the client's spool, from
    where they are still sent; the others are lost if the process ends now.
    """

    def __init__(self, message: str, count: int, spooled: int = 0) -> None:
        super().__init__(message)
        self.count = count
        self.spooled = spooled


class ProducerFenced(LogEngineError):
    """Another sender took over the producer's name; give each its own."""


class SpoolInUse(LogEngineError):
    """Another client has this spool of this producer open; give each its own name."""


class InvalidKey(LogEngineError):
    """A file is no key that signs or checks seals, or there is one already."""


class CommandNotStarted(LogEngineError):
    """A command is not there or cannot be run; `status` is what a shell would exit with."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status
