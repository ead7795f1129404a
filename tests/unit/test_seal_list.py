"""Lists of seals that are kept elsewhere."""

import pytest

from logengine.errors import InvalidSealList
from logengine.format.seal_list import ListedSeal, parse_seal_list

SEALS = [ListedSeal("app", 600, "a" * 64), ListedSeal("audit", 2**63 - 1, "0123456789abcdef" * 4)]


def test_a_list_comes_back() -> None:
    text = "".join(f"{seal}\n" for seal in SEALS)
    assert parse_seal_list(text, "f") == {seal.stream: seal for seal in SEALS}


def test_the_last_line_of_a_stream_counts_and_mail_may_change_line_ends() -> None:
    older = ListedSeal("app", 300, "b" * 64)
    text = f"{older}\r\n\r\n  {SEALS[0]} \r\n"
    assert parse_seal_list(text, "f") == {"app": SEALS[0]}


@pytest.mark.parametrize(
    "text",
    [
        *("", "\n", "app", "app 1", f"app {'a' * 64}"),
        *(f"UP 1 {'a' * 64}", f"app 1 {'A' * 64}", f"app 1 {'a' * 63}"),
        *(f"app -1 {'a' * 64}", f"app 1 {'a' * 64} x", f"app \u0661 {'a' * 64}"),
    ],
)
def test_what_is_no_list_of_seals_is_said_in_a_line(text: str) -> None:
    with pytest.raises(InvalidSealList, match=r"^seals[ ,].*`logengine seals`"):
        parse_seal_list(text, "seals")
