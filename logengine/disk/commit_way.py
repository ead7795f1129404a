"""Decides whether a commit needs two flushes of the disk or one, from facts about its file system.

    two flushes   fsync of the file; rename; sync of the directory
    one flush     sync_file_range of the file; rename; fsync of the file

POSIX promises nothing of the second way. It holds on ext4 with a journal and on xfs, under
conditions that `docs/decisions/durability.md` lists with what was tried ("One flush less"). What
was not tried, or is not known, goes the first way.

Sources: fs/ext4/super.c (`ext4_seq_options_show`), fs/xfs/xfs_super.c (`xfs_fs_show_options`),
include/uapi/linux/ext4.h (`EXT4_IOC_GET_TUNE_SB_PARAM`), fs/xfs/libxfs/xfs_fs.h
(`XFS_IOC_FSGEOMETRY_V1`).
"""

import struct
from collections.abc import Iterable
from typing import NamedTuple

from logengine.disk.mounts import Mount

EXT4_FEATURES_IOCTL = 0x80E8662D  # _IOR('f', 45, struct ext4_tune_sb_params); since Linux 6.18
EXT4_FEATURES_BYTES = 232
_EXT4_FEATURES = struct.Struct("=64x3I")
XFS_GEOMETRY_IOCTL = 0x80705864  # _IOR('X', 100, struct xfs_fsop_geom_v1)
XFS_GEOMETRY_BYTES = 112
_XFS_GEOMETRY = struct.Struct("=40xQ8xQ")

_HAS_JOURNAL, _FAST_COMMIT, _EXTENTS = 0x4, 0x400, 0x40
# ext_attr, resize_inode, dir_index, orphan_file
_COMPAT_KNOWN = _HAS_JOURNAL | 0x8 | 0x10 | 0x20 | 0x1000
# filetype, needs_recovery, 64bit, flex_bg, metadata_csum_seed
_INCOMPAT_KNOWN = _EXTENTS | 0x2 | 0x4 | 0x80 | 0x200 | 0x2000
# sparse_super, large_file, huge_file, uninit_bg, dir_nlink, extra_isize, metadata_csum,
# orphan_present
_RO_COMPAT_KNOWN = 0x1 | 0x2 | 0x8 | 0x10 | 0x20 | 0x40 | 0x400 | 0x10000

_OF_ANY_MOUNT = {
    *("rw", "noatime", "relatime", "strictatime", "nodiratime", "nosuid", "nodev", "noexec"),
    *("nosymfollow", "seclabel", "idmapped", "sync", "dirsync"),
}
# Without the values, which change nothing about the order of writes.
_KNOWN_OF_EXT4 = {
    *_OF_ANY_MOUNT,
    *("bsddf", "minixdf", "grpid", "nogrpid", "block_validity", "noblock_validity"),
    *("dioread_nolock", "dioread_lock", "discard", "nodiscard", "delalloc", "nodelalloc"),
    *("warn_on_error", "nowarn_on_error", "journal_checksum", "nojournal_checksum", "barrier"),
    *("auto_da_alloc", "noauto_da_alloc", "user_xattr", "nouser_xattr", "acl", "noacl"),
    *(
        "noquota",
        "resuid",
        "resgid",
        "errors",
        "commit",
        "min_batch_time",
        "max_batch_time",
        "i_version",
    ),
    *("stripe", "data", "data_err", "inode_readahead_blks", "init_itable", "noinit_itable"),
    *("max_dir_size_kb", "prefetch_block_bitmaps", "no_prefetch_block_bitmaps", "nombcache"),
    *("mb_optimize_scan",),
}
_KNOWN_OF_XFS = {
    *_OF_ANY_MOUNT,
    *("attr2", "noattr2", "inode64", "inode32", "logbufs", "logbsize", "sunit", "swidth"),
    *("allocsize", "largeio", "nolargeio", "ikeep", "noikeep", "filestreams", "nouuid", "barrier"),
    *("discard", "nodiscard", "wsync", "grpid", "nogrpid", "bsdgroups", "sysvgroups", "noquota"),
    *("lifetime", "nolifetime"),
}
_DATA_MODES = {"data=ordered", "data=writeback", "data=journal"}
_UNKNOWN = "cannot be determined here"


