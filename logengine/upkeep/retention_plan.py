"""Pure decisions about retention: which stream's oldest segment to remove, if any.

One segment at a time, because each removal changes what is left. No files, no clock.
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from logengine.units import Duration, Size


class Oldest(msgspec.Struct, frozen=True):
    """The oldest segment of a stream, if it may be removed.

    It is sealed and not the newest seal, or a recorded gap that a seal follows. `until` is when it
    was written at the latest, as `last_written` says.
    """

    name: str
    last: int
    bytes: int
    until: str


class StreamUse(msgspec.Struct, frozen=True):
    """The disk usage of a stream, and the segment that may be removed first."""

    stream: str
    bytes: int
    oldest: Oldest | None


class RetentionRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`[stream.NAME.retention]`: how much one stream keeps in its files. 0 means no limit."""

    max_bytes: Size = Size(0)
    max_age: Duration = Duration(0)


class RetentionRules(msgspec.Struct, frozen=True):
    """Limits of all streams together and of each; `keep_free` is in bytes. 0 means no limit."""

    max_bytes: int = 0
    keep_free: int = 0
    default: RetentionRule = RetentionRule()
    streams: Mapping[str, RetentionRule] = {}

    def of(self, stream: str) -> RetentionRule:
        """The rule of one stream."""
        return self.streams.get(stream, self.default)


class Removal(msgspec.Struct, frozen=True):
    """A segment to remove, and why; `passed_over` are the cursors that have not read it fully."""

    stream: str
    oldest: Oldest
    reason: str
    passed_over: Sequence[str] = ()


def last_written(latest: str, untils: Iterable[str], file_time: str, now: str) -> str | None:
    """Returns when a segment was written at the latest, although the clock may have been wrong.

    `latest` is the one in its header, and `untils` are its own `until` and, in order, those of the
    segments after it, which are read no further than needed. A segment is no younger than those
    after it, so if its own time is impossible, the next possible one counts. Impossible is what is
    after `now`, and what is before `latest`, unless that is itself after `now`: the clock was
    behind then. If no time is possible, that of the file counts, `file_time`; None if it is
    impossible too. The result is too late rather than too early.
    """
    earliest = latest if latest <= now else ""
    for until in untils:
        if earliest <= until <= now:
            return until
    return file_time if earliest <= file_time <= now else None


def next_removal(
    uses: Sequence[StreamUse],
    rules: RetentionRules,
    cutoffs: Mapping[float, str],
    free_bytes: int,
    cursors: Mapping[str, Mapping[str, int]],
) -> Removal | None:
    """Returns the segment to remove next; None if all may stay.

    `cutoffs` has, for each `max_age`, the time before which everything is too old. `cursors` has,
    by stream and name, the number up to which a reader has read. A segment that some cursor of its
    stream has not passed is removed only for `keep_free`.
    """

    def waiting(use: StreamUse, oldest: Oldest) -> list[str]:
        known = cursors.get(use.stream, {})
        return sorted(name for name, seq in known.items() if seq < oldest.last)

    heads = [(use, use.oldest) for use in uses if use.oldest is not None]
    free_to_go = [(use, oldest) for use, oldest in heads if not waiting(use, oldest)]
    for use, oldest in free_to_go:
        rule = rules.of(use.stream)
        if rule.max_age and oldest.until < cutoffs[rule.max_age]:
            return Removal(use.stream, oldest, "max_age")
        if rule.max_bytes and use.bytes > rule.max_bytes:
            return Removal(use.stream, oldest, "max_bytes")
    if rules.max_bytes and sum(use.bytes for use in uses) > rules.max_bytes and free_to_go:
        use, oldest = min(free_to_go, key=_age)
        return Removal(use.stream, oldest, "max_bytes of all streams")
    if free_bytes < rules.keep_free and heads:
        use, oldest = min(free_to_go or heads, key=_age)
        return Removal(use.stream, oldest, "keep_free", waiting(use, oldest))
    return None


def _age(head: tuple[StreamUse, Oldest]) -> tuple[str, str]:
    use, oldest = head
    return oldest.until, use.stream
