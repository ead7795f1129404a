"""The quick conversion of many lines gives what the plain definition gives for each."""

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from hypothesis import example, given, settings
from hypothesis import strategies as st

from logengine.exchange.importing import convert_lines
from logengine.format.record import split_lines
from logengine.format.text_time import leading_time
from logengine.local_zone import LOCAL_ZONE
from tests.property import plain_lines

ZONES = [
    *(UTC, LOCAL_ZONE, ZoneInfo("Europe/Berlin"), ZoneInfo("Africa/Monrovia")),
    *(ZoneInfo("Australia/Lord_Howe"), timezone(timedelta(hours=5, minutes=45))),
]
nows = st.builds(
    lambda moment, zone: moment.replace(tzinfo=UTC).astimezone(zone),
    st.one_of(
        st.datetimes(datetime(1903, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001
        st.datetimes(datetime(2026, 12, 31), datetime(2027, 1, 2)),  # noqa: DTZ001
        st.datetimes(datetime(2028, 2, 28), datetime(2028, 3, 2)),  # noqa: DTZ001
    ),
    st.sampled_from(ZONES),
)
arabic = "\u0664\u0662"
days = st.sampled_from(["01", "07", "28", "29", "31", "0", arabic])
hours = st.sampled_from(["00", "02", "12", "23", "24"])
seconds = st.sampled_from(["00", "30", "59", "60", "99", "7", arabic])
months = st.sampled_from(["Jan", "feb", "MAR", "Nov", "Dec", "Foo"])
numbers = st.sampled_from(["01", "02", "10", "12", "13"])
years = st.sampled_from(
    ["0000", "0001", "1904", "1971", "1972", "2026", "2027", "9999", "\u0662026"]
)
fractions = st.sampled_from(["", ".", ".1", ",123456789", ".\u0664", ".0000001234"])
offsets = st.sampled_from(["", "Z", " +01:00", "-2359", "+2400", "z", "+05:4"])


@st.composite
def times(draw: st.DrawFn) -> str:
    year, month, number, day = draw(years), draw(months), draw(numbers), draw(days)
    clock = f"{draw(hours)}:{draw(seconds)}:{draw(seconds)}{draw(fractions)}"
    form = draw(st.integers(0, 4))
    match form:
        case 0:
            return f"{year}-{number}-{day}T{clock}{draw(offsets)}"
        case 1:
            return f"{year}/{number}/{day} {clock}{draw(offsets)}"
        case 2:
            return f"{month} {day} {clock}"
        case 3:
            return f"[{day}/{month}/{year}:{clock}{draw(offsets)}]"
        case _:
            moment = draw(st.datetimes(datetime(1960, 1, 1), datetime(2030, 1, 1)))  # noqa: DTZ001
            shown = ["%Y-%m-%dT%H:%M:%S", "%b %d %H:%M:%S", "[%d/%b/%Y:%H:%M:%S +0000]"]
            return moment.strftime(draw(st.sampled_from(shown)))


words = st.one_of(
    st.sampled_from(
        [
            *("host", "app:", "app[7]:", "ERROR", "info:", "-", "ann", "<13>", "<192>", "<13>1"),
            *('"GET /x?\\"y HTTP/1.1"', '"-"', '"a\\\\b"', '"x', "200", "404", "17", "msg=done"),
            *(
                'msg="it is\\n"',
                "took=3ms",
                "ts=1763900000.5",
                "n=-0",
                "n=1.50",
                "ok=true",
                "a=b=c",
            ),
            *(
                "PRIORITY=3",
                "time=2026-11-28T20:00:00Z",
                "timestamp=Nov",
                "1.2.3.4",
                "::",
                ": text",
            ),
            *(
                '{"message":"x"}',
                '{"ts":"2026-11-28 20:00:00"}',
                '{"PRIORITY":"3","a":1}',
                "{",
                "[",
            ),
            *("\0", "\ufeff", "\0\0\ufeffx", "\r", "\t", "\u00e9", "]", '] "'),
        ]
    ),
    times(),
    st.text(max_size=4),
)
texts = st.lists(words, max_size=10).flatmap(
    lambda parts: st.sampled_from([" ", "", "  "]).map(lambda between: between.join(parts).encode())
)
access = st.tuples(times(), words, words).map(
    lambda of: f'1.2.3.4 - ann {of[0]} "GET {of[1]} HTTP/1.1" 200 17 "{of[2]}" "x"'.encode()
)
syslog = st.tuples(
    st.sampled_from(["", "<13>", " "]),
    times(),
    st.sampled_from(["host", "ERROR", "info:", "app:"]),
    st.sampled_from(["app[7]:", "app:", "warn:", "app", "[7]:"]),
    words,
).map(lambda of: f"{of[0]}{of[1]} {of[2]} {of[3]} {of[4]}".encode())
lines = st.one_of(texts, access, syslog, st.binary(max_size=20)).map(
    lambda line: line.replace(b"\n", b"")
)


@settings(max_examples=500)
@given(st.sampled_from([*["auto"] * 4, "text", "ndjson"]), st.lists(lines, max_size=20), nows)
def test_many_lines_become_what_each_of_them_becomes(
    form: str, given_lines: list[bytes], now: datetime
) -> None:
    there = list(split_lines(b"\n".join(given_lines)))
    plainly = [plain_lines.PLAIN_LINES[form](line, now) + b"\n" for line in there]
    assert convert_lines(form, there, now) == b"".join(plainly)


@settings(max_examples=500)
@given(times(), nows)
@example("Feb 29 00:00:00", datetime(2027, 1, 1, tzinfo=UTC))
@example("Jan  1 12:00:30", datetime(2025, 12, 31, 12, 0, 15, tzinfo=UTC))
def test_the_time_of_a_line_is_what_its_digits_say(text: str, now: datetime) -> None:
    assert leading_time(text, now) == plain_lines.leading_time(text, now)
