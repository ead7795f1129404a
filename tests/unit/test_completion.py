"""What completes a command line: how it is divided, and what an expression may go on with."""

import pytest

from logengine.cli.field_completion import Known, completed_expressions
from logengine.cli.shell_completion import Line, divided

BREAKS = "\"'@><=;|&(:"
VALUES = {
    "user": [b'"ann"', b'"bob"', b'"Ann Lee"', b'"5"'],
    "status": [b"200", b"503"],
    "http.status": [b"404"],
    "level": [b'"loud"', b'"info"'],
    "note": [b'"two\\nlines"', b'"say \\"hi\\""', b'{"a":1}', b"true", b'"or"'],
}
KNOWN = Known(lambda: list(VALUES), lambda field: VALUES.get(field, []))


def completed(text: str) -> list[str]:
    """What comes after `text` in each of the answers."""
    answers = completed_expressions(text, KNOWN)
    assert all(each.startswith(text) for each in answers)
    return [each[len(text) :] for each in answers]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("logengine ca", Line(["logengine"], "ca", "", 0)),
        ("logengine cat ", Line(["logengine", "cat"], "", "", 0)),
        ("logengine cat 'a b", Line(["logengine", "cat"], "a b", "'", 0)),
        ("logengine 'a b' ", Line(["logengine", "a b"], "", "", 0)),
        ('logengine "a \\" b', Line(["logengine"], 'a " b', '"', 0)),
        ("logengine a\\ b", Line(["logengine"], "a b", "", 0)),
        ("logengine --where=us", Line(["logengine"], "--where=us", "", 8)),
        ("logengine --where='us e", Line(["logengine"], "--where=us e", "'", 8)),
        (
            "logengine --after app:5",
            Line(["logengine"], "--after", "", 0)._replace(
                words=["logengine", "--after"], begun="app:5", kept=4
            ),
        ),
        ("logengine '' x", Line(["logengine", ""], "x", "", 0)),
        ("", Line([], "", "", 0)),
    ],
)
def test_a_line_is_divided_as_a_shell_does(line: str, expected: Line) -> None:
    assert divided(line, BREAKS) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", list(VALUES)),
        ("not ", list(VALUES)),
        (
            "us",
            ["er=", "er ==", "er !=", "er <", "er <=", "er >", "er >=", "er ~", "er !~", "er in ("],
        ),
        (
            "(status == 200 or http",
            [f".status {each}" for each in ("==", "!=", "<", "<=", ">", ">=", "~", "!~", "in (")],
        ),
        ("user == ", ["ann", "bob", '"Ann Lee"', '"5"']),
        ("user == a", ["nn"]),
        ("user==b", ["ob"]),
        ('user == "', ['ann"', 'bob"', 'Ann Lee"', '5"']),
        ("user=b", ["ob"]),
        ("user=", ["ann", "bob", "Ann Lee", "5"]),
        ("user in (ann, b", ["ob"]),
        ("user not in (", ["ann", "bob", '"Ann Lee"', '"5"']),
        ("status >= 5", ["03"]),
        ("level >= war", ["ning"]),
        ("level == lo", ["ud"]),
        ("note == ", ['"say \\"hi\\""', "true", '"or"']),
        ("status == 200 ", ["and", "or"]),
        ("status == 200 a", []),
        ("status == 200 and user ~ ^a", []),
        ("none == ", []),
        ("none", []),
        ("[*] == ", []),
    ],
)
def test_an_expression_goes_on_with_fields_operators_and_values(
    text: str, expected: list[str]
) -> None:
    assert completed(text) == expected
