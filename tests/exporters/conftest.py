"""Fixtures of the exporters' tests."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.exporters.servers import Certificates, GrpcBackend, HttpBackend, grpc_backend, http_backend, make_certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def http() -> AsyncIterator[HttpBackend]:
    async with http_backend() as backend:
        yield backend


@pytest.fixture
async def grpc_server() -> AsyncIterator[GrpcBackend]:
    async with grpc_backend() as backend:
        yield backend
