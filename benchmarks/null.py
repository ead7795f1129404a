"""A server that reads what comes and does nothing with it: `python -m benchmarks.null SOCKET`."""

import socket
import sys
import threading


def swallow(connection: socket.socket) -> None:
    """Reads to the end."""
    buffer = bytearray(262144)
    while connection.recv_into(buffer):
        pass
    connection.close()


def main(path: str) -> None:
    """Serves until it is killed."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=swallow, args=[connection], daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1])
