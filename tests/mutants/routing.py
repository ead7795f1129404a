"""Mutants of what is new to intake: routing, dropped datagrams, requests, followed files."""

from tests.mutants.making import mutant
from tests.mutants.mutant import tests

_ROUTING = "server/test_routing.py::test_"
_ROUTES = tests("unit/test_routes.py")
_NAMES = tests(f"{_ROUTING}names_beyond_max_streams_share_the_fallback_and_are_counted")
_DROPS = tests(
    "server/test_datagrams.py::test_a_socket_that_drops_holds_up_nobody_and_reports_what_is_missing"
)
_REQUESTS = "e2e/test_routing_of_requests.py::test_"
_FILES = "e2e/test_followed_files.py::test_"

MUTANTS = (
    # Which stream a record goes to.
    mutant(
        "first_line_routes_all",
        "records that were read together go to the stream of the first one",
        "intake/router.py",
        "            if count > 1 and not self._routes.are_of_sender:",
        "            if False:",
        tests(f"{_ROUTING}each_record_goes_to_the_stream_that_it_names_in_order"),
    ),
    mutant(
        "one_field_of_the_kernel_is_enough",
        "a record goes to the stream of another one of its process, which has other fields",
        "intake/routes.py",
        "        return all(_is_of_kernel(path) for path in self.paths)",
        "        return any(_is_of_kernel(path) for path in self.paths)",
        _ROUTES,
    ),
    mutant(
        "last_route_first",
        "the last route that holds counts, and not the first",
        "intake/routes.py",
        "        for condition, place in self._places:",
        "        for condition, place in reversed(self._places):",
        _ROUTES,
    ),
    mutant(
        "conditions_forgotten",
        "a record goes where the first route leads, although its condition does not hold",
        "intake/routes.py",
        "            if condition is None or condition.holds_for(record):",
        "            if True:",
        _ROUTES,
    ),
    mutant(
        "missing_field_is_left_out",
        "a record without a field of the template goes to the stream of the rest of the name",
        "intake/routes.py",
        "            if value is None:\n                return None\n",
        '            value = value or ""\n',
        _ROUTES,
    ),
    mutant(
        "text_of_another_record",
        "a record goes to the stream of another one whose first field is the same",
        "intake/routes.py",
        "        values = self._get_values(record)\n",
        "        values = self._get_values(record)[:1]\n",
        _ROUTES,
    ),
    mutant(
        "one_stream_too_many",
        "a record goes to a stream that would be one too many of its user's",
        "intake/router.py",
        "        return stream if has_taken else self._router.fallback",
        "        return stream",
        _NAMES,
    ),
    mutant(
        "fallback_counted_once",
        "of the records read together, one that went to the fallback stream is counted",
        "intake/router.py",
        "        elif not has_taken:\n            self._router.overflowed += records\n",
        "",
        _NAMES,
    ),
    # Datagrams that are dropped for want of room.
    mutant(
        "pressure_drop_uncounted",
        "a datagram that there is no room for is dropped and not counted",
        "intake/datagrams.py",
        "            self._pressure_drops.add(self._own_stream, uid, size_bytes)\n",
        "",
        _DROPS,
    ),
    mutant(
        "pressure_drop_not_reported",
        "dropped datagrams are counted, and their stream does not say so",
        "intake/pressure_drops.py",
        "                self._write(stream, _told(fields))\n",
        "",
        _DROPS,
    ),
    mutant(
        "pressure_drops_of_the_first",
        "of the datagrams dropped since the last report, one is reported",
        "intake/pressure_drops.py",
        "        dropped.datagrams += 1\n",
        "        dropped.datagrams = 1\n",
        _DROPS,
    ),
    mutant(
        "pressure_drops_lost_at_a_stop",
        "a stop does not report the datagrams dropped since the last report",
        "intake/pressure_drops.py",
        "            if is_last or self._may_write(stream):",
        "            if not is_last and self._may_write(stream):",
        tests("unit/test_pressure_drops.py"),
    ),
    mutant(
        "pressure_drops_reported_into_no_room",
        "drops are reported in a stream that has no room",
        "intake/pressure_drops.py",
        "            if is_last or self._may_write(stream):",
        "            if True:",
        tests("unit/test_pressure_drops.py"),
    ),
    mutant(
        "pressure_drops_reported_twice",
        "drops that were reported are reported again",
        "intake/pressure_drops.py",
        "                dropped = self._dropped.pop(place)\n",
        "                dropped = self._dropped[place]\n",
        tests("unit/test_pressure_drops.py"),
    ),
    mutant(
        "pressure_drops_of_many_users_forgotten",
        "drops of more users than are told apart are not reported",
        "intake/pressure_drops.py",
        "            place = (stream, None)\n",
        "            return\n",
        tests("unit/test_pressure_drops.py"),
    ),
    # Requests, which are answered once all of them is on disk.
    mutant(
        "request_answered_before_its_commit",
        "a request is answered with success before its records are on disk",
        "intake/requests.py",
        "                    await commit.done\n",
        "                    await asyncio.sleep(0)\n",
        tests(
            f"{_REQUESTS}a_request_is_answered_when_its_records_are_on_disk_in_all_streams",
            "e2e/test_otlp_http.py::"
            "test_a_stream_that_fails_is_answered_with_503_until_it_works_again",
        ),
    ),
    mutant(
        "request_answered_after_its_first_piece",
        "a long request is answered once its first piece is on disk",
        "intake/requests.py",
        "        if self.last is not None and self._durable >= self.last and not self.done.done():",
        "        if self._durable and not self.done.done():",
        tests(f"{_REQUESTS}a_long_request_is_answered_once_all_of_its_pieces_are_on_disk"),
    ),
    mutant(
        "request_that_timed_out_is_stored",
        "a request whose records are not on disk in time is answered with success",
        "intake/requests.py",
        "                return Refused(Code.UNAVAILABLE, why, RETRY_AFTER_S)\n        reasons",
        "                log.warning(why)\n        reasons",
        tests(
            "e2e/test_otlp_http.py::"
            "test_a_stream_that_fails_is_answered_with_503_until_it_works_again"
        ),
    ),
    mutant(
        "request_stored_in_part",
        "a request that one of its streams cannot take is stored in the others each time it comes",
        "intake/requests.py",
        "        return next(filter(None, refusals), None)",
        "        return None",
        tests(
            f"{_REQUESTS}a_request_for_a_stream_that_fails_stores_nothing_in_the_others"
            "_each_time_it_is_sent"
        ),
    ),
    # Followed files.
    mutant(
        "skipped_and_not_stored",
        "what a new pattern skips is not stored, and read after the next start",
        "followed_files/following.py",
        '            self._add(path, source, b"", source.position)\n',
        "            pass\n",
        tests(f"{_FILES}begin_end_skips_only_what_is_there_at_the_first_start"),
    ),
)
