"""Senders that want all of the daemon: `python -m benchmarks.attack SOCKET KIND CONNECTIONS`.

Connects as another user if it may, so as root, and sends as much as the daemon takes, until it is
killed. Prints a line when it begins.
"""

import os
import select
import socket
import sys
from pathlib import Path

# Whatever the machine calls it: the user that no file belongs to.
ATTACKER = 65534

_HELLO = b'{"_hello":1,"stream":"attack-%d"}\n'
_ANSWER_BYTES = 65536
_KEYS = ",".join(f'"{number:x}":1' for number in range(100_000))
KINDS = {
    "records": (b'{"event":"x","pad":"' + b"a" * 230 + b'"}\n') * 2000,
    "blank lines": b"\n" * 500_000,
    "empty objects": b"{}\n" * 200_000,
    "short text": b"x\n" * 200_000,
    "not UTF-8": b"\xff" * 1_048_570 + b"\n",
    "100,000 keys": f'{{"_ts":1,{_KEYS}}}\n'.encode(),
    "huge records": b'{"event":"' + b"a" * 1_048_000 + b'"}\n',
    "many streams": b'{"event":"x"}\n' * 20,
}
# Each of its connections has a stream of its own.
_WITH_STREAMS = {"many streams"}


def attack(path: Path, kind: str, connections: int) -> None:
    """Sends the content of `kind` again and again over all connections."""
    # Relative: the other user need not have access to all directories above.
    os.chdir(path.parent)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(ATTACKER)
        os.setuid(ATTACKER)
    poll = select.epoll()
    senders: dict[int, socket.socket] = {}
    sent: dict[int, int] = {}
    wanted = select.EPOLLOUT
    for number in range(connections):
        sender = socket.socket(socket.AF_UNIX)
        sender.connect(path.name)
        if kind in _WITH_STREAMS:
            sender.sendall(_HELLO % number)
            wanted |= select.EPOLLIN  # who does not read acks is not read
        sender.setblocking(False)
        senders[sender.fileno()], sent[sender.fileno()] = sender, 0
        poll.register(sender, wanted)
    print("begins", flush=True)
    content = KINDS[kind]
    view = memoryview(content)
    while True:
        for descriptor, happened in poll.poll():
            try:
                if happened & select.EPOLLIN:
                    senders[descriptor].recv(_ANSWER_BYTES)
                if not happened & select.EPOLLOUT:
                    continue
                size_bytes = senders[descriptor].send(view[sent[descriptor] :])
            except BlockingIOError:
                continue
            sent[descriptor] = (sent[descriptor] + size_bytes) % len(content)


if __name__ == "__main__":
    attack(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
