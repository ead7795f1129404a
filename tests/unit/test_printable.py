"""How wide escaped text is on a terminal, and where it is cut."""

import pytest

from logengine.cli.table import cell
from logengine.printable import columns, cut


@pytest.mark.parametrize(
    ("text", "wide"),
    [
        ("abc", 3),
        ("日本", 4),
        ("e\u0301", 1),
        ("\u2764\ufe0f", 1),
        ("a\u200bb\u200dc", 3),
        ("", 0),
    ],
)
def test_text_is_as_wide_as_its_characters(text: str, wide: int) -> None:
    assert columns(text) == wide
    assert cut(text, wide) == text


@pytest.mark.parametrize(
    ("text", "wide", "expected"),
    [("abc", 2, "ab"), ("日本", 3, "日"), ("日本", 0, ""), ("ae\u0301b", 2, "ae\u0301")],
)
def test_text_is_cut_between_characters(text: str, wide: int, expected: str) -> None:
    assert cut(text, wide) == expected


def test_a_cell_is_cut_to_its_width() -> None:
    assert cell("x" * 61) == "x" * 59 + "…"
    assert cell("日" * 31) == "日" * 29 + "…"
    assert cell("日" * 30) == "日" * 30
