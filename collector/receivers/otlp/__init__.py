"""Receives traces, metrics and logs over OTLP: gRPC, HTTP protobuf and HTTP JSON.

Example:
    protocols:
      grpc:
      http:
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from pydantic import model_validator

from collector import fields
from collector.component import Accept, Receiver
from collector.model import Signal
from collector.receivers.otlp.intake import Intake
from collector.receivers.otlp.options import Protocols

LARGEST = 64 << 20
"""OTLP specification, Request: the recommended limit of a message."""


class OtlpConfig(fields.Config):
    """Settings of the receiver."""

    protocols: Protocols
    """Which protocols to listen for: `grpc`, `http` or both."""

    @model_validator(mode="before")
    @classmethod
    def _some(cls, value: Any) -> Any:
        if isinstance(value, dict) and not value.get("protocols"):
            raise ValueError("must specify at least one protocol when using the OTLP receiver")
        return value


class Otlp(Receiver):
    """The OTLP receiver. `ports` holds the open ports by protocol."""

    Config = OtlpConfig
    config: OtlpConfig

    def __init__(self, config: Any, settings: Any) -> None:
        super().__init__(config, settings)
        self._servers: list[Any] = []
        self.ports: dict[str, int] = {}

    async def start(self, accept: Mapping[Signal, Accept]) -> None:
        """Open the ports. Raises OSError when one cannot be opened; then none stays open."""
        protocols, safe = self.config.protocols, min(LARGEST, self.settings.host.budget.message_limit())
        try:
            if protocols.grpc is not None:
                from collector.receivers.otlp.grpc_server import GrpcServer

                limit = protocols.grpc.max_recv_msg_size_mib << 20 or safe
                await self._add("grpc", GrpcServer(protocols.grpc, self.settings, self._intake("grpc", accept), limit))
            if protocols.http is not None:
                from collector.receivers.otlp.http_server import HttpServer

                limit = protocols.http.max_request_body_size or safe
                await self._add("http", HttpServer(protocols.http, self.settings, self._intake("http", accept), limit))
        except BaseException:
            await self.stop()
            raise
        self.settings.log.info("otlp receiver listens", extra=dict(self.ports))

    async def stop(self) -> None:
        """Answer what is in flight, then close the ports."""
        servers, self._servers = self._servers, []
        await asyncio.gather(*(server.stop() for server in servers))

    def _intake(self, transport: str, accept: Mapping[Signal, Accept]) -> Intake:
        return Intake(self.settings, transport, accept)

    async def _add(self, name: str, server: Any) -> None:
        self._servers.append(server)
        await server.start()
        self.ports[name] = server.port
