"""Durable primitives: atomic file replacement, directories, marks, the lock, segment files.

`store`, `reading`, `upkeep` and the client's spool build on it.

    atomic, temp_file, exit_guard         a file that is replaced as a whole or not at all
    links, file_identity                  the file behind a path; its owner, mode and attributes
    exclusive_rename, writes              rename without replacing; writes past the page cache
    regular_file                          the one way to open a file: no links, FIFOs, or others'
    directory                             directories held open by descriptor
    one_flush                             a segment's file with one flush of the disk, not two
    durable_names                         removals and renames in streams; failed syncs
    data_directory                        the data directory and its lock
    mounts, file_system, commit_way       file systems: known risks, how many flushes they need
    crash_mark                            whether the last process stopped cleanly
    durable_mark                          how far each stream is durable, for followers
    registered_cursors, reserve           cursors that retention respects; space for a stop
    segment_file                          listing, reading and checking segments

Constraints on code here:

All calls block. Nothing here uses asyncio or starts a thread; callers choose the thread. A
module imports only from this package, `protocols`, `format`, `units`, `default_paths` and
`errors`; import-linter checks that. A file in a data directory, a spool or a state directory is
opened only by `Directory.open_file`, and what is read of it has a limit. An `OSError` names the
file. After a failed fsync, write the file or make the name again: on Linux a second fsync may
succeed although the data or the name is lost. A file in a stream's directory is removed or renamed
only through `durable_names`; after a failed directory sync, nothing more is removed from that
stream until the next boot. Only a writer keeps a file open for writing between calls: an open one
prevents a read-only remount.
"""
