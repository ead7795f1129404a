r"""Recognizes the fields in lines of text of forms that many programs write. No I/O.

    Nov 23 20:00:00 host sshd[7]: text              app, procid, host; also with `<13>` in front,
    2026-11-23T20:00:00+01:00 host sshd[7]: text    and as rsyslog writes it with RFC 3339 times
    1.2.3.4 - ann [23/Nov/2026:20:00:00 +0000] "GET /x HTTP/1.1" 200 17 "referer" "agent"
    level=info msg="it is done" took=3ms            logfmt: nothing but pairs, two at least

The access log is the common or combined format of Apache and nginx. Its line stays whole in
`message`; the other two forms say the same with their fields.
"""

import re

from logengine.format.severity import FACILITIES, SEVERITIES

_HOST = r"(?P<host>[\w.:-]{1,255})"
_APP = r"(?P<app>[^\s:\[\]]{1,128})(?:\[(?P<procid>[^\]\s]{1,128})\])?: ?(?P<message>.*)"
_SYSLOG = re.compile(
    r"(?:<(?P<priority>\d{1,3})>)?"
    r"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d|\d{4}-\d\d-\d\dT[\d:.]{8,18}(?:Z|[+-]\d\d:\d\d))"
    rf" {_HOST} {_APP}",
    re.ASCII | re.DOTALL,
)
# In place of a host, these are the level of another form.
_LEVEL = re.compile(
    "trace|debug|info|information|notice|warn|warning|err|error|crit|critical|alert|emerg|"
    "emergency|fatal|panic|severe",
    re.IGNORECASE,
)
_ACCESS = re.compile(
    r'(?P<client>\S{1,255}) \S+ (?P<user>\S{1,255}) \[[^\]]{20,40}\] "(?P<request>(?:[^"\\]|\\.)*)"'
    r" (?P<status>\d{3}) (?P<bytes>\d{1,18}|-)"
    r'(?: "(?P<referer>(?:[^"\\]|\\.)*)" "(?P<agent>(?:[^"\\]|\\.)*)")?(?: .*)?',
    re.ASCII,
)
_REQUEST = re.compile(r"(?P<method>[A-Z]{1,20}) (?P<path>\S+)(?: (?P<protocol>[A-Z]+/[\d.]+))?")
_PAIR = re.compile(
    r'(?P<key>[A-Za-z_][\w.@/-]{0,127})=(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<bare>[^\s"=]*))(?:\s+|\Z)',
    re.ASCII,
)
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}
# What is printed again as it was read, so that nothing is lost by storing a number.
_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,14})(?:\.\d{0,14}[1-9])?", re.ASCII)
_PAIRS_MIN = 2
Fields = dict[str, str | int | float | bool]


def fields_of_line(line: str) -> Fields | None:
    """Returns the fields of a line of a form that is known, without its time; None for another."""
    return _of_syslog(line) or _of_access_log(line) or _of_logfmt(line)


def _of_syslog(line: str) -> Fields | None:
    found = _SYSLOG.fullmatch(line)
    if found is None or _LEVEL.fullmatch(found["host"]):
        return None
    fields: Fields = {}
    if found["priority"] is not None:
        facility, severity = divmod(int(found["priority"]), len(SEVERITIES))
        if facility >= len(FACILITIES):
            return None
        fields |= {"level": SEVERITIES[severity], "facility": FACILITIES[facility]}
    for key in ("host", "app", "procid"):
        if found[key] is not None:
            fields[key] = found[key]
    return fields | {"message": found["message"]}


def _of_access_log(line: str) -> Fields | None:
    found = _ACCESS.fullmatch(line)
    if found is None:
        return None
    fields: Fields = {"message": line}
    for key in ("client", "user", "referer", "agent"):
        if found[key] not in (None, "-"):
            fields[key] = found[key]
    if request := _REQUEST.fullmatch(found["request"]):
        fields |= {key: value for key, value in request.groupdict().items() if value is not None}
    fields["status"] = int(found["status"])
    if found["bytes"] != "-":
        fields["bytes"] = int(found["bytes"])
    return fields


def _of_logfmt(line: str) -> Fields | None:
    text = line.strip()
    fields: Fields = {}
    place = 0
    while place < len(text):
        found = _PAIR.match(text, place)
        if found is None or found["key"] in fields:
            return None
        quoted = found["quoted"]
        fields[found["key"]] = plain_value(found["bare"]) if quoted is None else _unescaped(quoted)
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
    if _NUMBER.fullmatch(bare) is None:
        return bare
    number = float(bare) if "." in bare else int(bare)
    return number if str(number) == bare else bare


def _unescaped(quoted: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), quoted)
