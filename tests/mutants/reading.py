"""Mutants of reading: what search filters and frame times pass over, and what is read ahead."""

from tests.mutants.making import mutant
from tests.mutants.mutant import tests

_FILTERS = tests("reading/test_search_filters.py")
_LITERALS = tests("property/test_search_filter.py")
_TIMES = tests("reading/test_own_times.py")
_AHEAD = tests("unit/test_read_ahead.py")

MUTANTS = (
    # Search filters.
    mutant(
        "filters_of_another_segment",
        "a search passes over records because of the filters of another segment",
        "format/search_filter.py",
        "    if start.version != FILTERS_VERSION or start.segment != segment:",
        "    if start.version != FILTERS_VERSION:",
        _FILTERS,
    ),
    mutant(
        "filters_of_a_newer_version",
        "a search believes filters that it does not understand",
        "format/search_filter.py",
        "    if start.version != FILTERS_VERSION or start.segment != segment:",
        "    if start.segment != segment:",
        _LITERALS,
    ),
    mutant(
        "damaged_filters_believed",
        "a search passes over records because of filters that are damaged",
        "format/search_filter.py",
        "    if hashlib.sha256(checked).digest() != digest:",
        "    if False:",
        _FILTERS,
        _LITERALS,
    ),
    mutant(
        "all_alternatives_needed",
        "a search for one of several texts passes over frames that do not have all of them",
        "format/search_filter.py",
        "            any(all(map(has, places)) for places in alternatives) for alternatives in",
        "            all(all(map(has, places)) for places in alternatives) for alternatives in",
        _FILTERS,
        _LITERALS,
    ),
    mutant(
        "literal_begins_a_word",
        "a search passes over words in whose middle the text begins",
        "format/search_filter.py",
        "        if start and (is_whole or len(word) >= _WORD_BYTES_MAX):",
        "        if is_whole or len(word) >= _WORD_BYTES_MAX:",
        _LITERALS,
    ),
    mutant(
        "literal_ends_a_word",
        "a search passes over words that go on after the end of the text",
        "format/search_filter.py",
        "        is_whole = stop < len(words) and len(word) >= _WORD_BYTES_MIN",
        "        is_whole = len(word) >= _WORD_BYTES_MIN",
        _LITERALS,
    ),
    mutant(
        "words_of_the_first_piece",
        "the filter of a large frame has the words of its last piece alone",
        "format/search_filter.py",
        '        words.update(_words_of_lines(piece.split(b"\\n")))',
        '        words = set(_words_of_lines(piece.split(b"\\n")))',
        _LITERALS,
    ),
    # Frame times.
    mutant(
        "times_of_another_segment",
        "a range passes over records because of the times of another segment",
        "format/frame_times.py",
        "    if line.segment != segment:\n        return None\n",
        "",
        _TIMES,
    ),
    mutant(
        "damaged_times_believed",
        "a range passes over records because of times that are damaged",
        "format/frame_times.py",
        "    if hashlib.sha256(checked).digest() != digest:",
        "    if False:",
        tests("unit/test_frame_times.py"),
    ),
    mutant(
        "frames_at_the_edge_passed_over",
        "a range passes over frames that have records before or after it as well",
        "disk/search_filters.py",
        "        return [self.times.overlaps(*bounds) for bounds in frames]",
        "        return [self.times.encloses(*bounds) for bounds in frames]",
        _TIMES,
    ),
    mutant(
        "one_frame_encloses_all",
        "records outside of the range are shown because one frame is inside",
        "disk/search_filters.py",
        "        if all(self.times.encloses(*bounds) for bounds in frames):",
        "        if any(self.times.encloses(*bounds) for bounds in frames):",
        tests("unit/test_frame_times.py"),
    ),
    mutant(
        "enclosed_for_ever",
        "a segment that was replaced counts as inside the range, as the one before it was",
        "disk/search_filters.py",
        "        self._enclosed.discard(first)\n",
        "",
        tests("unit/test_frame_times.py"),
    ),
    mutant(
        "times_of_the_newest_record",
        "a frame's greatest time is that of its last record, which may have an earlier one",
        "format/own_time.py",
        "    return min(bounds), max(bounds)",
        "    return bounds[0], bounds[-1]",
        tests("unit/test_frame_times.py"),
    ),
    # What is read ahead.
    mutant(
        "ahead_without_limit",
        "a reader that is slow has any amount of what was read ahead in memory",
        "reading/read_ahead.py",
        "            and self._bytes < _BYTES_MAX\n",
        "",
        _AHEAD,
    ),
    mutant(
        "failed_ahead_is_an_item",
        "an error in reading ahead is taken for what was read",
        "reading/read_ahead.py",
        "        if isinstance(item, Exception):\n            raise item\n",
        "",
        _AHEAD,
    ),
    mutant(
        "ahead_out_of_order",
        "what was read ahead is given for another key",
        "reading/read_ahead.py",
        "                    self._items[index] = item\n",
        "                    self._items[max(index - 1, self._to_take)] = item\n",
        _AHEAD,
    ),
    mutant(
        "passed_stays_in_memory",
        "what was read ahead and passed by stays in memory",
        "reading/read_ahead.py",
        "                self._drop(passed)\n",
        "                pass\n",
        _AHEAD,
    ),
)
