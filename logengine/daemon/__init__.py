"""The daemon process: its configuration, its start and stop, its own log, systemd.

The modules, in the order in which a start passes them:

    config            loads and checks the TOML file; prints it again
    config_sections   the typed sections of the configuration
    daemon_log        configures structlog on standard error
    line_limit        suppresses and counts lines that one cause repeats
    log_writer        a thread that writes the lines: a slow reader blocks nothing else
    daemon            start, READY, signals, stop: the life of the process
    signals           which signal stops the daemon, and which it ignores
    allocator         tunes malloc for short-lived large buffers
    open_store        opens the store and recovers the streams; waits if the disk may come back
    sockets           binds the listeners, or adopts those of systemd
    systemd           readiness messages and passed sockets
    service           makes the parts of a running daemon and connects them
    data_watch        stops and restarts the work when the data directory is replaced
    upkeep            compaction, retention, the reserve, scans of stored bytes
    socket_watch      binds a socket again if its file was removed
    announcement      the state that `systemctl status` shows

Constraints: this package only creates the parts and connects them; `intake` decides what is read,
`store` and `upkeep` what is written. Disk errors do not end a running daemon: records wait in
memory until the disk works again. A signal starts the stop, which drains everything that was sent
before it, for at most `stop_timeout`.
"""
