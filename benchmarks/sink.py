"""A server that reads and keeps nothing: `python -m benchmarks.sink {datagram,stream} SOCKET`.

What the handlers of the standard library send to, in a process of its own.
"""

import socket
import sys

_BUFFER_BYTES = 256 * 1024


def main(kind: str, path: str) -> None:
    """Serves until it is killed, one connection after another."""
    buffer = bytearray(_BUFFER_BYTES)
    if kind == "datagram":
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagrams:
            datagrams.bind(path)
            while True:
                datagrams.recv_into(buffer)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        while True:
            connection, _ = listener.accept()
            with connection:
                while connection.recv_into(buffer):
                    pass


if __name__ == "__main__":
    main(*sys.argv[1:])
