"""The severities and facilities of syslog (RFC 5424, section 6.2.1), as records name them."""

# By number. journald's `PRIORITY` has the same numbers.
SEVERITIES = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
# By number, as glibc's syslog.h names them.
FACILITIES = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron"),
    *("authpriv", "ftp", "ntp", "audit", "console", "clock"),
    *(f"local{number}" for number in range(8)),
)


def severity_of(priority: str) -> str | None:
    """Returns the severity with this number; None if it is none."""
    return SEVERITIES[int(priority)] if priority in tuple("01234567") else None


def facility_of(number: str) -> str | None:
    """Returns the facility with this number; None if it is none."""
    is_number = number.isascii() and number.isdecimal() and len(number) <= len(str(len(FACILITIES)))
    return FACILITIES[int(number)] if is_number and int(number) < len(FACILITIES) else None
