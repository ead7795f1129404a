r"""Recognizes the fields in lines of text of forms that many programs write. No I/O.

    Nov 23 20:00:00 host sshd[7]: text              time, app, procid, host; also with `<13>` in
    2026-11-23T20:00:00+01:00 host sshd[7]: text    front (`protocols.syslog_message`)
    1.2.3.4 - ann [23/Nov/2026:20:00:00 +0000] "GET /x HTTP/1.1" 200 17 "referer" "agent"
    level=info msg="it is done" took=3ms            logfmt: nothing but pairs, two at least

The access log is the common or combined format of Apache and nginx. Its line stays whole in
`message`; the other two forms say the same with their fields.
"""

import re
from datetime import datetime
from typing import Any

from logengine.format.text_time import leading_time
from logengine.protocols.syslog_message import parse_message, parse_relayed

_QUOTED = r'[^"\\]*+(?:\\.[^"\\]*+)*+'
_ACCESS = re.compile(
    r"(?P<client>\S{1,255}) \S+ (?P<user>\S{1,255}) \[[^\]]{20,40}\]"
    rf' "(?P<request>{_QUOTED})"'
    r" (?P<status>\d{3}) (?P<bytes>\d{1,18}|-)"
    rf'(?: "(?P<referer>{_QUOTED})" "(?P<agent>{_QUOTED})")?(?: .*)?',
    re.ASCII,
)
_REQUEST = re.compile(r"(?P<method>[A-Z]{1,20}) (?P<path>\S+)(?: (?P<protocol>[A-Z]+/[\d.]+))?")
_PAIR = re.compile(
    r'(?P<key>[A-Za-z_][\w.@/-]{0,127})=(?:"(?P<quoted>'
    rf'{_QUOTED})"|(?P<bare>[^\s"=]*))(?:\s+|\Z)',
    re.ASCII,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}
# What is printed again as it was read, so that nothing is lost by storing a number.
_NUMBER_STARTS = "-0123456789"
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{0,14}[1-9])?", re.ASCII)
_PAIRS_MIN = 2
_ABSENT = (None, "-")
Fields = dict[str, Any]


def fields_of_line(line: str) -> Fields | None:
    """Returns the fields of a line of another known form than syslog, without its time; or None."""
    return _of_access_log(line) or _of_logfmt(line)


def fields_of_syslog(line: str, now: datetime) -> Fields | None:
    """Returns the fields of a line of syslog, `message` last; None for another line.

    `now` is as in `leading_time`.
    """
    # Without these, it is rather a line that begins with a time.
    if not line.startswith("<"):
        found = parse_relayed(line, lambda text: leading_time(text, now))
        if found is None:
            return None
    else:
        found = parse_message(line, lambda text: leading_time(text, now))
        if found.time is None or found.app is None or (found.host, found.priority) == (None, None):
            return None
    return {"time": found.time} | found.header_fields() | {"message": found.message}


def _of_access_log(line: str) -> Fields | None:
    # Most lines are of other forms, and have no such thing.
    found = _ACCESS.fullmatch(line) if '] "' in line else None
    if found is None:
        return None
    fields: Fields = {"message": line}
    client, user, request, status, size_bytes, referer, agent = found.groups()
    if client != "-":
        fields["client"] = client
    if user != "-":
        fields["user"] = user
    if referer not in _ABSENT:
        fields["referer"] = referer
    if agent not in _ABSENT:
        fields["agent"] = agent
    if parts := _REQUEST.fullmatch(request):
        fields["method"], fields["path"], protocol = parts.groups()
        if protocol is not None:
            fields["protocol"] = protocol
    fields["status"] = int(status)
    if size_bytes != "-":
        fields["bytes"] = int(size_bytes)
    return fields


def _of_logfmt(line: str) -> Fields | None:
    text = line.strip()
    fields: Fields = {}
    place = 0
    while place < len(text):
        found = _PAIR.match(text, place)
        if found is None:
            return None
        key, quoted, bare = found.groups()
        if key in fields:
            return None
        fields[key] = plain_value(bare) if quoted is None else _unescaped(quoted)
        place = found.end()
    if len(fields) < _PAIRS_MIN:
        return None
    if "msg" in fields and "message" not in fields:
        fields = {"message" if key == "msg" else key: value for key, value in fields.items()}
    return fields


def plain_value(bare: str) -> str | int | float | bool:
    """Returns the number or boolean that `bare` is written as, if it prints again as `bare`.

    Everything else stays a string.
    """
    if bare in ("true", "false"):
        return bare == "true"
    if bare[:1] not in _NUMBER_STARTS or _NUMBER.fullmatch(bare) is None:
        return bare
    number = float(bare) if "." in bare else int(bare)
    return number if str(number) == bare else bare


def _unescaped(quoted: str) -> str:
    if "\\" not in quoted:
        return quoted
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), quoted)
