"""The life of the process: its configuration, what it starts and ends, its own log, systemd."""
