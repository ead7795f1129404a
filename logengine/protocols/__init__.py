"""Wire protocols, one a module: bytes in, events and answers out; no sockets, no clock."""
