"""Group commit: the package that every acknowledgement rests on.

It accepts entries (stored lines of one sender that arrived together), commits them in batches,
and notifies each sender only after its records are durable. After a restart or a crash it
recovers what is durable in each stream before anything is added to it.

    committer      when to commit: batches, retries, back-off; one event loop
    pending        the queue of one stream
    stream_locks   exclusive access to a stream between commits
    plan           the next segment of a stream; what recovery keeps
    drop_oldest    which segments to remove on a full disk
    store          all streams of a data directory; commits a batch
    publication    the writers of one commit, and the step that publishes them
    opening        locks the data directory, checks it, recovers its streams
    stream         one stream's directory: recovery, writing a segment, removing old ones
    stream_events  what the daemon's log reports about a stream

Constraints on code here:

A plan is published only on the durable state that it was made on; otherwise records would be
stored after a hole. `store` checks this itself and does not trust the committer. No segment
becomes visible before it is written and fsynced, and no sender is notified before the segment has
its name and the directory is synced. `plan` and `drop_oldest` use no files and no clock.
Blocking disk calls are in `stream`, `opening` and `logengine.disk`, which do not use asyncio.
`store` runs them in threads, except short ones such as the check of the lock, and the commit of a
single small entry on a quick disk. Every removal and rename in a stream's directory goes through
`logengine.disk.durable_names`, which stops removals after a failed sync. This package imports
from `disk`, `protocols`, `format` and below, not from the packages that use it (`intake`,
`upkeep`, `daemon`); import-linter checks that.
"""
