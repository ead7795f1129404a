"""What the notes of `--resume` mean, and how rotated files and cursors are known."""

import pytest

from logengine.errors import AnotherInput, DamagedResumeState
from logengine.resume.cursor import Cursor, SeenEntries, highest_numbers, parse_cursor
from logengine.resume.history import (
    EntriesNote,
    Header,
    History,
    LinesNote,
    Place,
    decode_history,
    entries_note,
)
from logengine.resume.lines import digest_of, identify
from logengine.resume.recognition import plan_reading
from logengine.resume.rotation import Rotated, newer_than, rotated_names

HEADER = Header(stream="app", producer="name", socket="/socket")


class MemoryFiles:
    """Files by their paths: inodes, and what is in them."""

    def __init__(self, **files: tuple[int, bytes]) -> None:
        self._files = {f"/{name.replace('_', '.')}": each for name, each in files.items()}

    def inode(self, path: str) -> int:
        return self._files[path][0]

    def holds(self, path: str, place: Place) -> bool:
        content = self._files[path][1]
        head = content[: place.identity.length]
        portion = content[place.start : place.stop]
        return digest_of(head) == place.identity.fingerprint and digest_of(portion) == place.digest

    def rotated(self, path: str) -> list[Rotated]:
        names = [each.removeprefix("/") for each in self._files]
        return [
            each._replace(name=f"/{each.name}")
            for each in rotated_names(path.removeprefix("/"), names)
        ]

    def moved(self, path: str, inode: int) -> list[str]:
        return [each for each, (its, _) in self._files.items() if its == inode]

    def describe(self, path: str) -> str:
        return f"holds {self._files[path][1]!r}"


def place(number: int, path: str, inode: int, content: bytes) -> Place:
    count = content.count(b"\n")
    return Place(
        input=number,
        identity=identify(path, inode, content),
        start=0,
        stop=len(content),
        digest=digest_of(content),
        before=0,
        lines=count,
        done=count,
    )


def steps(known: list[Place], files: MemoryFiles, *given: str) -> list[tuple[str, int | None]]:
    plan = plan_reading(given or ["/log"], known, files, anew=False)
    return [(step.path, step.place.input if step.place else None) for step in plan]


def test_a_rotated_file_comes_first_and_generations_between_follow() -> None:
    files = MemoryFiles(
        log=(4, b"new\n"),
        log_1=(3, b"c\n"),
        log_2=(2, b"b\n"),
        log_3=(1, b"a\nx\n"),
        log_4=(9, b""),
    )
    assert steps([place(1, "/log", 1, b"a\n")], files) == [
        ("/log.3", 1),
        ("/log.2", None),
        ("/log.1", None),
        ("/log", None),
    ]


def test_a_path_has_only_the_file_that_was_read_under_it_last() -> None:
    """The older one was truncated; the file begins with all that was in it, a header perhaps."""
    known = [place(1, "/log", 1, b"header\n"), place(2, "/log", 1, b"header\ngone\n")]
    with pytest.raises(AnotherInput, match=r"/log .* holds b'header\\nnew"):
        steps(known, MemoryFiles(log=(1, b"header\nnew\n")))


def test_the_inode_decides_between_files_of_one_content() -> None:
    files = MemoryFiles(log=(2, b"tick\ntick\n"), log_1=(1, b"tick\n"))
    assert steps([place(1, "/log", 1, b"tick\n")], files) == [("/log.1", 1), ("/log", None)]
    assert steps([place(1, "/log", 2, b"tick\n")], files) == [("/log", 1)]


def test_a_file_that_was_not_read_before_is_none_that_begins_alike() -> None:
    files = MemoryFiles(log=(1, b"same\n"), other=(2, b"same\nmore\n"))
    assert steps([place(1, "/log", 1, b"same\n")], files, "/other") == [("/other", None)]


