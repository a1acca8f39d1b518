"""A real tritonserver with the models of this folder, once for all tests of the client."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from support.harness.paths import CLIENT_MODELS as MODELS
from support.wire.regions import own_regions

import tritonsmith_client._async.client
import tritonsmith_client._sync.client
from tritonsmith_client import Client
from tritonsmith_client._net.connection_config import ConnectionConfig, connection_config
from tritonsmith_generator.serve import Server

# How long an example takes is the machine's affair; hypothesis knows that only of CI's.
settings.register_profile(
    "patient", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("patient")


@pytest.fixture(autouse=True)
def leave_no_name() -> Iterator[None]:
    """Fails the test that leaves a region's name in its folder, which the next ones would find."""
    yield
    if own_regions():
        gc.collect()  # an error's traceback may hold a SystemRegion, in a cycle
    assert not own_regions()


@pytest.fixture(scope="session")
def server(start_server: Callable[..., Server]) -> Server:
    return start_server(MODELS)


def own(*given: Any) -> ConnectionConfig:
    return replace(connection_config(*given), http2="own")


@pytest.fixture(params=["grpc", "own", "http"])
def url(server: Server, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The server's address, once for each protocol, and once more for gRPC in our own HTTP/2."""
    if request.param == "http":
        return server.http_url
    if request.param == "own":
        for module in (tritonsmith_client._sync.client, tritonsmith_client._async.client):
            monkeypatch.setattr(module, "connection_config", own)
    return server.grpc_url


@pytest.fixture(scope="session")
def forwarding(start_server: Callable[..., Server]) -> Server:
    """A server that shows models the headers that are meant for them."""
    patterns = [
        f"--{kind}-header-forward-pattern=(x-test-.*|traceparent)" for kind in ("grpc", "http")
    ]
    return start_server(MODELS, models=["wishes"], extra_args=patterns)


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url, timeout=30.0) as made:
        yield made
