"""The clients that applications import to send records to a daemon.

`Client` serves programs with threads, `AsyncClient` serves asyncio, and `LogEngineHandler` and
`StructlogFactory` wrap a `Client` for logging libraries. `docs/clients.md` is the user's guide,
`docs/decisions/clients.md` gives the reasons for the design.

The path of a record:

1. `encoding` turns it into one line of JSON, in the caller's thread.
2. `handover` passes the line from the application's threads to the client's own thread
   (`delivery_thread`). `AsyncClient` skips this step: its callers share one event loop.
3. `outbox` keeps the line under its place (1, 2, …) until the daemon acknowledges it.
4. `conversation` speaks the protocol of one connection: it writes the hello, and applies the
   daemon's answers to the outbox.
5. The socket belongs to the delivery thread, or to the task of `AsyncClient`.
6. `spool` keeps on disk the records that do not fit in memory or are not durable at exit. They
   are older than those in memory, so they are sent first.

`delivery` connects outbox, conversation and spool, and decides which step comes next. The thread
and the task only carry out its steps.

Constraints:

* No lock that an application's thread takes is held where foreign code can run (`handover`).
* A client that takes a record ensures that something delivers it: each `send` checks that the
  delivery thread, or the task, exists in this process.
* Nothing hangs the application: a wait for the daemon has a bound, unless the caller chose one
  without: `flush` without a timeout, `on_full="block"` without `block_max`.
"""
