"""Intake: reads senders' sockets, turns their bytes into entries for the committer, and answers.

The modules, in the order in which a record passes them:

    listeners         binds and accepts; `credentials` asks the kernel who is at the other end
    cgroup            systemd units in the text of a /proc/PID/cgroup, pure
    server            owns the listeners and all connections, and stops them
    poller            one epoll for all senders, a bounded number of reads per loop turn
    connection        one stream connection: numbers, hello, welcome, end of file
    connection_state  the states of a connection as a table
    patience          which senders wait for their acks, pure
    datagrams         one datagram socket with many senders
    admission         who may be read now: memory, the stream's room, quotas
    quota_gate        the quotas on the event loop: waits, drops, reports
    quota             token buckets and limits, pure
    stored_bytes      stored bytes per stream and user, as counted, pure
    usage_scan        measures stored bytes on the disk, in a thread
    arrivals          stamps lines with time and sender, and queues them in the committer
    producers         one connection per named producer; fences the older one
    chunks            which chunks are stored or queued already; how many are queued
    answer_writer     acks and errors to one sender, without blocking
    context           what all readers of sockets share

Constraints: everything runs on one event loop, except the disk scans of `usage_scan`. Nothing here
writes to the disk. Limits act by not reading, so that the kernel's buffers fill and senders block;
once read, a complete record is queued, unless it is too long or over a quota that drops. An ack is
sent only after the committer reports the record as durable. `logengine.protocols` alone knows what
the bytes mean.
"""
