"""`verify` beside a compaction that takes away what it has listed, or has read."""

import os
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest

from logengine.disk import segment_file
from logengine.disk.directory import AnyDirectory
from logengine.disk.segment_file import list_segments, read_header, read_segment
from logengine.format.segment import segment_name
from logengine.reading.reader import StreamReader
from logengine.upkeep import verify
from tests.store.compacted import (
    RECORDS,
    commit,
    merge,
    seal,
    seal_each,
    seal_each_and_remove_most,
    seal_twice,
)

SCHEDULES = 100


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A stream of segments of one record each."""
    commit(tmp_path, range(1, RECORDS + 1))
    return tmp_path


def merge_twice(data: Path) -> None:
    merge(data, 1, 3)
    merge(data, 4, 6)
    merge(data, 1, 8)


@pytest.mark.parametrize("at", range(1, RECORDS + 1))
@pytest.mark.parametrize(
    "change",
    [
        lambda data: merge(data, 1, 8),
        lambda data: merge(data, 3, 6),
        merge_twice,
        lambda data: seal(data, 1, 8),
        seal_twice,
        seal_each,
        seal_each_and_remove_most,
    ],
)
def test_what_is_compacted_meanwhile_is_no_finding(
    data: Path, at: int, change: Callable[[Path], None]
) -> None:
    reads = 0

    def read(directory: Path, first: int) -> Any:
        nonlocal reads
        reads += 1
        if reads == at:
            change(data)
        return read_segment(directory, first)

    with patch.object(verify, "read_segment", read):
        findings = list(verify.verify_stream(data / "app"))
    assert [str(finding) for finding in findings if not finding.harmless] == []
    assert read_header(data / "app", RECORDS).count == 1
    assert [str(finding) for finding in verify.verify_stream(data / "app")] == []


class FileByFile:
    """Shows a stream's directory as it is during a change, one file further at some looks."""

    def __init__(self, data: Path, contents: Sequence[dict[str, bytes]], seed: int) -> None:
        self._directory = data / "app"
        self._contents = iter(contents)
        source = random.Random(seed)
        rate = source.choice([0.1, 0.3, 0.6, 1.0])
        self._goes_on = [source.random() < rate for _ in range(200)]
        self._goes_on[: source.randrange(40)] = []
        self._show(next(self._contents))

    def look(self) -> None:
        if self._goes_on and self._goes_on.pop():
            self._show(next(self._contents, None))

    def _show(self, content: dict[str, bytes] | None) -> None:
        if content is None:
            return
        for name, stored in content.items():
            path = self._directory / name
            if not path.exists() or path.read_bytes() != stored:
                path.write_bytes(stored)
        for path in self._directory.iterdir():
            if path.name not in content:
                path.unlink()


def contents_during(data: Path, change: Callable[[Path], None]) -> list[dict[str, bytes]]:
    """What is in the stream's directory before the change, and after each file it changes."""
    contents: list[dict[str, bytes]] = []

    def note(*_: Any) -> None:
        content = {path.name: path.read_bytes() for path in (data / "app").glob("[0-9]*")}
        if not contents or content != contents[-1]:
            contents.append(content)

    def noted(call: Callable[..., None]) -> Callable[..., None]:
        def changing(*args: Any, **kwargs: Any) -> None:
            call(*args, **kwargs)
            note()

        return changing

    note()
    with (
        patch.object(os, "replace", noted(os.replace)),
        patch.object(os, "unlink", noted(os.unlink)),
    ):
        change(data)
    return contents


CHANGES = [
    lambda data: merge(data, 1, 8),
    lambda data: merge(data, 3, 6),
    merge_twice,
    lambda data: seal(data, 1, 8),
    seal_twice,
    seal_each,
]


def each_look(change: FileByFile) -> ExitStack:
    """Has `change` go on at each listing and each opening of a segment."""
    stack = ExitStack()
    for name in ("_open_as", "segments_among"):
        real = getattr(segment_file, name)

        def looking(*args: Any, _real: Any = real, **kwargs: Any) -> Any:
            change.look()
            return _real(*args, **kwargs)

        stack.enter_context(patch.object(segment_file, name, looking))
    return stack


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_compacted_file_by_file_is_no_finding(
    data: Path, change: Callable[[Path], None]
) -> None:
    contents = contents_during(data, change)
    for seed in range(SCHEDULES):
        with each_look(FileByFile(data, contents, seed)):
            findings = list(verify.verify_stream(data / "app"))
        assert [str(each) for each in findings if not each.harmless] == [], seed


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_compacted_file_by_file_is_read_whole(
    data: Path, change: Callable[[Path], None]
) -> None:
    contents = contents_during(data, change)
    for seed in range(SCHEDULES):
        reader = StreamReader(data, "app", lambda problem: pytest.fail(str(problem)))
        with each_look(FileByFile(data, contents, seed)):
            seqs = [record.seq for block in reader.read() for record in block.records()]
        assert seqs == list(range(1, RECORDS + 1)), seed


@pytest.mark.parametrize("unseen", range(2, RECORDS))
def test_a_segment_that_one_listing_leaves_out_is_no_finding(data: Path, unseen: int) -> None:
    listings = iter([{unseen}])

    def listed(directory: AnyDirectory) -> list[int]:
        hidden: Collection[int] = next(listings, set())
        return [first for first in list_segments(directory) if first not in hidden]

    with patch.object(verify, "list_segments", listed):
        assert list(verify.verify_stream(data / "app")) == []


@pytest.mark.parametrize("missing", [{2}, {2, 3, 4}, {3, 5}])
def test_what_is_missing_is_found_once(data: Path, missing: set[int]) -> None:
    for first in missing:
        (data / "app" / segment_name(first)).unlink()
    findings = [str(finding).split(": ")[1] for finding in verify.verify_stream(data / "app")]
    assert findings == list(gaps(missing))


def gaps(missing: set[int]) -> Iterator[str]:
    for first in sorted(missing):
        if first - 1 not in missing:
            last = next(seq for seq in range(first, RECORDS) if seq + 1 not in missing)
            yield f"records {first} to {last} before it are missing"
