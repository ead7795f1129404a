"""Follows the files of all patterns: finds them, reads them in turn, has what it reads stored.

One task reads one file at a time, a piece of it, in a thread. It is at most a few pieces ahead of
what is durable, and reads only when there is room, as for the senders of sockets: a file waits
without any harm. If the daemon is killed, the next one asks the segments how far each file is
stored, and nothing that was read but not stored counts.
"""

import asyncio
import os
import re
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

import structlog

from logengine.errors import TooManyStreams
from logengine.followed_files.changes import Changes
from logengine.followed_files.contents import Content
from logengine.followed_files.generations import Found, Step, Unread, outlived, plan_reading
from logengine.followed_files.identity import Identity, Inode, parse_name, path_hash
from logengine.followed_files.settings import FileConfig, plain_path, stream_of
from logengine.followed_files.source import Source
from logengine.followed_files.survey import Family, Survey, changed_ns, survey
from logengine.followed_files.text import TextRules
from logengine.format.record import Peer, peer_fields, readable_text
from logengine.format.timestamp import parse_timestamp
from logengine.intake.context import IntakeContext
from logengine.protocols.status import FileStatus
from logengine.store.committer import Committer
from logengine.store.pending import Entry
from logengine.store.store import Store

log = structlog.get_logger()

Result = TypeVar("Result")

# How many files a stream remembers, and how many generations of each path: their names are in the
# header of every commit, about 55 bytes each.
FILES_PER_STREAM_MAX = 256
_GENERATIONS_MAX = 8
_LOOK_EVERY_S = 1.0
# What was written this long before the newest record may have been unread when the daemon ended.
_UNREAD_BEFORE_NS = 5_000_000_000
_SURVEY_EVERY_S = 5.0
# Looks take at most about a twentieth of the time.
_PAUSE_MIN_S = 0.05
_PAUSE_PER_LOOK = 20
_UNDER_WAY_BYTES_MAX = 8 * 1024 * 1024
# So many pieces of a file may be on their way: one is converted while others are committed.
_PIECES_MAX = 4


@dataclass(eq=False)
class _Path:
    """A path that is followed: its open files, the oldest first, and what is stored of each."""

    path: str
    pattern: int
    stream: str
    known: dict[Identity, int]
    fields: bytes  # of the envelope
    family: Family | None = None
    needs_plan: bool = True
    skips_what_is_there: bool = False
    since_ns: int | None = None  # if nothing is known: what was written to later was missed
    sources: list[Source] = field(default_factory=list)
    finished: set[Identity] = field(default_factory=set)  # of which nothing more is expected
    problem: str = ""
    is_gone: bool = False  # the file that was closed last had no name any more


class _Forgetter:
    """The sender of entries that only forget files, or note which they are."""

    uid = os.geteuid()

    def durable(self, number: int) -> None:
        """Does nothing."""


