"""Mutants of followed files: which file is which, and how far it is stored."""

from tests.mutants.making import mutant
from tests.mutants.mutant import tests

_WORLD = "property/test_followed_world.py::test_"
_FOLLOWING = "followed_files/following.py"
_GENERATIONS = "followed_files/generations.py"

MUTANTS = (
    mutant(
        "outgrown_file_later",
        "what was known of a shorter file is not forgotten with the commit of the longer one",
        "store/pending.py",
        "((entry.replaces, 0), (entry.producer, entry.number))",
        "((entry.producer, entry.number),)",
        tests(f"{_WORLD}a_file_is_known_once_after_each_commit_of_a_growing_head"),
    ),
    mutant(
        "unread_file_unknown",
        "an open file of which nothing was read is not recognized in its compressed copy",
        _GENERATIONS,
        "    copies = _copies_of(unread, rotated, matches)\n",
        "    copies = _copies_of((), rotated, matches)\n",
        tests(f"{_WORLD}a_generation_that_is_compressed_before_it_was_read_is_read_once"),
    ),
    mutant(
        "current_file_closed",
        "a file that was read to its end is not opened at a start",
        _FOLLOWING,
        "        may_grow = [*rotated[:1], *([current.found] if current else [])]\n",
        "        may_grow = [*rotated[:1]]\n",
        tests(f"{_WORLD}a_file_that_was_read_to_its_end_is_followed_after_a_start"),
    ),
    mutant(
        "overwritten_file_forgotten",
        "a file that was overwritten is forgotten although a copy may be left",
        _FOLLOWING,
        "            self._note_overwritten(path, source.identity)\n",
        "            self._forget(path, [source.identity])\n",
        tests(f"{_WORLD}a_copy_that_gets_its_name_after_the_truncation_is_read_on"),
    ),
    mutant(
        "shorter_beginning",
        "of two known beginnings of a file the shorter one counts",
        _GENERATIONS,
        "    return max(fitting, key=",
        "    return min(fitting, key=",
        tests(
            "unit/test_followed_files.py::test_of_two_beginnings_of_a_file_the_longer_one_counts"
        ),
    ),
)
