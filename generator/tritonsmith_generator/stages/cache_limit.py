"""How much the results of stages may take: 10 GB, or as many as ``TRITONSMITH_CACHE_GB`` says."""

from __future__ import annotations

import os

from tritonsmith_generator.errors import HostError
from tritonsmith_generator.host.cache_dir import cache_folder, prune

__all__ = ["cache_limit", "prune_stages"]

_LIMIT_GB = 10.0
_LIMIT_NAME = "TRITONSMITH_CACHE_GB"


def cache_limit() -> int:
    """The bytes that all results may take. Raises HostError for a limit that is no number."""
    given = os.environ.get(_LIMIT_NAME, "")
    try:
        limit = float(given) if given else _LIMIT_GB
    except ValueError:
        limit = -1.0
    if not limit >= 0:  # NaN is no limit either
        raise HostError(f"{_LIMIT_NAME} is '{given}': set it to a number of gigabytes, or unset it")
    return int(min(limit, 1e9) * 1e9)


def prune_stages(limit: int) -> None:
    """Remove what was not used for the longest time, until the rest takes ``limit`` bytes.

    It looks at all that is kept, so once for all models of a run is enough.
    """
    prune(cache_folder("stages"), limit)
