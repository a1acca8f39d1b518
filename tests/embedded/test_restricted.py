"""Where other machines can call, the server does for them what models do, and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support.wire.http_calls import get

from tritonsmith_client import Client
from tritonsmith_client.errors import StatusError
from tritonsmith_generator.serve.server_base import ServerBase


@pytest.fixture(scope="module")
def open_server(
    module_repository: Any, start_any_server: Callable[..., ServerBase]
) -> Iterator[ServerBase]:
    if not (module_repository.path / "add_sub").exists():
        module_repository.add_add_sub("add_sub")
    server = start_any_server(module_repository.path, host="0.0.0.0")
    yield server
    server.stop()


def test_models_are_for_all(open_server: ServerBase) -> None:
    two = np.full((1, 4), 2, np.float32)
    for url in (open_server.grpc_url, open_server.http_url):
        with Client(url) as client:
            assert client.model("add_sub")({"a": two, "b": two})["sum"].tolist() == [[4.0] * 4]
            assert client.statistics("add_sub")
    assert open_server.versions() == {"add_sub": ["1"]}


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/add_sub/load"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/x/register"),
        ("GET", "/v2/trace/setting"),
        ("GET", "/v2/logging"),
    ],
)
def test_the_rest_is_not(open_server: ServerBase, method: str, path: str) -> None:
    port = int(open_server.http_url.rpartition(":")[2])
    assert get(port, path, {}, method)[0] == 403
    assert get(port, path, {"admin-key": "guess"}, method)[0] == 403


def test_nor_is_it_over_grpc(open_server: ServerBase) -> None:
    with Client(open_server.grpc_url) as client, pytest.raises(StatusError, match="restricted"):
        client.index()
