"""Regions that a server still has of processes which were killed, and so the memory too. No I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tritonsmith_client._exchange.exchange import Flow
from tritonsmith_client._shared_memory.region_names import is_abandoned
from tritonsmith_client.errors import TritonError

if TYPE_CHECKING:
    from tritonsmith_client._protocol.protocol import WireProtocol

__all__ = ["refuses_while_in_use", "unregister_abandoned"]


def refuses_while_in_use(version: str) -> bool:
    """Whether a server of this version keeps a region until nothing writes to it any more.

    Triton does so since release 24.10.

    Args:
        version: e.g. ``"2.51.0"``.
    """
    numbers = [int(part) for part in version.split(".")[:2] if part.isdecimal()]
    return numbers >= [2, 51]


def unregister_abandoned(protocol: WireProtocol) -> Flow[None]:
    """Has the server let go of them, except of those that it still uses."""
    try:
        server = yield protocol.server_metadata()
        if not refuses_while_in_use(server.version):
            return
        known = (yield protocol.memory_status("system")) + (yield protocol.memory_status("cuda"))
    except TritonError:  # a server need not allow all of this to everybody
        return
    for status in known:
        if is_abandoned(status.name):
            try:
                yield protocol.unregister_memory(status.name, status.kind)
            except TritonError:
                continue