class CommitWay(NamedTuple):
    """How many flushes a commit needs, one or two, and why."""

    flushes: int
    reason: str

    @property
    def is_short(self) -> bool:
        """Whether one flush is enough."""
        return self.flushes == 1


class FileSystemFacts(NamedTuple):
    """What is known of the file system of a directory; None for what could not be read.

    `mount` is the directory's own, not what is beneath an overlay. For ext4: `options` are those
    in effect, defaults included; `has_own_journal` is whether its journal is on the same device;
    `features` is the answer to `EXT4_FEATURES_IOCTL`. For xfs: `geometry` is the answer to
    `XFS_GEOMETRY_IOCTL`.
    """

    mount: Mount | None = None
    options: frozenset[str] | None = None
    has_own_journal: bool | None = None
    features: bytes | None = None
    geometry: bytes | None = None


def commit_way(facts: FileSystemFacts) -> CommitWay:
    """The way of a commit on the file system that `facts` describe."""
    if facts.mount is None:
        return CommitWay(2, f"the file system {_UNKNOWN}")
    kind = facts.mount.kind
    if kind == "ext4":
        why = _why_not_on_ext4(facts, facts.mount)
    elif kind == "xfs":
        why = _why_not_on_xfs(facts, facts.mount)
    else:
        why = f"one is known to be enough on ext4 and xfs, and this is {kind}"
    if why is not None:
        return CommitWay(2, why)
    return CommitWay(1, f"the journal of this {kind} flushes the data before the name")


def _why_not_on_ext4(facts: FileSystemFacts, mount: Mount) -> str | None:
    if facts.options is None:
        return f"which options of this ext4 are in effect {_UNKNOWN}"
    if facts.has_own_journal is None:
        return f"whether this ext4 has a journal on its own device {_UNKNOWN}"
    if not facts.has_own_journal:
        return "this ext4 has no journal on its own device"
    options = mount.options | facts.options
    if "barrier" not in facts.options:
        return "this ext4 is mounted without barriers"
    if not options & _DATA_MODES:
        return f"the mode of the journal of this ext4 {_UNKNOWN}"
    return _why_not_with(options, _KNOWN_OF_EXT4, "ext4") or _why_not_features(facts.features)


def _why_not_features(answer: bytes | None) -> str | None:
    if answer is None or len(answer) != EXT4_FEATURES_BYTES:
        # `fc_debug_force` among the options shows fast commits only if the kernel was built with
        # CONFIG_EXT4_DEBUG.
        return f"whether this ext4 has fast commits {_UNKNOWN}: the kernel says so from 6.18 on"
    compat, incompat, ro_compat = _EXT4_FEATURES.unpack_from(answer)
    if compat & _FAST_COMMIT:
        return "this ext4 has fast commits (fast_commit), which do not wait for a rename"
    if not compat & _HAS_JOURNAL:
        return "this ext4 has no journal"
    if not incompat & _EXTENTS:
        return "this ext4 has no extents"
    untried = (
        compat & ~_COMPAT_KNOWN,
        incompat & ~_INCOMPAT_KNOWN,
        ro_compat & ~_RO_COMPAT_KNOWN,
    )
    if any(untried):
        masks = ", ".join(f"{mask:#x}" for mask in untried)
        return f"this ext4 has features that were not tried (compat, incompat, ro_compat: {masks})"
    return None


def _why_not_on_xfs(facts: FileSystemFacts, mount: Mount) -> str | None:
    if why := _why_not_with(mount.options, _KNOWN_OF_XFS, "xfs"):
        return why
    if facts.geometry is None or len(facts.geometry) != XFS_GEOMETRY_BYTES:
        return f"where this xfs has its log {_UNKNOWN}"
    realtime_blocks, log_start = _XFS_GEOMETRY.unpack_from(facts.geometry)
    if log_start == 0:
        return "this xfs has its log on another device"
    if realtime_blocks:
        return "this xfs has a realtime section"
    return None


def _why_not_with(options: Iterable[str], known: set[str], kind: str) -> str | None:
    untried = sorted(each for each in options if each.partition("=")[0] not in known)
    # `barrier=0` has a known name.
    untried += [each for each in options if each == "barrier=0"]
    return f"this {kind} is mounted with `{untried[0]}`, which was not tried" if untried else None
