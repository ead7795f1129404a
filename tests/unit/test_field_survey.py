"""The fields of records at their limits."""

import pytest

from logengine.aggregation import field_survey as module
from logengine.aggregation.field_survey import FieldSurvey
from logengine.format.block import Block


def survey_of(*fields: str) -> FieldSurvey:
    lines = [
        b'{"_ts":"2026-11-23T20:00:00.000000Z",%s}\n' % each.encode("utf-8") for each in fields
    ]
    survey = FieldSurvey()
    survey.add(Block("app", 1, len(lines), b"".join(lines)))
    return survey


def test_fields_that_are_new_after_the_limit_are_only_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "FIELDS_MAX", 2)
    survey = survey_of('"a":1', '"b":{"c":1},"a":2')
    assert [(each.text, each.records) for each in survey.summaries()] == [("_ts", 2), ("a", 2)]
    assert survey.others == 1


def test_long_names_reach_a_limit_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NAME_CHARACTERS_MAX", 10)
    survey = survey_of(f'"{"n" * 20}":1,"a":1')
    assert [each.text for each in survey.summaries()] == ["_ts", "a"]
    assert survey.others == 1


def test_what_is_nested_deep_is_known_down_to_a_limit() -> None:
    depth = 200
    survey = survey_of('"a":' + '{"a":' * depth + "1" + "}" * depth)
    assert len(survey.summaries()) == module.LEVELS_MAX + 1


def test_of_long_arrays_the_first_elements_are_examined() -> None:
    survey = survey_of(f'"a":[{",".join("1" * 500)}]')
    (_, array, elements) = sorted(survey.summaries(), key=lambda each: each.text)
    assert (array.text, elements.text) == ("a", "a[*]")
    assert elements.types == {"integer": module.ELEMENTS_MAX}
    assert array.examples == ()  # it is too long for one


def test_lines_of_earlier_versions_have_fields_too() -> None:
    survey = survey_of('"a":"\\ud800","\\udfff":1')
    found = {each.text: each.examples for each in survey.summaries()}
    assert found['"\\udfff"'] == (b"1",)
    assert found["a"] == (b'"\\ud800"',)
