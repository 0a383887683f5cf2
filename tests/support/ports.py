"""Ports for programs that have to be told theirs."""

import contextlib
import random
import socket

#: Below those that systems give to who asks for any (Linux: from 32,768).
RANGE = (10_000, 32_000)


def find_free_ports(count: int = 1) -> list[int]:
    """Ports of this machine that are free, and stay so until they are taken.

    One that the system gives for 0 is soon given to somebody else's connection.
    """
    draw = random.SystemRandom()  # Other processes look for some at the same time.
    found: list[int] = []
    while len(found) < count:
        port = draw.randrange(*RANGE)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            if port not in found:
                found.append(port)
    return found
