"""Each line of a followed file is stored once, whatever happens between two of its system calls."""

import gzip
import os
import random
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.property.followed_world import World
from tests.property.rotating_program import RotatingProgram

WAYS = {
    "rename": ["rename"],
    "compress": ["rename", "compress", "compress_aside", "delaycompress"],
    "copytruncate": ["copytruncate", "copytruncate_and_compress", "pack_and_truncate"],
    "all": [
        *["rename", "compress", "compress_aside", "delaycompress"],
        *["copytruncate", "copytruncate_and_compress", "pack_and_truncate"],
    ],
}


def missing_and_doubled(seed: int, ways: list[str]) -> tuple[Counter[int], Counter[int]]:
    """Returns the lines that were not stored, and those that were stored again."""
    source = random.Random(seed)
    busy = source.choice([0.02, 0.2, 0.5])  # how often the program acts between two calls
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "app.log")
        program = RotatingProgram(path, source, ways)
        acts = False

        def interrupt() -> None:
            if acts and source.random() < busy:
                program.go_on(source.choice([1, 1, 2, 5, 30]))

        with World(str(path), interrupt) as world:
            program.append()
            # Of a path that was never seen, older generations are not read.
            world.settle()
            assert world.lines
            acts = True
            for _ in range(source.randrange(5, 60)):
                match source.choice(
                    [
                        "step",
                        "step",
                        "step",
                        "commit",
                        "commit",
                        "pause",
                        "act",
                        "kill",
                        "full",
                        "room",
                    ]
                ):
                    case "step":
                        world.step()
                    case "commit":
                        world.commit(source.randrange(4))
                    case "pause":
                        long = [1.0, 6.0, 20.0] if program.is_between else []
                        world.now_s += source.choice([0.06, 0.06, *long])
                    case "act":
                        program.go_on(source.choice([1, 10, 100]))
                    case "kill":
                        world.kill()
                        program.go_on(source.choice([0, 0, 10, 300]))
                        world.start()
                    case "full":
                        world.has_room = False
                    case "room":
                        world.give_room()
            acts = False
            program.finish()
            world.settle()
            program.close()
            stored = Counter(int(line.split()[0]) for line in world.lines)
    wanted = Counter(range(1, program.lines + 1))
    return wanted - stored, stored - wanted


@pytest.mark.parametrize("ways", [pytest.param(value, id=key) for key, value in WAYS.items()])
@pytest.mark.parametrize(
    "seeds",
    [
        pytest.param(range(15), id="some"),
        pytest.param(range(15, 500), id="many", marks=pytest.mark.campaign),
    ],
)
def test_each_line_is_stored_once_whatever_happens_between_two_calls(
    ways: list[str], seeds: range
) -> None:
    for seed in seeds:
        assert missing_and_doubled(seed, ways) == (Counter(), Counter()), f"seed {seed}"


@pytest.fixture
def followed(tmp_path: Path) -> Iterator[tuple[World, Path]]:
    """A daemon that has stored the first line of a file."""
    path = tmp_path / "app.log"
    path.write_text("one\n")
    with World(str(path)) as world:
        world.settle()
        yield world, path


def rotate(path: Path) -> Path:
    """Renames a file, and makes a new one."""
    rotated = path.rename(path.with_name(f"{path.name}.1"))
    path.touch()
    return rotated


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_a_generation_that_is_compressed_before_it_was_read_is_read_once(
    followed: tuple[World, Path],
) -> None:
    world, path = followed
    append(path, "two\n")
    older = rotate(path)
    append(path, "three\n")
    world.now_s += 1
    world.step()
    world.step()
    assert world.queued == 1, "what comes next waits for the older generation"
    older.rename(path.with_name("app.log.2"))
    plain = rotate(path)
    append(plain, "four\n")
    path.with_name("app.log.1.gz").write_bytes(gzip.compress(plain.read_bytes()))
    append(plain, "late\n")
    plain.unlink()
    append(path, "five\n")
    world.settle()
    assert world.lines == ["one", "two", "three", "four", "late", "five"]


def test_a_file_that_was_read_to_its_end_is_followed_after_a_start(
    followed: tuple[World, Path],
) -> None:
    world, path = followed
    world.kill()
    world.start()
    world.settle()
    append(path, "two\n")
    world.settle()
    assert world.lines == ["one", "two"]


def test_a_file_is_known_once_after_each_commit_of_a_growing_head(
    followed: tuple[World, Path],
) -> None:
    world, path = followed
    for count in range(1, 40):
        append(path, f"{'x' * 40} {count}\n")
        world.now_s += 1
        world.step()
        while world.queued:
            world.commit(1)
            assert list(world.numbers.values()) == [path.stat().st_size]


def test_a_generation_that_grew_before_a_kill_is_read_on_from_its_compressed_copy(
    followed: tuple[World, Path],
) -> None:
    world, path = followed
    append(path, "two\n")
    world.now_s += 1
    world.step()
    world.commit(1)
    append(path, "three\n")
    world.kill()
    plain = rotate(path)
    path.with_name("app.log.1.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    world.start()
    world.settle()
    assert world.lines == ["one", "two", "three"]


@pytest.mark.parametrize("is_killed", [False, True])
def test_a_copy_that_gets_its_name_after_the_truncation_is_read_on(
    followed: tuple[World, Path], is_killed: bool
) -> None:
    world, path = followed
    rotate(path)
    append(path, "two\n")
    world.settle()
    append(path, "three\n")
    aside = path.with_name("aside")
    aside.write_bytes(gzip.compress(path.read_bytes()))
    os.truncate(path, 0)
    world.settle()
    if is_killed:
        world.kill()
        world.start()
        world.settle()
    path.with_name("app.log.1").rename(path.with_name("app.log.2"))
    aside.rename(path.with_name("app.log.1.gz"))
    append(path, "four\n")
    world.settle()
    assert sorted(world.lines) == sorted(["one", "two", "three", "four"])


def test_a_file_that_is_truncated_between_its_opening_and_its_first_look_is_read_from_its_start(
    tmp_path: Path,
) -> None:
    path = tmp_path / "app.log"
    path.write_text("one\n")
    interruptions: list[Callable[[], None]] = []

    def interrupt() -> None:
        # The last time that `interruptions` are asked for is before the file is looked at.
        if interruptions and world.has_planned:
            interruptions.pop()()

    with World(str(path), interrupt) as world:
        world.settle()
        world.kill()
        interruptions.append(lambda: _replace(path, "two\nthree\n"))
        world.start()
        world.step()
        assert not interruptions
        world.settle()
        assert world.lines == ["one", "two", "three"]


def _replace(path: Path, text: str) -> None:
    os.truncate(path, 0)
    append(path, text)


def test_a_generation_that_was_missed_is_read_although_the_disk_failed_at_the_start(
    tmp_path: Path,
) -> None:
    path = tmp_path / "app.log"
    (tmp_path / "app.log.1").write_bytes(b"one\n")
    path.write_bytes(b"two\n")
    world = World(str(path))
    world.is_open = False
    with world:
        world.step()
        assert not world.lines
        world.open_store("2020-01-01T00:00:00.000000Z")
        world.settle()
        assert world.lines == ["one", "two"]
