"""What a file is to others stays as it was when its content is replaced."""

import errno
import os
import signal
import socket
import stat
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from logengine import AsyncAtomicWriter, AtomicWriter, LogEngineError
from logengine.disk.atomic import is_temp_name
from logengine.disk.file_identity import narrowed_acl, narrowed_mode, umask
from logengine.disk.temp_file import temp_name_for

ACL = "system.posix_acl_access"
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
NOBODY = 0xFFFFFFFF

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")


def acl(*entries: tuple[int, int, int]) -> bytes:
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *entry) for entry in entries)


def entries_of(value: bytes) -> dict[tuple[int, int], int]:
    return {(tag, who): bits for tag, bits, who in struct.iter_unpack("<HHI", value[4:])}


# owner rw-, user 1234 rw-, group r--, group 4321 r--, mask rw-, others ---
SHARED = acl(
    (USER_OBJ, 6, NOBODY),
    (USER, 6, 1234),
    (GROUP_OBJ, 4, NOBODY),
    (GROUP, 4, 4321),
    (MASK, 6, NOBODY),
    (OTHER, 0, NOBODY),
)


def supports(path: Path, name: str, value: bytes) -> bool:
    try:
        os.setxattr(path, name, value)
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
        return False
    return True


def write(path: str | bytes | os.PathLike[str], text: str = "new", **options: int) -> None:
    with AtomicWriter(path, **options) as writer:  # type: ignore[arg-type]
        writer.write(text)


@contextmanager
def working_in(directory: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("old")
    return path


# Symbolic links.


@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path, *, absolute: bool) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "real").write_text("old")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "there" / "real" if absolute else "there/real")
    write(link)
    assert link.is_symlink()
    assert (tmp_path / "there" / "real").read_text() == "new"
    assert os.listdir(tmp_path / "there") == ["real"]
    assert sorted(os.listdir(tmp_path)) == ["link", "there"]


def test_a_chain_of_links_is_followed_each_from_the_directory_it_is_in(tmp_path: Path) -> None:
    for name in ("a/b", "c"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "c" / "real").write_text("old")
    (tmp_path / "first").symlink_to("a/b/second")
    (tmp_path / "a" / "b" / "second").symlink_to("../../c/third")
    (tmp_path / "c" / "third").symlink_to("real")
    write(tmp_path / "first")
    assert (tmp_path / "c" / "real").read_text() == "new"
    assert all((tmp_path / name).is_symlink() for name in ("first", "a/b/second", "c/third"))


def test_dots_behind_a_link_to_a_directory_mean_that_directorys_parent(tmp_path: Path) -> None:
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "near").symlink_to("far/away")
    (tmp_path / "link").symlink_to("near/../file")
    (tmp_path / "file").write_text("another one")
    write(tmp_path / "link")
    assert (tmp_path / "far" / "file").read_text() == "new"
    write(tmp_path / "near" / ".." / "file", "newer")
    assert (tmp_path / "far" / "file").read_text() == "newer"
    assert (tmp_path / "file").read_text() == "another one"


