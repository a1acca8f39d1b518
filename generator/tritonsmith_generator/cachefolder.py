"""Where the generator keeps what can be made again."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder(part: str) -> Path:
    """$XDG_CACHE_HOME/tritonsmith/PART, or ~/.cache/tritonsmith/PART; it may not exist yet."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "tritonsmith" / part
