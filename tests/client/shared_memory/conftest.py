"""A client whose tensors travel through shared memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tritonsmith_client import (
    Client,
)


@pytest.fixture
def shared(url: str) -> Iterator[Client]:
    with Client(url, timeout=20.0) as client:  # found by itself
        yield client