def test_a_dangling_link_means_the_file_that_it_names(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there/real")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "real").read_text() == "new"


def test_a_link_into_a_directory_that_is_not_there_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("missing/real")
    with pytest.raises(OSError, match=r"link: No such file") as caught:
        write(tmp_path / "link")
    assert caught.value.errno == errno.ENOENT
    assert os.listdir(tmp_path) == ["link"]


def test_links_that_lead_to_themselves_are_refused(tmp_path: Path) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    with pytest.raises(OSError, match="symbolic links") as caught:
        write(tmp_path / "one")
    assert caught.value.errno == errno.ELOOP
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


def test_forty_links_are_followed_and_no_more(tmp_path: Path) -> None:
    (tmp_path / "0").write_text("old")
    for number in range(1, 42):
        (tmp_path / str(number)).symlink_to(str(number - 1))
    write(tmp_path / "40")
    assert (tmp_path / "0").read_text() == "new"
    with pytest.raises(OSError, match="symbolic links"):
        write(tmp_path / "41")


@needs_root
def test_a_link_that_another_user_made_in_a_public_directory_is_not_followed(
    tmp_path: Path, target: Path
) -> None:
    public = tmp_path / "public"
    public.mkdir()
    public.chmod(0o1777)
    (public / "link").symlink_to(target)
    os.lchown(public / "link", 1234, 1234)
    with pytest.raises(OSError, match=r"(user 1234|Permission denied)") as caught:
        write(public / "link")
    assert caught.value.errno == errno.EACCES
    assert target.read_text() == "old"
    os.lchown(public / "link", 0, 0)
    write(public / "link")
    assert target.read_text() == "new"


def test_a_link_that_is_made_while_the_writer_is_open_is_not_replaced(
    tmp_path: Path, target: Path
) -> None:
    with pytest.raises(OSError, match="symbolic link"), AtomicWriter(tmp_path / "new") as writer:
        writer.write("new")
        (tmp_path / "new").symlink_to(target)
    assert (tmp_path / "new").is_symlink()
    assert target.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["file", "new"]


# What cannot be replaced as a whole.


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made, working_in(path.parent):
        made.bind(path.name)


@pytest.mark.parametrize(
    ("make", "what"),
    [(os.mkfifo, "FIFO"), (make_socket, "socket"), (os.mkdir, "directory")],
    ids=["fifo", "socket", "directory"],
)
@pytest.mark.parametrize("by_link", [False, True])
@pytest.mark.parametrize("permissions", [None, 0o600])
def test_what_is_no_file_is_refused_at_once(
    tmp_path: Path,
    make: Callable[[Path], None],
    what: str,
    permissions: int | None,
    *,
    by_link: bool,
) -> None:
    make(tmp_path / "thing")
    (tmp_path / "link").symlink_to("thing")
    before = os.lstat(tmp_path / "thing")
    writer = AtomicWriter(tmp_path / ("link" if by_link else "thing"), permissions=permissions)
    with pytest.raises(LogEngineError, match=what):
        writer.open()
    assert os.lstat(tmp_path / "thing") == before
    assert sorted(os.listdir(tmp_path)) == ["link", "thing"]


@pytest.mark.parametrize("device", ["/dev/null", "/dev/full"])
def test_a_device_is_refused(device: str) -> None:
    with pytest.raises(OSError, match="device"):
        write(device)
    assert stat.S_ISCHR(os.stat(device).st_mode)


@pytest.mark.parametrize("mode", ["w", "x"])
@pytest.mark.parametrize("path", ["", ".", "..", "there/", "there/.", "missing/", "/"])
def test_what_only_a_directory_can_be_called_is_refused(
    tmp_path: Path, path: str, mode: str
) -> None:
    (tmp_path / "there").mkdir()
    with working_in(tmp_path):
        writer = AtomicWriter(path, mode)
        with pytest.raises(OSError, match=r"directory|exists"):
            writer.open()
        assert os.listdir(".") == ["there"]
        assert os.listdir("there") == []


def test_standard_output_that_is_a_pipe_is_refused() -> None:
    script = "import logengine\nwith logengine.AtomicWriter('/dev/stdout') as w: w.write('x')"
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    assert "AtomicWriteError" in ended.stderr
    assert "has no name" in ended.stderr


def test_an_open_file_that_was_removed_is_refused(tmp_path: Path, target: Path) -> None:
    with target.open() as file:
        target.unlink()
        with pytest.raises(OSError, match="has no name"):
            write(f"/proc/self/fd/{file.fileno()}")
    assert os.listdir(tmp_path) == []


def test_a_name_that_becomes_a_fifo_is_not_replaced(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="FIFO"), AtomicWriter(tmp_path / "new") as writer:
        writer.write("new")
        os.mkfifo(tmp_path / "new")
    assert os.listdir(tmp_path) == ["new"]


# Mode, owner, ACL, extended attributes.


@pytest.mark.parametrize("mode", [0o4755, 0o2755, 0o6777, 0o1644])
def test_set_user_id_and_the_like_are_dropped(target: Path, mode: int) -> None:
    target.chmod(mode)
    write(target)
    assert stat.S_IMODE(target.stat().st_mode) == mode & 0o777


def test_permissions_are_those_of_a_file_and_no_more(target: Path) -> None:
    for permissions in (0o4755, -1, 0o1777):
        with pytest.raises(ValueError, match="expected 0 to 0o777"):
            AtomicWriter(target, permissions=permissions)


def test_permissions_that_are_given_take_the_place_of_the_old_ones_less_the_umask(
    target: Path,
) -> None:
    target.chmod(0o444)
    before = os.umask(0o027)
    try:
        assert umask() == 0o027
        write(target, permissions=0o666)
    finally:
        os.umask(before)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def test_a_file_without_any_permission_is_replaced_and_keeps_none(target: Path) -> None:
    target.chmod(0)
    write(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0
    target.chmod(0o600)
    assert target.read_text() == "new"


def test_until_it_is_whole_the_new_content_is_nobody_elses_business(target: Path) -> None:
    target.chmod(0o666)
    with AtomicWriter(target) as writer:
        assert writer.temp_path is not None
        writer.write("new")
        writer.file.flush()
        assert stat.S_IMODE(os.stat(writer.temp_path).st_mode) == 0o600
        writer.prepare()
        assert stat.S_IMODE(os.stat(writer.temp_path).st_mode) == 0o666


@needs_root
def test_root_leaves_a_file_to_its_owner_and_without_set_user_id(target: Path) -> None:
    os.chown(target, 1234, 4321)
    target.chmod(0o4750)
    write(target)
    after = target.stat()
    assert (after.st_uid, after.st_gid) == (1234, 4321)
    assert stat.S_IMODE(after.st_mode) == 0o750
    write(target, permissions=0o600)
    after = target.stat()
    assert (after.st_uid, after.st_gid) == (1234, 4321)
    assert stat.S_IMODE(after.st_mode) == 0o600


@needs_root
@pytest.mark.parametrize("kept", ["group", "neither"])
def test_who_may_not_give_a_file_away_makes_its_access_narrower(
    tmp_path: Path, target: Path, kept: str
) -> None:
    tmp_path.chmod(0o777)
    os.chown(target, 1234, 4321)
    target.chmod(0o664)
    script = textwrap.dedent("""
        import os, sys, logengine
        group = [int(sys.argv[2])] if sys.argv[2] else []
        os.setgroups(group); os.setgid(77); os.setuid(77)
        with logengine.AtomicWriter(sys.argv[1]) as writer:
            writer.write("new")
    """)
    # The interpreter need not be readable by others once it runs.
    group = "4321" if kept == "group" else ""
    parents = [tmp_path, *tmp_path.parents]
    modes = {parent: stat.S_IMODE(parent.stat().st_mode) for parent in parents}
    try:
        for parent in parents:
            parent.chmod(modes[parent] | 0o111)
        child = os.fork()
        if child == 0:
            sys.argv[1:] = [str(target), group]
            try:
                exec(script, {})
            finally:
                os._exit(0 if target.read_text() == "new" else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        for parent in parents:
            parent.chmod(modes[parent])
    after = target.stat()
    assert target.read_text() == "new"
    assert after.st_uid == 77
    if kept == "group":
        assert (after.st_gid, stat.S_IMODE(after.st_mode)) == (4321, 0o664)
    else:
        assert (after.st_gid, stat.S_IMODE(after.st_mode)) == (77, 0o644)


@pytest.mark.parametrize(
    ("mode", "with_owner", "with_group", "narrowed"),
    [
        (0o664, True, True, 0o664),
        (0o664, False, True, 0o664),
        (0o664, False, False, 0o644),
        (0o640, False, False, 0o600),
        (0o604, False, False, 0o600),  # what kept the old group out keeps all out
        (0o606, False, True, 0o606),
        (0o067, False, True, 0o000),  # the old owner had nothing, and is one of the others now
        (0o475, True, False, 0o455),
        (0o477, False, False, 0o444),
        (0o660, True, False, 0o600),
    ],
)
def test_without_its_owner_or_group_a_file_gives_nobody_more_than_before(
    mode: int, *, with_owner: bool, with_group: bool, narrowed: int
) -> None:
    assert narrowed_mode(mode, with_owner=with_owner, with_group=with_group) == narrowed


def test_an_acl_of_a_file_that_lost_its_owner_gives_named_users_no_more_than_he_had() -> None:
    old = acl(
        (USER_OBJ, 4, NOBODY), (USER, 7, 1), (GROUP_OBJ, 6, NOBODY), (MASK, 7, NOBODY),
        (OTHER, 1, NOBODY),
    )  # fmt: skip
    new = narrowed_acl(old, with_owner=False, with_group=True)
    assert new is not None
    assert entries_of(new) == {
        (USER_OBJ, NOBODY): 4, (USER, 1): 4, (GROUP_OBJ, NOBODY): 4, (MASK, NOBODY): 7,
        (OTHER, NOBODY): 0,
    }  # fmt: skip
    new = narrowed_acl(old, with_owner=True, with_group=False)
    assert new is not None
    assert entries_of(new) == {
        (USER_OBJ, NOBODY): 4, (USER, 1): 7, (GROUP_OBJ, NOBODY): 0, (MASK, NOBODY): 7,
        (OTHER, NOBODY): 0,
    }  # fmt: skip
    assert narrowed_acl(old, with_owner=True, with_group=True) == old
    assert narrowed_acl(b"\3\0\0\0", with_owner=True, with_group=True) is None


def test_an_acl_is_kept(target: Path) -> None:
    if not supports(target, ACL, SHARED):
        pytest.skip("no ACLs on this file system")
    mode = target.stat().st_mode
    write(target)
    assert target.read_text() == "new"
    assert entries_of(os.getxattr(target, ACL)) == entries_of(SHARED)
    assert target.stat().st_mode == mode


def test_permissions_that_are_given_take_the_place_of_an_acl(target: Path) -> None:
    if not supports(target, ACL, SHARED):
        pytest.skip("no ACLs on this file system")
    write(target, permissions=0o640)
    assert ACL not in os.listxattr(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640 & ~umask()


def test_an_acl_that_the_directory_gives_to_new_files_is_not_given_to_an_old_one(
    tmp_path: Path, target: Path
) -> None:
    target.chmod(0o640)
    if not supports(tmp_path, "system.posix_acl_default", SHARED):
        pytest.skip("no ACLs on this file system")
    write(target)
    assert ACL not in os.listxattr(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    write(tmp_path / "new")
    assert ACL in os.listxattr(tmp_path / "new")


def test_an_acl_that_cannot_be_set_leaves_what_all_of_it_had(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wide = acl(
        (USER_OBJ, 6, NOBODY), (USER, 4, 1234), (GROUP_OBJ, 6, NOBODY), (MASK, 6, NOBODY),
        (OTHER, 4, NOBODY),
    )  # fmt: skip
    if not supports(target, ACL, wide):
        pytest.skip("no ACLs on this file system")
    real = os.setxattr

    def refuse(path: int, name: str, value: bytes) -> None:
        if name == ACL:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))
        real(path, name, value)

    monkeypatch.setattr(os, "setxattr", refuse)
    write(target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o644
    assert ACL not in os.listxattr(target)


def test_extended_attributes_are_kept_but_those_that_vouch_for_the_content(target: Path) -> None:
    if not supports(target, "user.origin", b"elsewhere"):
        pytest.skip("no extended attributes on this file system")
    os.setxattr(target, "user.empty", b"")
    capabilities = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)
    if os.geteuid() == 0:
        os.setxattr(target, "security.capability", capabilities)
        os.setxattr(target, "trusted.note", b"root's")
    write(target)
    assert target.read_text() == "new"
    kept = {name: os.getxattr(target, name) for name in os.listxattr(target)}
    expected = {"user.origin": b"elsewhere", "user.empty": b""}
    if os.geteuid() == 0:
        expected["trusted.note"] = b"root's"
    assert {name: value for name, value in kept.items() if name in expected} == expected
    assert "security.capability" not in kept


def test_an_attribute_for_which_there_is_no_room_fails_the_write(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not supports(target, "user.origin", b"elsewhere"):
        pytest.skip("no extended attributes on this file system")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "setxattr", full)
    with pytest.raises(OSError, match="cannot keep the owner and the mode"):
        write(target)
    assert target.read_text() == "old"
    assert os.listdir(target.parent) == ["file"]


def test_without_proc_attributes_are_looked_up_by_path(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not supports(target, "user.origin", b"elsewhere"):
        pytest.skip("no extended attributes on this file system")
    real = os.listxattr

    def listxattr(path: str, *, follow_symlinks: bool) -> list[str]:
        if path.startswith("/proc"):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        return real(path, follow_symlinks=follow_symlinks)

    monkeypatch.setattr(os, "listxattr", listxattr)
    write(target)
    monkeypatch.undo()
    assert os.getxattr(target, "user.origin") == b"elsewhere"


def test_what_the_target_becomes_while_the_writer_is_open_is_kept(target: Path) -> None:
    target.chmod(0o666)
    with AtomicWriter(target) as writer:
        writer.write("new")
        target.chmod(0o600)
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


@pytest.mark.parametrize("permissions", [None, 0o660])
def test_a_file_that_comes_while_the_writer_is_open_is_not_made_wider(
    tmp_path: Path, permissions: int | None
) -> None:
    with AtomicWriter(tmp_path / "new", permissions=permissions) as writer:
        writer.write("new")
        (tmp_path / "new").write_text("another one's")
        (tmp_path / "new").chmod(0o400)
    assert (tmp_path / "new").read_text() == "new"
    wanted = 0o400 if permissions is None else permissions & ~umask()
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == wanted


def test_other_names_of_a_file_go_on_having_the_old_content(tmp_path: Path, target: Path) -> None:
    os.link(target, tmp_path / "other")
    write(target)
    assert (tmp_path / "other").read_text() == "old"


# Names and directories.


@pytest.mark.parametrize(
    "name",
    [
        "n" * 255,
        "ü" * 127 + "n",
        "€" * 85,
        "n" + "𝄞" * 63 + "nn",
        b"\xff" * 255,
        b"\x80" * 255,
        b"n" * 118 + b"\xfc" * 137,
        "a\nb\\'\" *?",
        ".hidden",
        "-rf",
        " ",
        "...",
    ],
    ids=range(12),
)
@pytest.mark.parametrize("mode", ["w", "x"])
def test_any_name_is_taken_that_the_file_system_takes(
    tmp_path: Path, name: str | bytes, mode: str
) -> None:
    path = os.fsencode(tmp_path) + b"/" + os.fsencode(name)
    with AtomicWriter(path, mode) as writer:
        (temp,) = os.listdir(os.fsencode(tmp_path))
        assert is_temp_name(os.fsdecode(temp))
        assert len(temp) <= 143
        if isinstance(name, str):
            temp.decode()
        writer.write("new")
    assert os.listdir(os.fsencode(tmp_path)) == [os.fsencode(name)]
    with AtomicWriter(os.fsdecode(path)) as writer:
        writer.write("newer")
    assert Path(os.fsdecode(path)).read_text() == "newer"


@pytest.mark.parametrize("character", ["ü", "€", "𝄞"])
def test_a_temp_name_is_cut_between_characters(character: str) -> None:
    for before in range(8):
        temp = os.fsencode(temp_name_for("n" * before + character * 60))
        assert 139 <= len(temp) <= 143
        temp.decode()


def test_a_name_that_the_file_system_does_not_take_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="File name too long"):
        write(tmp_path / ("n" * 256))
    with pytest.raises(ValueError, match="null byte"):
        write(f"{tmp_path}/a\0b")
    assert os.listdir(tmp_path) == []


def test_a_relative_path_counts_from_where_the_writer_was_made(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with working_in(tmp_path):
        writer = AtomicWriter("file")
        os.chdir("elsewhere")
        with writer:
            writer.write("new")
            os.chdir("/")
    assert writer.path == str(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "new"
    assert os.listdir(tmp_path / "elsewhere") == []


async def test_the_async_writer_too_counts_from_where_it_was_made(tmp_path: Path) -> None:
    with working_in(tmp_path):
        writer = AsyncAtomicWriter("file")
        os.chdir("/")
        async with writer:
            await writer.write("new")
    assert (tmp_path / "file").read_text() == "new"


def test_a_relative_path_from_a_directory_that_is_gone_is_refused(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    with working_in(tmp_path / "gone"):
        (tmp_path / "gone").rmdir()
        with pytest.raises(LogEngineError, match="cannot find the directory of file"):
            AtomicWriter("file")


def test_a_directory_that_is_renamed_is_followed(tmp_path: Path) -> None:
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "file").write_text("old")
    with AtomicWriter(tmp_path / "before" / "file") as writer:
        writer.write("new")
        (tmp_path / "before").rename(tmp_path / "after")
        (tmp_path / "before").mkdir()
        (tmp_path / "before" / "file").write_text("another one")
    assert (tmp_path / "after" / "file").read_text() == "new"
    assert os.listdir(tmp_path / "after") == ["file"]
    assert (tmp_path / "before" / "file").read_text() == "another one"


def test_a_directory_that_is_removed_fails_the_write(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    writer = AtomicWriter(tmp_path / "gone" / "file")
    with pytest.raises(OSError, match="cannot replace"), writer:
        writer.write("new")
        assert writer.temp_path is not None
        os.unlink(writer.temp_path)
        (tmp_path / "gone").rmdir()
    assert not writer.published


def test_a_directory_that_may_not_be_written_is_refused_before_anything_is(
    tmp_path: Path,
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "file").write_text("old")
    closed.chmod(0o555)
    uid = os.geteuid()
    parents = [closed, *closed.parents]
    modes = {parent: stat.S_IMODE(parent.stat().st_mode) for parent in parents}
    try:
        for parent in parents if uid == 0 else []:
            parent.chmod(modes[parent] | 0o111)
        if uid == 0:
            os.seteuid(77)
        with pytest.raises(OSError, match="Permission denied"):
            write(closed / "file")
    finally:
        if uid == 0:
            os.seteuid(0)
        for parent in parents if uid == 0 else []:
            parent.chmod(modes[parent])
    assert (closed / "file").read_text() == "old"


def test_nothing_hangs_on_a_fifo_that_nobody_reads(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.alarm(60)
    try:
        for mode in ("w", "wb", "x"):
            with (
                pytest.raises(OSError, match=r"FIFO|exists"),
                AtomicWriter(tmp_path / "fifo", mode),
            ):
                pass
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
