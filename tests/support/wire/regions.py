"""What tests of shared memory look for in its folder."""

from __future__ import annotations

import json
import os
import urllib.request
from pathlib import Path

from tritonsmith_generator.serve import Server

__all__ = ["BIG", "own_regions", "regions"]

BIG = (300, 400)  # so large that a tensor travels through shared memory


def own_regions() -> list[Path]:
    """The files of the regions that this process made and that still have their names."""
    return [*Path("/dev/shm").glob(f"tritonsmith_client_{os.getpid()}_*")]


def regions(server: Server) -> set[str]:
    """The regions that the server has mapped."""
    with urllib.request.urlopen(f"{server.http_url}/v2/systemsharedmemory/status") as reply:
        return {region["name"] for region in json.load(reply)}
