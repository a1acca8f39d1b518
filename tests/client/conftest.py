"""A real tritonserver with the models of this folder, once for all tests of the client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tritonsmith_client import Client
from tritonsmith_generator.serve import Server

MODELS = Path(__file__).parent / "models"


@pytest.fixture(scope="session")
def server(start_server: Callable[..., Server]) -> Server:
    return start_server(MODELS)


@pytest.fixture(params=["grpc", "http"])
def url(server: Server, request: pytest.FixtureRequest) -> str:
    """The server's address, once for each protocol."""
    return server.grpc_url if request.param == "grpc" else server.http_url


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
