"""A server that acknowledges immediately and keeps nothing: `python -m benchmarks.null SOCKET`.

The rate of the load generators against it is their own ceiling.
"""

import select
import socket
import sys

from benchmarks.flood import allow_descriptors

_HELLO_BYTES_MAX = 4096


def main(path: str) -> None:
    """Serves until it is killed. A client without a hello is read, and gets no answers."""
    allow_descriptors()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(4096)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    connections: dict[int, socket.socket] = {}
    records: dict[int, int] = {}
    buffer = bytearray(262144)
    listening = listener.fileno()
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == listening:
                connection, _ = listener.accept()
                if connection.recv(_HELLO_BYTES_MAX):
                    connection.sendall(b'{"welcome":1,"next":1}\n')
                    connections[connection.fileno()] = connection
                    records[connection.fileno()] = 0
                    poll.register(connection, select.EPOLLIN)
                continue
            connection = connections[descriptor]
            received = connection.recv_into(buffer)
            if received:
                records[descriptor] += buffer.count(b"\n", 0, received)
                connection.send(b'{"ack":%d}\n' % records[descriptor])
            else:
                poll.unregister(connection)
                del connections[descriptor]
                connection.close()


if __name__ == "__main__":
    main(sys.argv[1])
