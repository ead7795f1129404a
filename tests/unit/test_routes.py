"""Which stream a record names, and what becomes of any text that is to be a name."""

from datetime import UTC
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from logengine.errors import InvalidFilter
from logengine.format.record import Peer, envelope, peer_fields
from logengine.format.segment import STREAM_NAME_MAX, is_stream_name, stream_name_from
from logengine.intake.routes import Routes, Template, names_of_kernel, route

TS = "2026-11-23T20:00:00.000000Z"
FIELDS = peer_fields(Peer(pid=7, uid=1000, gid=1000, comm="Sender", unit="web.service"))
STORED = envelope(TS, FIELDS)


def line(**fields: Any) -> bytes:
    """A record with these fields as it is stored."""
    return STORED + b"," + msgspec.json.encode(fields)[1:] if fields else STORED + b"}"


def routes(stream: str, *others: tuple[str, str]) -> Routes:
    return Routes([*(route(*each, UTC) for each in others), route(None, stream, UTC)], UTC)


@given(st.text())
@example("../x")
@example("..")
@example("a\0b")
@example("x" * 300)
@example("/" * 300 + "x")
@example("\u212a")  # the sign for kelvin, whose lower case is k
@example("\ud800")
def test_any_text_becomes_a_valid_name_or_none_and_a_name_stays_as_it_is(text: str) -> None:
    name = stream_name_from(text)
    assert name is None or is_stream_name(name)
    assert (name is None) == (not any(each.isascii() and each.isalnum() for each in text))
    if is_stream_name(text) and text[-1].isalnum():
        assert name == text
    if name is not None:
        assert stream_name_from(name) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("CRON", "cron"),
        ("nginx.service", "nginx.service"),
        ("user@1000.service", "user-1000.service"),
        ("../../etc/passwd", "etc-passwd"),
        ("/web/1", "web-1"),
        (".hidden", "hidden"),
        ("_x_", "x"),
        ("a\0b", "a-b"),
        ("größer als", "gr-er-als"),
        ("x" * 300, "x" * STREAM_NAME_MAX),
        ("x" * 63 + "-y", "x" * 63),
        ("", None),
        ("../..", None),
        ("日本", None),
    ],
)
def test_a_text_becomes_a_name_by_one_rule(text: str, name: str | None) -> None:
    assert stream_name_from(text) == name


@pytest.mark.parametrize(
    ("stream", "fields", "text"),
    [
        ("fixed", {}, "fixed"),
        ("{app}", {"app": "Web"}, "Web"),
        ("web-{app}-{host}", {"app": "a", "host": "b"}, "web-a-b"),
        ("{unit}", {"unit": "forged"}, "web.service"),
        ("{comm}", {}, "Sender"),
        ("{uid}", {}, "1000"),
        ("{container}", {"container_name": "/db"}, "/db"),
        ("{container}", {"container_id": "0f"}, "0f"),
        ("{k8s.pod}", {"k8s": {"pod": "p"}}, "p"),
        ("{k8s.pod}", {"k8s.pod": "p"}, "p"),
        ('{"unit"}', {"unit": "its own"}, "its own"),
        ("{n}", {"n": 7}, "7"),
        ("{n}", {"n": True}, "true"),
        ("{app}", {"app": ' a\n" '}, 'a\n"'),
        ("{app}", {"app": " "}, None),
        ("{app}", {"app": None}, None),
        ("{app}", {"app": ["a"]}, None),
        ("{app}", {"app": {"a": 1}}, None),
        ("x-{app}", {}, None),
    ],
)
def test_fields_in_braces_stand_for_their_values(
    stream: str, fields: dict[str, Any], text: str | None
) -> None:
    template = routes(stream)
    assert template.text_of(line(**fields)) == text
    for _ in range(2):  # what it remembers changes nothing
        other = line(app="other", host="else", n=8)
        assert template.text_of(other) == routes(stream).text_of(other)
        assert template.text_of(line(**fields)) == text


def test_the_first_route_that_holds_counts_even_if_its_field_is_missing() -> None:
    many = routes(
        "rest",
        ("facility in (auth, authpriv)", "auth"),
        ("level >= error", "{app}-errors"),
        ("_uid = 1000", "{app}"),
    )
    assert many.text_of(line(facility="auth", level="error")) == "auth"
    assert many.text_of(line(app="web", level="critical")) == "web-errors"
    assert many.text_of(line(level="critical")) is None
    assert many.text_of(line(app="web", level="info")) == "web"
    assert routes("rest", ("a = 1", "one")).text_of(line(a=2)) == "rest"


def test_only_routes_by_what_the_kernel_knows_are_the_same_for_all_records_of_a_process() -> None:
    assert routes("{unit}-{uid}", ("_comm = sshd", "ssh")).are_of_sender
    assert routes("fixed").are_of_sender
    assert not routes("{unit}", ("level = error", "errors")).are_of_sender
    assert not routes("{unit}", ('_ts > "2026-01-01"', "new")).are_of_sender
    assert names_of_kernel(Template("{unit}{uid}{app}").paths) == ["_unit", "_user_unit"]


@pytest.mark.parametrize("stream", ["{", "a}", "{}", "{a[}", "{{app}}"])
def test_a_template_that_cannot_be_understood_is_refused(stream: str) -> None:
    with pytest.raises(InvalidFilter):
        Template(stream)


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none() | st.lists(st.text())))
def test_no_record_fails_to_be_routed(fields: dict[str, Any]) -> None:
    every = routes("{app}-{a.b}-{unit}", ("app ~ x", "{message}"))
    text = every.text_of(line(**fields))
    assert text is None or isinstance(text, str)