def test_a_later_note_overrides_those_of_its_numbers() -> None:
    history = History(HEADER)
    history.add(entries_note(1, [Cursor("s", number) for number in (1, 2, 3, 4)]))
    history.add(entries_note(3, [Cursor("s", 9)]))
    assert history.last == 3
    entries = history.at(3).entries
    assert [number for number in range(10) if Cursor("s", number) in entries] == [1, 2, 9]
    assert Cursor("s", 2) not in history.at(1).entries
    history.fold(3)
    assert (history.base, history.header.journal) == (3, {"s": 9})
    with pytest.raises(ValueError, match="a note of 5"):
        history.add(EntriesNote(5, []))


def test_a_place_says_how_many_lines_of_a_portion_are_stored() -> None:
    history = History(HEADER)
    history.add(LinesNote(1, 4, place(1, "/log", 1, b"a\nb\nc\nd\n")))
    assert [history.at(number).places[0].done for number in (1, 2, 4)] == [1, 2, 4]
    assert not history.fold(3)
    assert history.fold(4)
    assert history.at(4).places[0].done == 4


def test_an_input_that_is_there_is_not_forgotten_for_new_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("logengine.resume.history.INPUTS_MAX", 2)
    history = History(HEADER)
    for number in (1, 2, 3):
        history.add(LinesNote(number, 1, place(number, f"/{number}", number, b"a\n")))
        history.touch({1})
        history.fold(number)
    assert {each.input for each in history.at(3).places} == {1, 3}


def test_a_torn_last_line_counts_for_nothing() -> None:
    history = History(HEADER)
    history.add(entries_note(1, [Cursor("s", 1)]))
    data = history.encode()
    assert decode_history(data, "file").last == 1
    for cut in range(len(HEADER.stream), len(data)):
        if b"\n" in data[:cut]:
            assert decode_history(data[:cut], "file").last == 0
    with pytest.raises(DamagedResumeState, match="file is damaged"):
        decode_history(b"{}\n" + data, "file")
    with pytest.raises(DamagedResumeState):
        decode_history(b"", "file")


def test_generations_are_known_by_their_names() -> None:
    given = "a.log a.log.1 a.log.2 a.log.2.gz a.log.10.gz a.log-20261127 a.log-20261128.xz"
    others = "a-2026-11-28_10.log a.log.old a.log.bak a.log~ b.log.1 a.log.1.txt aXlog.1"
    names = f"{given} {others}".split()
    found = rotated_names("a.log", names)
    assert {each.name for each in found} == {
        *("a.log.1", "a.log.2", "a.log.10.gz", "a.log-20261127", "a.log-20261128.xz"),
        *("a-2026-11-28_10.log", "a.log.old"),
    }
    assert newer_than("a.log.10.gz", found) == ["a.log.2", "a.log.1"]
    assert newer_than("a.log-20261127", found) == ["a.log-20261128.xz"]


def test_a_cursor_is_a_number_of_a_sequence_in_a_boot() -> None:
    assert parse_cursor("s=a;i=1f;b=c;m=1;t=2;x=3") == Cursor("s=a;b=c", 31)
    assert parse_cursor("s=0;i=1") == Cursor("s=0;b=", 1)
    for text in ("", "s=1", "i=1", "s=1;i=", "s=1;i=-1", "s=1;i=g"):
        assert parse_cursor(text) is None


def test_entries_are_seen_in_any_order() -> None:
    seen = SeenEntries({"a": 10})
    for number in (20, 30, 25):
        assert Cursor("a", number) not in seen
        seen.add(Cursor("a", number))
    there = [number for number in range(40) if Cursor("a", number) in seen]
    assert there == [*range(11), 20, 25, 30]
    assert Cursor("b", 1) not in seen


def test_of_too_many_sequences_the_oldest_are_let_go() -> None:
    cursors = [Cursor("a", 1), Cursor("b", 2), Cursor("a", 3), Cursor("c", 1)]
    assert highest_numbers({}, cursors, 2) == {"a": 3, "c": 1}
