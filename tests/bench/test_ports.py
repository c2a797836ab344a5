"""A port that was given stays free until its program binds it."""

from __future__ import annotations

import itertools
import socket
from pathlib import Path

import pytest

from bench import ports
from bench.ports import free_port


def test_no_port_is_given_twice_and_one_that_is_taken_is_left_out(monkeypatch):
    first = free_port()
    monkeypatch.setattr(ports, "_next", itertools.count(first - ports._FIRST))  # begins with it again
    with socket.create_server(("127.0.0.1", first)):
        given = {free_port() for _ in range(3)}
    assert len(given) == 3
    assert first not in given


def outgoing() -> int:
    """The lowest port that the kernel gives to outgoing connections."""
    range_ = Path("/proc/sys/net/ipv4/ip_local_port_range")
    return int(range_.read_text().split()[0]) if range_.exists() else 49_152


@pytest.mark.skipif(outgoing() < ports._LAST, reason="this system gives nearly all ports to outgoing connections")
def test_ports_are_none_that_the_kernel_gives_to_outgoing_connections():
    assert 1024 < free_port() < outgoing()
