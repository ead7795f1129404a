"""The layout of a data directory: bytes in, values out. No I/O, no clock.

`docs/format.md` is the full specification. In short:

    DATA/.lock                                       flock(2): one daemon per data directory
    DATA/.running                                    present while a daemon runs, and after a kill
    DATA/.durable/app                                how far stream "app" is durable
    DATA/.reserve                                    space kept back for a stop on a full disk
    DATA/.cursors/relay                              a registered cursor, `stream:seq`
    DATA/.filters/app/00000000000000000001           the search filters of a segment
    DATA/app/00000000000000000001.ndjson.zst         a compressed segment of stream "app"
    DATA/app/00000000000000000412.ndjson             the next segment, plain
    DATA/app/.00000000000000000412.ndjson.8f1c….tmp  a temp: not data, never read

A stream is a directory. Its records are numbered from 1, and a number is never used again. They
are stored in segments: immutable files named by the number of their first record. A file under
such a name is complete from the moment it is visible, and is only ever replaced as a whole. Names
that begin with a dot are not data, except for the markers above.

A plain segment is NDJSON. The first line is the header: one JSON object with the stream, the
first number, the count of records, the length and sha256 of the body, the least and greatest
timestamp, and for each producer the number of its last record. The other lines are the body, one
record per line: the object that was sent, with the envelope (`_ts` first, then what the kernel
says about the peer) in front. `header_sha256`, the last key of the header, covers the header;
`sha256` covers the body. Any flipped bit is therefore found.

A compressed segment consists of zstd frames, and `zstdcat` turns it into a plain one. The first
frame is the header line. Each other frame contains whole lines, about 1 MiB of them. The header
gives each frame's length, record count, times and sha256, so a reader can read and check one
frame without the others.

A sealed segment is a compressed one whose `prev` is the `header_sha256` of the sealed segment
before it. Seals form a chain in which each determines all earlier ones; they may also be signed.

Three kinds of mark keep the numbering complete: a recorded gap is a segment without records in
place of records that are gone; a tombstone replaces the content of an erased record; `restored`
marks a sealed segment that a repair wrote.

A merge leaves segments that its result covers until they are removed; readers ignore them. Any
other overlap or gap between segments is damage, and so is a file that contradicts its header.

Constraints: this package takes bytes and returns values. It opens no files and reads no clock.
A header that cannot be true raises `DamagedSegment`, which names the path that the caller gave.
"""
