"""Log files that the daemon follows: `[[file]]`. Each line is stored once, whatever is rotated.

A file is a producer (`format.producers`) of the daemon's user. Its name says which file it is, and
its number how many of its bytes are stored. So the position is in the header of the segment that
has the records, and both become durable in one commit. Nothing else is kept: a daemon that starts
asks the segments.

    settings        the section `[[file]]`
    identity        what a file is recognized by, and its name as a producer
    text            bytes to records: lines, groups of lines, the parts of CRI and Docker
    generations     which files of a path to read, and in what order
    birth           when a file was made
    contents        the files on disk
    changes         wakes whoever waits for a change of a directory
    source          an open file, and how far it is read
    following       finds the files, and reads them in turn
"""
