"""The code with which a server runs plans, for builds that load what it will load."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tritonsmith_generator.layout import PACKAGE

__all__ = ["server_code"]

_FOLDER = PACKAGE / "backends" / "common"


@contextmanager
def server_code() -> Iterator[None]:
    """Make ``tritonsmith_backend`` importable in the block.

    It is not a package of the generator: it lies where a server finds it, whose Python may lack all
    of ours.
    """
    sys.path.append(str(_FOLDER))
    try:
        yield
    finally:
        sys.path.remove(str(_FOLDER))
