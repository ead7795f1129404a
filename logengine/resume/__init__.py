"""Where an earlier run with the same `--resume NAME` stopped, and how that is found again.

The daemon knows how many records of NAME are durable, and nothing of where they came from.
That is kept here, in a small file for each NAME. What is about to be sent is noted in it, and
the note is durable, before the first record of it is sent:

    records 5001 to 5320 are lines 1 to 320 of access.log from byte 812345 on
    records 5321 to 5400 are the journal's entries i=1a20, i=1a21, …

So for any number that the daemon says, the notes say where that record is, wherever either
side was killed. Nothing has to be written when an ack comes.

    history       the notes, and what they mean at a number
    cursor        the cursors of journald
    lines         an input of lines, cut into portions to note
    rotation      the names of files that logrotate and others give
    recognition   which file is which, and in what order to read them
    sending       one run: what of the inputs is sent, and when it is noted
    state_file    the notes on disk
    log_file      the files on disk
"""
