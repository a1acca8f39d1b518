"""Errors of connections, in words."""

from __future__ import annotations

from tritonsmith_client._net.address import Address
from tritonsmith_client.errors import (
    ClosedError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    TritonError,
)

__all__ = ["closed", "closed_meanwhile", "lost", "no_connection", "silent"]


def closed(client: str) -> TritonError:
    """Args: client: the kind of it, ``"Client"`` or ``"AsyncClient"``."""
    return ClosedError(f"the client was used after close(): make a new {client}")


def closed_meanwhile() -> TritonError:
    return ClosedError("the client was closed while it was used")


def silent(what: str, timeout: float | None) -> TritonError:
    return DeadlineExceededError(f"{what} failed: no response within {timeout:g} s")


def no_connection(what: str, address: Address, exc: OSError) -> TritonError:
    return ConnectError(f"{what} failed: no connection to {address}: {exc}")


def lost(what: str, address: Address, exc: OSError, complete: bool) -> TritonError:
    if not complete:
        return ConnectError(f"{what} failed: the connection to {address} broke: {exc}")
    return ConnectionLostError(
        f"{what} failed: the connection to {address} broke before the reply was complete: {exc}; "
        "the server may have executed it"
    )
