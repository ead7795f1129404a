"""The system's time zone with its rules, which say which offset holds at which time.

An aware `datetime.now().astimezone()` has only the offset of now, and every time before or after
the next change of the clocks is then an hour off.
"""

from datetime import UTC, datetime, timedelta, tzinfo

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - the difference of two times without a zone


class LocalZone(tzinfo):
    """The zone of `TZ` or `/etc/localtime`, by the rules of the C library.

    A time that occurred twice, because the clocks were set back, is the first one, or with
    `fold=1` the second. A time that was skipped gets the offset from before, so it is as much
    later: 02:30 is 03:30. See PEP 495.
    """

    def utcoffset(self, moment: datetime | None, /) -> timedelta | None:
        """See `tzinfo`; raises `OverflowError` or `ValueError` at the ends of the calendar."""
        if moment is None:
            return None
        # Not the offset of `astimezone`: for a skipped time, that is the one from after it.
        naive = moment.replace(tzinfo=None, microsecond=0)
        return naive - (_EPOCH + timedelta(seconds=int(naive.timestamp())))

    def dst(self, moment: datetime | None, /) -> timedelta | None:
        """Returns None: only the offset is known."""
        return None

    def tzname(self, moment: datetime | None, /) -> str | None:
        """See `tzinfo`."""
        return None if moment is None else moment.replace(tzinfo=None).astimezone().tzname()

    def fromutc(self, moment: datetime, /) -> datetime:
        """See `tzinfo`."""
        local = moment.replace(tzinfo=UTC).astimezone()
        first = local.replace(tzinfo=self, fold=0)
        return first if first.utcoffset() == local.utcoffset() else first.replace(fold=1)


def local_now() -> datetime:
    """Returns the time now in the system's zone."""
    return datetime.now(LOCAL_ZONE)


LOCAL_ZONE = LocalZone()
