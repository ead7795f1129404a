r"""Parses one message of syslog, or one line that syslog wrote to a file. No I/O.

    <13>Nov 23 20:00:00 app[7]: text            RFC 3164 as glibc writes it to /dev/log
    <13>Nov 23 20:00:00 host app[7]: text       RFC 3164 with a host
    <13>2026-11-23T20:00:00Z host app[7]: text  the same with an RFC 3339 time, as Docker writes it
    <13>app: text                               without a time, as Python's SysLogHandler writes it
    <13>1 2026-11-23T20:00:00Z host app 7 ID [ex@32473 k="v"] text       RFC 5424

Every text is a message. A part of it that is in none of these forms stays in `message`.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

import msgspec

from logengine.format.severity import FACILITIES, SEVERITIES

# The parameters of each element by name. A parameter that occurs more than once is a list.
Structured = dict[str, dict[str, str | list[str]]]

_PRIORITY = re.compile(r"<(\d{1,3})>", re.ASCII)
_PRIORITY_MAX = len(FACILITIES) * len(SEVERITIES) - 1
_NIL = "-"
_BYTE_ORDER_MARK = "\ufeff"

# Longer than RFC 5424 allows, because programs write longer names.
_NAME = r"\S{1,255}"
_ELEMENT = r'\[[^\s="\]]++(?: ++[^\s="\]]++="(?:[^"\\]++|\\.)*+")*+ *+\]'
_RFC3339 = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
_STRICT = re.compile(
    rf"1 (?P<time>-|{_RFC3339}) (?P<host>{_NAME}) (?P<app>{_NAME}) (?P<procid>{_NAME})"
    rf" (?P<msgid>{_NAME}) (?P<structured>-|(?:{_ELEMENT})++)(?: (?P<message>.*+))?",
    re.ASCII | re.DOTALL,
)
_ELEMENT_NAME = re.compile(r'\[([^\s="\]]++)')
_PARAMETER = re.compile(r' ++([^\s="\]]++)="((?:[^"\\]++|\\.)*+)"', re.DOTALL)
_ESCAPE = re.compile(r'\\(["\\\]])')

_TIME = rf" ?(?P<time>[A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{{1,9}})?|{_RFC3339})"
_APP = r"(?P<app>[^\s:\[\]]{1,128})"
_PROCID = r"\[(?P<procid>[^\]\s]{1,128})\]"
# The colon of an address or of a time has no space after it.
_LOCAL = rf"{_APP}(?:{_PROCID}: ?|:(?: |\Z))(?P<message>.*+)"
_RELAYED = rf"(?P<host>[\w.:-]{{1,255}}) {_APP}(?:{_PROCID})?: ?(?P<message>.*+)"
_TIMED = tuple(
    re.compile(form, re.ASCII | re.DOTALL)
    for form in (f"{_TIME} {_LOCAL}", f"{_TIME} {_RELAYED}", rf"{_TIME}(?: (?P<message>.*+)|\Z)")
)
_UNTIMED = re.compile(_LOCAL, re.ASCII | re.DOTALL)
# In place of a host or an app, these are the level of another form.
_LEVEL = re.compile(
    "trace|debug|info|information|notice|warn|warning|err|error|crit|critical|alert|emerg|"
    "emergency|fatal|panic|severe",
    re.IGNORECASE,
)


class SyslogMessage(msgspec.Struct, frozen=True):
    """The parts of a message; None for those that it does not have.

    `time` is what the caller's `read_time` made of the sender's time. `priority` is facility and
    severity, as RFC 5424 calculates it.
    """

    message: str
    priority: int | None = None
    time: str | None = None
    host: str | None = None
    app: str | None = None
    procid: str | None = None
    msgid: str | None = None
    structured: Structured | None = None

    def header_fields(self) -> dict[str, Any]:
        """Returns the fields of its record, without `time` and `message`."""
        fields: dict[str, Any] = {}
        if self.priority is not None:
            facility, severity = divmod(self.priority, len(SEVERITIES))
            fields = {"level": SEVERITIES[severity], "facility": FACILITIES[facility]}
        if self.host is not None:
            fields["host"] = self.host
        if self.app is not None:
            fields["app"] = self.app
        if self.procid is not None:
            fields["procid"] = self.procid
        if self.msgid is not None:
            fields["msgid"] = self.msgid
        if self.structured is not None:
            fields["structured"] = self.structured
        return fields


def parse_message(text: str, read_time: Callable[[str], str | None]) -> SyslogMessage:
    """Returns the parts of `text`. Never raises; what is not recognized stays in `message`.

    `read_time` returns the time that a sender's text means, or None if it is not a time; the text
    then stays in `message`. A text without a valid `<priority>` may still have a time, a host and
    an app: syslog daemons write it like this to files. O(characters).
    """
    found = _PRIORITY.match(text)
    if found is None:
        return _of_rest(text, None, _TIMED, read_time)
    priority = int(found[1])
    if priority > _PRIORITY_MAX:
        return SyslogMessage(text)
    rest = text[found.end() :]
    if strict := _STRICT.fullmatch(rest):
        time = None if strict["time"] == _NIL else read_time(strict["time"])
        if time is not None or strict["time"] == _NIL:
            return _of_strict(strict, priority, time)
    return _of_rest(rest, priority, (*_TIMED, _UNTIMED), read_time)


def parse_relayed(text: str, read_time: Callable[[str], str | None]) -> SyslogMessage | None:
    """Returns the parts of a line that names its time, host and app and has no priority.

    Returns None if `parse_message` finds none of these three, or a priority. O(characters).
    """
    local, relayed, _ = _TIMED
    found = relayed.match(text)
    if found is None or _is_level(found["host"]) or _is_level(found["app"]):
        return None
    without_host = local.match(text)
    if without_host is not None and not _is_level(without_host["app"]):
        return None
    time = read_time(found["time"])
    if time is None:
        return None
    host, app, procid, message = found.group("host", "app", "procid", "message")
    return SyslogMessage(message, None, time, host, app, procid)


def _of_rest(
    rest: str,
    priority: int | None,
    forms: Iterable[re.Pattern[str]],
    read_time: Callable[[str], str | None],
) -> SyslogMessage:
    for form in forms:
        found = form.fullmatch(rest)
        if found is None:
            continue
        parts: dict[str, str | None] = found.groupdict()
        host, app, sent = (parts.get(key) for key in ("host", "app", "time"))
        if _is_level(host) or _is_level(app):
            continue
        time = None if sent is None else read_time(sent)
        if sent is None or time is not None:
            return SyslogMessage(
                parts["message"] or "", priority, time, host, app, parts.get("procid")
            )
    return SyslogMessage(rest, priority)


def _is_level(name: str | None) -> bool:
    return name is not None and _LEVEL.fullmatch(name) is not None


def _of_strict(found: re.Match[str], priority: int | None, time: str | None) -> SyslogMessage:
    host, app, procid, msgid, structured = (
        None if found[key] == _NIL else found[key]
        for key in ("host", "app", "procid", "msgid", "structured")
    )
    return SyslogMessage(
        (found["message"] or "").removeprefix(_BYTE_ORDER_MARK),
        priority,
        time,
        host,
        app,
        procid,
        msgid,
        None if structured is None else _structured(structured),
    )


def _structured(text: str) -> Structured:
    """Returns the elements in `text`, which are well-formed."""
    elements: Structured = {}
    place = 0
    while name := _ELEMENT_NAME.match(text, place):
        element = elements.setdefault(name[1], {})
        place = name.end()
        while parameter := _PARAMETER.match(text, place):
            _add(element, parameter[1], _ESCAPE.sub(r"\1", parameter[2]))
            place = parameter.end()
        place = text.index("]", place) + 1
    return elements


def _add(element: dict[str, str | list[str]], name: str, value: str) -> None:
    earlier = element.get(name)
    if earlier is None:
        element[name] = value
    elif isinstance(earlier, str):
        element[name] = [earlier, value]
    else:
        earlier.append(value)
