"""Each recipe of the page is run by a test, or says that it is not."""

import re
from pathlib import Path

from tests.integrations.page import NOT_RUN, PAGE, is_as_shown, sections


def test_each_section_with_code_is_run_or_says_that_it_is_not() -> None:
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("*.py"))
    run = {heading for heading in sections() if f'"{heading}"' in tests}
    assert len(run) >= 15
    for heading, text in sections().items():
        has_code = "```" in text or re.search(r"^    \S", text, re.MULTILINE) is not None
        assert has_code == (heading in run or NOT_RUN in text), heading
        assert not (heading in run and NOT_RUN in text), heading


def test_each_link_within_the_page_has_its_section() -> None:
    anchors = {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in sections()}
    links = set(re.findall(r"\]\(#([^)]+)\)", PAGE))
    assert links
    assert links <= anchors


def test_what_is_shown_is_compared_with_what_is_found() -> None:
    assert is_as_shown({"a": 1, "b": "x y"}, {"a": 1, "b": "x…"})
    assert is_as_shown({"a": 1, "b": {"c": 2}}, {"a": "…", "b": {"…": "…"}})
    assert not is_as_shown({"a": 1, "b": 2}, {"a": 1})
    assert not is_as_shown({"a": 1}, {"a": 1, "b": 2})
    assert not is_as_shown({"a": 1}, {"a": "1"})
    assert not is_as_shown({"a": True}, {"a": 1})
    assert not is_as_shown({"a": "x.y"}, {"a": "x…z"})
