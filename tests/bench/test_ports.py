"""A port that was given stays free until its program binds it."""

from __future__ import annotations

import itertools
import socket
from pathlib import Path

from bench import ports
from bench.ports import free_port


def test_no_port_is_given_twice_and_one_that_is_taken_is_left_out(monkeypatch):
    first = free_port()
    monkeypatch.setattr(ports, "_next", itertools.count(first - ports._FIRST))  # begins with it again
    with socket.create_server(("127.0.0.1", first)):
        given = {free_port() for _ in range(3)}
    assert len(given) == 3
    assert first not in given


def test_ports_are_none_that_the_kernel_gives_to_outgoing_connections():
    kernel = Path("/proc/sys/net/ipv4/ip_local_port_range")
    lowest = int(kernel.read_text().split()[0]) if kernel.exists() else 32_768
    assert 1024 < free_port() < lowest
