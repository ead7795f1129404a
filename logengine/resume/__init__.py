"""Where an earlier run with the same `--resume NAME` stopped, and how a run finds that place.

The daemon knows how many records of NAME are durable, but not where they came from. A small file
for each NAME keeps that. Before a run sends a portion of its inputs, it writes a durable note:

    records 5001 to 5320 are lines 1 to 320 of access.log from byte 812345 on
    records 5321 to 5400 are the journal's entries i=1a20, i=1a21, …

So for any number that the daemon reports, the notes say where that record is, whenever either side
was killed. Nothing needs to be written when an acknowledgement arrives.

    history       the notes, and what they mean at a number
    cursor        the cursors of journald
    entries       a journal, entry by entry
    lines         an input of lines, cut into portions to note
    rotation      the names that logrotate and others give to files
    recognition   which file is which, and in what order to read them
    sending       one run: what it sends of the inputs, and when it notes that
    state_file    the notes on disk
    log_file      the files on disk
"""
