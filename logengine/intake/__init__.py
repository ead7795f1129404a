"""From sockets to entries: who may connect, be read and store how much, and what answers go out."""
