"""Parses the kernel's list of mounts, and knows which mounts break the durability promise.

Source: proc_pid_mountinfo(5); what was tested is in `docs/guarantees.md`.
"""

from collections.abc import Sequence
from typing import NamedTuple

_NETWORK = {
    *("nfs", "nfs4", "cifs", "smb3", "9p", "virtiofs", "ceph", "lustre", "afs", "vboxsf"),
    *("glusterfs", "gfs2", "ocfs2", "orangefs", "beegfs"),
}
_IN_MEMORY = {"tmpfs", "ramfs", "rootfs"}
_NO_JOURNAL = {"ext2", "vfat", "msdos", "exfat", "hfs", "hfsplus", "minix", "udf", "ufs"}
_ASYNC_COMMIT = "journal_async_commit"  # of ext4
_NO_BARRIERS = {"nobarrier", "barrier=0", "fsync_mode=nobarrier"}
_MAY_HAVE_JOURNAL = {"ext3", "ext4"}
_OVERLAYS_MAX = 16  # stacked; the kernel allows fewer


class Mount(NamedTuple):
    """One line of mountinfo; `device` is "major:minor"."""

    mount_id: int
    device: str
    point: str
    kind: str
    options: frozenset[str]


def parse_mounts(text: str) -> list[Mount]:
    """The mounts of /proc/PID/mountinfo; lines of another form are skipped."""
    mounts = []
    for line in text.splitlines():
        before, _, behind = line.partition(" - ")
        try:
            mount_id, _, device, _, point, options, *_ = before.split(" ")
            kind, _, more_options, *_ = behind.split(" ")
            names = frozenset([*options.split(","), *more_options.split(",")])
            mounts.append(Mount(int(mount_id), device, _unescaped(point), kind, names))
        except ValueError:
            continue
    return mounts


def mount_called(mounts: Sequence[Mount], mount_id: int) -> Mount | None:
    """The mount with that number, if it exists."""
    return next((mount for mount in mounts if mount.mount_id == mount_id), None)


def mount_of_path(mounts: Sequence[Mount], path: str) -> Mount | None:
    """The mount that contains an absolute path without links."""
    found = None
    for mount in mounts:
        is_above = path == mount.point or path.startswith(mount.point.rstrip("/") + "/")
        # The last mount at a mount point hides the earlier ones.
        if is_above and (found is None or len(mount.point) >= len(found.point)):
            found = mount
    return found


def base_of(mounts: Sequence[Mount], mount: Mount) -> Mount:
    """The mount that stores what is written: for an overlay, the mount of its upper directory.

    Returns the overlay itself if its upper directory is not visible, as inside a container.
    """
    for _ in range(_OVERLAYS_MAX):
        upper = next((o for o in mount.options if o.startswith("upperdir=/")), None)
        if mount.kind != "overlay" or upper is None:
            break
        found = mount_of_path(mounts, _unescaped(upper.removeprefix("upperdir=")))
        if found is None or found == mount:
            break
        mount = found
    return mount


def risks_of(mounts: Sequence[Mount], mount: Mount, *, has_journal: bool | None) -> list[str]:
    """The known risks to durability on `mount`, one reason each.

    `has_journal` says whether the ext3 or ext4 that stores the data has a journal; None if unknown.
    """
    base = base_of(mounts, mount)
    risks = []
    if base.kind in _NETWORK:
        risks.append(
            f"{base.kind} is a network file system: the server decides whether a sync reaches the "
            "disk, and who else writes there"
        )
    elif base.kind.startswith("fuse"):
        risks.append(f"{base.kind} is a FUSE file system: its program decides what a sync does")
    elif base.kind in _IN_MEMORY:
        risks.append(f"{base.kind} is memory: a power cut or a reboot loses everything")
    elif base.kind in _NO_JOURNAL:
        risks.append(f"{base.kind} has no journal: a power cut may break whole files")
    elif base.kind in _MAY_HAVE_JOURNAL and has_journal is False:
        risks.append(
            f"this {base.kind} has no journal: after a power cut, files may contain other files' "
            "bytes; add a journal with `tune2fs -O has_journal`"
        )
    if "volatile" in mount.options and mount.kind == "overlay":
        risks.append("the overlay is mounted with `volatile`: a sync does nothing")
    if _ASYNC_COMMIT in base.options:
        risks.append(
            f"it is mounted with `{_ASYNC_COMMIT}`: a power cut may leave it so that it cannot be "
            "mounted, and files may be gone after e2fsck"
        )
    if barriers := sorted(base.options & _NO_BARRIERS):
        risks.append(
            f"it is mounted with `{barriers[0]}`: synced data may still be in the disk's cache"
        )
    return risks


def _unescaped(field: str) -> str:
    """A path from mountinfo with its octal escapes decoded."""
    if "\\" not in field:
        return field
    first, *parts = field.split("\\")
    text = first
    for part in parts:
        code = part[:3]
        is_code = len(code) == 3 and all(c in "01234567" for c in code)  # noqa: PLR2004
        text += chr(int(code, 8)) + part[3:] if is_code else "\\" + part
    return text
