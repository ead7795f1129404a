"""Which failed tests CI runs a second time."""

from pathlib import Path

from tests.again import AGAIN_MAX, PROMISES, refusal

TESTS = Path(__file__).parents[1]


def test_a_few_failed_tests_are_run_again() -> None:
    assert refusal(["tests/e2e/test_cli.py::test_a", "tests/unit/test_plan.py::test_b[x]"]) is None


def test_many_failed_tests_and_an_unfinished_run_are_not() -> None:
    many = [f"tests/e2e/test_cli.py::test_{number}" for number in range(AGAIN_MAX + 1)]
    assert refusal(many) == "4 tests have failed, more than 3"
    assert refusal([]) == "no test has failed: the run did not come to its end"


def test_a_test_of_the_promises_has_no_second_chance() -> None:
    for promise in PROMISES:
        assert (TESTS.parent / promise).is_dir()
        failed = ["tests/e2e/test_cli.py::test_a", f"{promise}test_it.py::test_kill"]
        assert refusal(failed) == f"{failed[1]} is about the promises"
