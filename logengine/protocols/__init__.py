"""The wire protocols: bytes in, events and answers out.

A protocol here is a pure translation. Its *receiver* turns the bytes of one connection, or of one
datagram, into *events*: complete lines, a record that is too large, a hello, a status request. Its
*answers* turn what the daemon has to say into bytes: a welcome, an ack, an error. `wire` defines
these types. Each protocol is one module with a `PROTOCOL`; `registry` finds them by name, and a
`[[listen]]` section of the configuration selects one. A protocol lists the *transports* that it can
be spoken over: `stream`, a connection of one sender that can be answered, or `datagram`, complete
by itself and never answered.

`ndjson` is the native protocol, over a stream socket. Both sides write lines that end with LF:

    -> {"_hello":1,"stream":"app","producer":"web-1","first":5000}
    <- {"welcome":1,"next":5121,"max_record":1048576}
    -> {"level":"info","event":"started"}                  record 5121
    -> plain text                                          record 5122
    <- {"ack":5122}                                        both are durable

Each line that is not blank is one record. The hello is optional and must come first; without it the
sender gets no acks. The welcome says that all records below `next` are durable. Records are
numbered by position from `next` on, and an ack is cumulative. The sender keeps each record until an
ack, or the `next` of a later welcome, passes its number. Under a producer name the numbers survive
the connection, so a sender that reconnects repeats nothing that is durable and leaves no gap. An
error about a record (`record_too_large`, `over_quota`) uses up its number, and the connection
continues; other errors and a `goodbye` end it. `{"_status":1}` as the first line asks for the
daemon's `status` instead. docs/protocol.md is the full specification.

`lines` takes plain text, over stream sockets or in datagrams, and never answers: see docs/lines.md.
`syslog` does the same for messages of syslog: see docs/syslog.md.
`forward` is Fluentd's protocol: it answers chunks, which a sender repeats: see docs/forward.md.
`otlp` is OpenTelemetry's, in requests over HTTP and gRPC, whose servers are `intake`'s: see
docs/otlp.md.

Bytes arrive in chunks that may cut lines anywhere; the events do not depend on the cuts. A receiver
keeps at most one unfinished record, of little more than `max_record` bytes, or one message.

Constraints: no sockets, no files, no clock, no asyncio. Everything is a function of the bytes
received, and of the time if a protocol needs it, so that every protocol can be tested, and fuzzed,
without a daemon. `journal_export` and `syslog_message` also parse input of `logengine import`,
`messagepack` serves `forward`; none of them has a `PROTOCOL`.
"""
