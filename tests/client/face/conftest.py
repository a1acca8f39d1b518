"""One test for both clients."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support.wire.awaited import Awaited, Run

from tritonsmith_client import (
    AsyncClient,
    Client,
)


@pytest.fixture(params=["sync", "async"])
def run(url: str, request: pytest.FixtureRequest) -> Run:
    """Runs a coroutine function with either client."""

    def call(use: Callable[[Any], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            client: Any = (
                Awaited(Client(url, timeout=20.0))
                if request.param == "sync"
                else AsyncClient(url, timeout=20.0)
            )
            async with client:
                return await asyncio.wait_for(use(client), 60)

        return asyncio.run(main())

    return call
