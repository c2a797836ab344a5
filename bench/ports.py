"""Ports for programs that are started on this machine: free now, and not taken before they are used."""

from __future__ import annotations

import itertools
import random
import socket

_FIRST, _LAST = 20_000, 32_000
"""Below the range from which the kernel takes ports of outgoing connections and of `bind(0)`: those can take a port
between the moment it was found free and the moment a slow program binds it."""
_next = itertools.count(random.SystemRandom().randrange(_LAST - _FIRST))  # two processes begin at different places


def free_port() -> int:
    """A TCP port of this host that nobody listens on; the same process gets another one each time."""
    for number in itertools.islice(_next, _LAST - _FIRST):
        port = _FIRST + number % (_LAST - _FIRST)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise OSError(f"no free port from {_FIRST} to {_LAST}")
