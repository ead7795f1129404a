"""`logengine exec`: runs a command as a child process and stores its output as records.

    execution        runs the command, sends its output and how it ended
    child_process    the process: its pipes, the signals passed on to it, its exit
    command_output   its output as records: bytes in, lines for the daemon out

A command must not fail because of its log: whatever goes wrong with the log is reported in a line,
and the command and its exit status stay as they are. `running` needs the main thread, before there
are other threads, and a process that waits for no other children. `command_output` does no I/O.
"""