class FollowedFiles:
    """Follows the files of `[[file]]` sections. Runs on one event loop.

    At most `open_max` files are open. Files in the directory `data` are refused.
    """

    def __init__(
        self,
        rules: Sequence[FileConfig],
        store: Store,
        committer: Committer,
        around: IntakeContext,
        *,
        data: str,
        open_max: int,
    ) -> None:
        self._rules = rules
        self._texts = [
            TextRules(
                rule.format,
                re.compile(rule.start.encode()) if rule.start else None,
                min(int(rule.max_line), around.max_record),
                float(rule.wait),
            )
            for rule in rules
        ]
        self._store = store
        self._committer = committer
        self._admission = around.admission
        self._arrivals = around.arrivals
        self._stream_names = around.stream_names
        self._data = data
        self._open_max = open_max
        self._loop = asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "files")
        self._changes = Changes()
        self._generation = -1
        self._not_recovered: Collection[str] = ()
        self._paths: dict[str, _Path] = {}
        self._stored: dict[str, dict[Identity, int]] = {}  # at the start, by path hash
        self._names: dict[str, dict[str, None]] = {}  # of files, in each stream's headers
        self._under_way: dict[Source, int] = {}  # bytes that are not durable yet
        self._again: set[Source] = set()  # to be looked at before the next look at all of them
        self._fresh: set[int] = set()  # at the first survey: all patterns
        # Until the paths that are there at the start are known.
        self._missed_since_ns: int | None = None
        self._survey_due_s = self._look_due_s = self._look_anyway_s = 0.0
        self._has_work = False  # without waiting for anything
        self._has_changed = False  # something, since the last look at all files
        self._active: dict[_Path, None] = {}  # those with something to read
        self._changed_ns: dict[str, int] = {}  # of the directories, at the last survey

    async def run(self) -> None:
        """Follows until it is cancelled."""
        try:
            while True:
                try:
                    await self._step()
                except Exception:
                    # No failure because of one file may stop the daemon.
                    log.exception("following_failed", retry_in_s=_LOOK_EVERY_S)
                    self._look_due_s = self._loop.time() + _LOOK_EVERY_S
                await self._wait()
        finally:
            self._thread.shutdown(cancel_futures=True)
            self._close_all()
            self._changes.close()

    async def _wait(self) -> None:
        """Returns when there is something to do."""
        if self._has_changed:
            pause_s = max(0.0, self._look_due_s - self._loop.time())
            await self._changes.wait(pause_s, hears=False)
        elif await self._changes.wait(0 if self._has_work else _LOOK_EVERY_S, hears=True):
            self._has_changed = True

    def status(self) -> list[FileStatus]:
        """Returns the state of each file, those with a problem or much to read first."""
        found = [
            FileStatus(
                path=os.path.join(os.path.dirname(path.path), source.content.found.name),
                stream=path.stream,
                position=source.position,
                size=source.size,
                problem=source.problem or path.problem,
            )
            for path in self._paths.values()
            for source in path.sources
        ] + [
            FileStatus(path.path, path.stream, 0, 0, path.problem)
            for path in self._paths.values()
            if path.problem and not path.sources
        ]
        return sorted(found, key=lambda each: (not each.problem, each.position - each.size))

    async def _step(self) -> None:
        """Looks for changes, and reads a piece of each file that has something to read."""
        self._has_work = False
        if not self._is_loaded() and not self._load():
            return
        now_s = self._loop.time()
        if now_s >= self._survey_due_s:
            await self._survey()
        for path in list(self._paths.values()):
            if path.needs_plan:
                await self._plan(path)
        await self._look()
        for path in list(self._active):
            del self._active[path]
            await self._serve(path)

    def _is_loaded(self) -> bool:
        if self._generation != self._store.generation:
            return False
        # Which files a stream has is known once it is recovered. What is under way must be durable
        # before it is asked.
        is_news = set(self._not_recovered) != self._store.not_recovered().keys()
        return not is_news or bool(self._under_way)

    def _load(self) -> bool:
        """Asks the segments how far each file is stored. Returns whether that is known."""
        if not self._store.is_open:
            return False
        self._close_all()
        if self._generation == -1:
            self._fresh = set(range(len(self._rules)))
            if latest := self._store.latest_found:  # the disk may have failed at the start
                self._missed_since_ns = parse_timestamp(latest) - _UNREAD_BEFORE_NS
        self._generation = self._store.generation
        self._not_recovered = set(self._store.not_recovered())
        self._stored, self._names = {}, {}
        for stream, numbers in self._store.followed_files().items():
            self._names[stream] = dict.fromkeys(numbers)
            for name, number in numbers.items():
                if (identity := parse_name(name)) is not None:
                    its = self._stored.setdefault(identity.path_hash, {})
                    # A path whose stream was changed has records in both.
                    its[identity] = max(number, its.get(identity, 0))
        self._survey_due_s = 0.0
        return True

    async def _survey(self) -> None:
        followed = [(each.path, each.pattern) for each in self._paths.values()]
        found: Survey = await self._in_thread(
            survey, [plain_path(rule.path) for rule in self._rules], followed, self._is_stored
        )
        self._survey_due_s = self._loop.time() + _SURVEY_EVERY_S
        self._changes.watch(found.directories)
        self._changed_ns = found.changed_ns
        known_patterns = {
            each.pattern for each in found.families if self._stored.get(path_hash(each.path))
        }
        for family in found.families:
            path = self._paths.get(family.path) or self._begin(family)
            if path.family is None or path.family.inodes != family.inodes or path.problem:
                path.needs_plan = True
            if family.pattern in self._fresh - known_patterns:
                begin = self._rules[family.pattern].begin
                path.skips_what_is_there = path.family is None and begin == "end"
            if path.family is None and not path.skips_what_is_there:
                path.since_ns = self._missed_since_ns
            path.family = family
        self._fresh.clear()
        if not self._not_recovered:
            self._missed_since_ns = None
        there = {family.path for family in found.families if family.inodes}
        for path in list(self._paths.values()):
            if path.path not in there:
                self._note_missing(path)

    def _is_stored(self, path: str) -> bool:
        """Whether something of a path is stored. Runs in the thread, which changes nothing."""
        return bool(self._stored.get(path_hash(path)))

    def _begin(self, family: Family) -> _Path:
        rule = self._rules[family.pattern]
        known = self._stored.setdefault(path_hash(family.path), {})
        stream = stream_of(family.path, rule.stream)
        name = readable_text(os.fsencode(family.path))
        fields = peer_fields(Peer(uid=os.geteuid(), gid=os.getegid(), file=name))
        path = _Path(family.path, family.pattern, stream, known, fields)
        self._paths[family.path] = path
        return path

    def _note_missing(self, path: _Path) -> None:
        """Notes that there is no file of a path, and forgets the path if all of it was read."""
        for source in path.sources:
            source.is_current = False
        if path.sources:
            return
        del self._paths[path.path]
        self._stream_names.give_back(path)
        if path.is_gone:
            self._forget(path, list(path.known))

    async def _plan(self, path: _Path) -> None:
        """Opens the files of a path that are to be read."""
        problem = self._why_not(path)
        contents: list[Content] = []
        if not problem:
            opened = await self._in_thread(self._open_family, path)
            if opened is None:
                self._survey_due_s, self._has_work = 0.0, True
                return
            contents, problem = opened
        if problem != path.problem:
            path.problem = problem
            if problem:
                log.warning("file_not_followed", path=path.path, reason=problem)
        path.needs_plan = False
        current = next((each for each in contents if each.path == path.path), None)
        rotated = [each.found for each in contents if each is not current]
        steps = plan_reading(
            path.known,
            rotated,
            current.found if current else None,
            [
                Unread(each.content.found.inode, each.unread_head)
                for each in path.sources
                if each.identity is None
            ],
            path.since_ns,
        )
        path.since_ns = path.since_ns if problem else None
        older = [*path.sources]
        may_grow = [*rotated[:1], *([current.found] if current else [])]
        newer = self._take(path, steps, contents, may_grow)
        for source in older:
            source.is_current = source.is_current and bool(problem)
        for source in newer:
            source.is_current = source.content.path == path.path
            if path.skips_what_is_there and source.is_current:
                await self._skip(path, source)
        path.skips_what_is_there = False
        path.sources = [*(each for each in older if each not in newer), *newer]
        named = [*(each.identity for each in path.sources), *(each.identity for each in steps)]
        in_use = {each for each in named if each is not None}
        # One that could not be opened may be among them.
        old = [] if problem else outlived(path.known, in_use, _GENERATIONS_MAX)
        self._forget(path, old)
        self._again.update(path.sources)

    def _take(
        self,
        path: _Path,
        steps: Sequence[Step],
        contents: Sequence[Content],
        may_grow: Sequence[Found],
    ) -> list[Source]:
        """Returns a source for each step, an open one if there is; closes the other contents.

        The current file and the last rotated one `may_grow`.
        """
        by_found = {each.found: each for each in contents}
        taken: list[Source] = []
        for step in steps:
            content = by_found[step.found]
            source = next(
                (each for each in path.sources if _is_same(each, content, step.identity)), None
            )
            if source is not None:
                source.content.rename(content)
                taken.append(source)
            elif not self._is_read(path, step, may_grow=step.found in may_grow):
                taken.append(self._source(path, by_found.pop(step.found), step))
        for content in by_found.values():
            content.close()
        return taken

    def _is_read(self, path: _Path, step: Step, *, may_grow: bool) -> bool:
        """Whether a file need not be opened. One that may grow is, even if all of it was read."""
        if step.is_copy:
            is_open = any(each.identity == step.identity for each in path.sources)
            return is_open or step.identity in path.finished
        return step.found.size == step.position and bool(step.position) and not may_grow

    def _source(self, path: _Path, content: Content, step: Step) -> Source:
        return Source(
            path.path,
            path.stream,
            content,
            step.identity,
            step.position,
            self._texts[path.pattern],
            is_current=False,
            is_complete=step.is_copy or step.found.size is None,
            on_durable=self._is_durable,
            on_room=self._look_again,
        )

    def _why_not(self, path: _Path) -> str:
        """Returns why the files of a path cannot be read now; empty if they can."""
        is_known = self._store.is_known(path.stream)
        if is_known and not self._store.knows_producers(path.stream):
            return f"stream {path.stream!r} cannot be read, and it may have some of the file"
        if not path.known and self._not_recovered:
            return "some streams cannot be read, and one of them may have some of the file"
        if not path.sources and self._open >= self._open_max:
            return f"{self._open_max:,} files are open, which the limit of open files allows"
        try:
            self._stream_names.take(path, path.stream, _Forgetter.uid)
        except TooManyStreams as error:
            return str(error)
        return ""

    @property
    def _open(self) -> int:
        return sum(len(path.sources) for path in self._paths.values())

    def _open_family(self, path: _Path) -> tuple[list[Content], str] | None:
        """Opens a path's file and its older generations; returns them and a problem, if any.

        Returns None if they were renamed meanwhile.
        """
        directory = os.path.dirname(path.path)
        real, data = os.path.realpath(path.path), os.path.realpath(self._data)
        family = path.family
        if os.path.commonpath([real, data]) == data:
            return [], "it is in the data directory"
        if family is None:
            return [], ""
        contents: list[Content] = []
        problem = ""
        opened: set[int] = set()
        for name, inode in self._wanted(path, family):
            if inode in opened:
                continue  # another name of the same file
            opened.add(inode)
            try:
                content = Content(
                    os.path.join(directory, name),
                    follow_links=self._rules[path.pattern].follow_links,
                )
            except OSError as error:
                if isinstance(error, FileNotFoundError):
                    _close_contents(contents)  # which is which is not known
                    return None
                problem = problem or f"{name}: {error.strerror}"
                continue
            contents.append(content)
            if content.found.inode.number != inode and not self._rules[path.pattern].follow_links:
                _close_contents(contents)
                return None
        heads = {each.found.inode: each.found.head for each in contents}
        for source in path.sources:
            try:
                # One that has no name any more is complete by now, as its copy is.
                source.renew_head(heads.get(source.content.found.inode))
            except OSError as error:
                self._note_problem(source, error)
        return contents, problem

    def _wanted(self, path: _Path, family: Family) -> Sequence[tuple[str, int]]:
        """Returns the names and inodes of the files that may have something to read."""
        if path.known or path.sources:
            return family.inodes
        if path.since_ns is None:
            return family.inodes[: int(family.is_there)]
        # A generation of which something is stored was a path of its own, and was not missed.
        directory = os.path.dirname(path.path)
        return [
            each for each in family.inodes if not self._is_stored(os.path.join(directory, each[0]))
        ]

    async def _skip(self, path: _Path, source: Source) -> None:
        """Begins after the lines that a file has when its pattern is new, and has that stored."""
        await self._in_thread(source.skip)
        if source.identity is not None:
            self._add(path, source, b"", source.position)

    async def _look(self) -> None:
        """Looks at all files, or only at those of which something became durable."""
        now_s = self._loop.time()
        is_due = now_s >= self._look_due_s
        looks_at_all = is_due and (self._has_changed or now_s >= self._look_anyway_s)
        again, self._again = self._again, set()
        wanted = [
            (path, source)
            for path in list(self._paths.values())
            for source in path.sources
            if looks_at_all or source in again
        ]
        directories = list(self._changed_ns) if looks_at_all else []
        changed = await self._in_thread(self._look_at, wanted, directories, now_s)
        if looks_at_all:
            self._has_changed = False
            ended_s = self._loop.time()
            self._look_due_s = ended_s + max(_PAUSE_MIN_S, _PAUSE_PER_LOOK * (ended_s - now_s))
            self._look_anyway_s = ended_s + _LOOK_EVERY_S
            if changed != self._changed_ns:
                self._survey_due_s, self._has_work = 0.0, True
        for path, source in wanted:
            if source.is_truncated:
                self._note_truncated(path, source)
            elif source.may_close(now_s):
                path.is_gone = source.is_gone
                if source.identity is not None:
                    path.finished.add(source.identity)
                self._close(path, source)
        for path in {path for path, _ in wanted}:
            if any(source.has_work(now_s) for source in path.sources):
                self._active[path] = None

    def _look_at(
        self, sources: Sequence[tuple[_Path, Source]], directories: Sequence[str], now_s: float
    ) -> dict[str, int]:
        for _, source in sources:
            try:
                source.look(now_s)
            except OSError as error:
                self._note_problem(source, error)
        return changed_ns(directories)

    def _note_truncated(self, path: _Path, source: Source) -> None:
        log.info(
            "followed_file_truncated",
            path=source.content.path,
            read_bytes=source.position,
            size_bytes=source.size,
        )
        if source.identity is not None:
            self._note_overwritten(path, source.identity)
        self._close(path, source)
        path.needs_plan = self._has_work = True
        self._survey_due_s = 0.0  # what it had may be in a copy

    async def _serve(self, path: _Path) -> None:
        """Reads a piece of the first file of a path that has something to read."""
        now_s = self._loop.time()
        for source in path.sources:
            if source.waits_for_room or source.pieces_under_way >= _PIECES_MAX:
                return
            if source.has_work(now_s):
                await self._read(path, source, now_s)
                return
            if source.pieces_under_way:
                return

    async def _read(self, path: _Path, source: Source, now_s: float) -> None:
        if self._admission.room_for(source) is None:
            source.waits_for_room = True
            self._admission.pause(source)
            return
        if sum(self._under_way.values()) >= _UNDER_WAY_BYTES_MAX and self._is_much_under_way():
            self._active[path] = None  # what becomes durable wakes this
            return
        position, generation = source.position, self._generation
        self._arrivals.renew_time()
        try:
            reading = await self._in_thread(source.read, self._arrivals.now(), now_s)
        except OSError as error:
            self._note_problem(source, error)
            return
        source.problem = ""
        if source.is_truncated:
            self._look_again(source)
            return
        if generation != self._store.generation:
            return
        assert not reading.lines or source.identity is not None
        if reading.lines and not self._has_room_for_name(path, source):
            source.go_back(position)
            source.problem = f"stream {path.stream!r} has {FILES_PER_STREAM_MAX} files already"
            return
        if reading.lines:
            self._add(path, source, reading.lines, reading.position)
            if source.pieces_under_way < _PIECES_MAX and source.has_work(now_s):
                self._active[path] = None
                self._has_work = True
        elif reading.position > position or source.may_close(now_s):
            self._look_again(source)

    def _add(self, path: _Path, source: Source, lines: bytes, position: int) -> None:
        """Queues what was read, together with the position after it."""
        assert source.identity is not None
        name = source.identity.name
        path.known.pop(source.identity, None)
        path.known[source.identity] = position
        names = self._names.setdefault(path.stream, {})
        names[name] = None
        # In one commit: a kill must not leave two beginnings of a file, one with less read.
        outgrown, source.outgrown = source.outgrown, None
        replaces = outgrown.name if outgrown is not None and outgrown.name in names else None
        if replaces is not None:
            del names[replaces]
        self._arrivals.renew_time()
        arrived = self._arrivals.stamp(source, path.fields, lines)
        source.wait_for(position, len(arrived.body))
        self._under_way[source] = source.under_way_bytes
        entry = Entry(
            arrived.body, arrived.records, arrived.timestamp, position, source, name, replaces
        )
        self._arrivals.add(path.stream, entry, is_awaited=position < source.size)
        if outgrown is not None:
            self._forget(path, [outgrown])  # where its path was stored in another stream

    def _note_overwritten(self, path: _Path, identity: Identity) -> None:
        """Has the segments note that only a copy may be left, which may get its name later."""
        position = path.known.get(identity)
        if position is None or identity.is_overwritten:
            return
        path.known[identity.overwritten] = position
        names = self._names.setdefault(path.stream, {})
        replaces = identity.name if identity.name in names else None
        if replaces is not None:
            del names[replaces]
        name = identity.overwritten.name
        names[name] = None
        self._arrivals.renew_time()
        timestamp = self._arrivals.timestamp()
        entry = Entry(b"", 0, timestamp, position, _Forgetter(), name, replaces)
        self._arrivals.add(path.stream, entry)
        self._forget(path, [identity])

    def _is_durable(self, source: Source) -> None:
        self._under_way.pop(source, None)
        if source.pieces_under_way:
            self._under_way[source] = source.under_way_bytes
        self._look_again(source)

    def _look_again(self, source: Source) -> None:
        self._again.add(source)
        self._changes.wake()

    def _is_much_under_way(self) -> bool:
        """Whether much is about to be stored, apart from what waits for a stream that fails."""
        size_bytes = sum(
            size_bytes
            for source, size_bytes in self._under_way.items()
            if self._admission.room_for(source) is not None
        )
        return size_bytes >= _UNDER_WAY_BYTES_MAX

    def _has_room_for_name(self, path: _Path, source: Source) -> bool:
        """Whether the stream can remember the file; forgets another one if need be."""
        names = self._names.setdefault(path.stream, {})
        assert source.identity is not None
        its = {each.name for each in (source.identity, source.outgrown) if each is not None}
        if not its.isdisjoint(names) or len(names) < FILES_PER_STREAM_MAX:
            return True
        spare = self._spare_name(path.stream)
        if spare is not None:
            self._forget_name(path.stream, spare)
        return spare is not None

    def _spare_name(self, stream: str) -> str | None:
        """Returns a name that a stream may forget: of a path that is gone, or an old generation.

        What is older than a known generation is never read, so it need not be known itself.
        """
        followed = {path_hash(each) for each in self._paths}
        for name in self._names[stream]:
            identity = parse_name(name)
            if identity is None or identity.path_hash not in followed:
                return name
        for path in self._paths.values():
            in_use = {source.identity for source in path.sources}
            for identity in list(path.known)[:-1]:
                if identity not in in_use and identity.name in self._names[stream]:
                    del path.known[identity]
                    return identity.name
        return None

    def _forget(self, path: _Path, identities: Sequence[Identity]) -> None:
        """Has the segments forget files of a path that will not be seen again."""
        for identity in identities:
            path.known.pop(identity, None)
            for stream, names in self._names.items():
                if identity.name in names:
                    self._forget_name(stream, identity.name)

    def _forget_name(self, stream: str, name: str) -> None:
        del self._names[stream][name]
        self._arrivals.renew_time()
        timestamp = self._arrivals.timestamp()
        self._arrivals.add(stream, Entry(b"", 0, timestamp, 0, _Forgetter(), name))

    def _note_problem(self, source: Source, error: OSError) -> None:
        reason = error.strerror or str(error)
        if source.problem != reason:
            source.problem = reason
            log.warning("file_not_read", path=source.content.path, reason=reason)

    def _close(self, path: _Path, source: Source) -> None:
        path.sources.remove(source)
        self._admission.forget(source)
        source.content.close()

    def _close_all(self) -> None:
        for path in self._paths.values():
            for source in list(path.sources):
                self._close(path, source)
            self._stream_names.give_back(path)
        self._paths.clear()
        self._under_way.clear()
        self._again.clear()

    async def _in_thread(self, call: Callable[..., Result], *arguments: Any) -> Result:
        return await self._loop.run_in_executor(self._thread, call, *arguments)


def _close_contents(contents: Sequence[Content]) -> None:
    for content in contents:
        content.close()


def _is_same(source: Source, content: Content, identity: Identity | None) -> bool:
    """Whether an open file is the one that was found."""
    its: Inode = source.content.found.inode
    return its == content.found.inode and source.identity == identity
