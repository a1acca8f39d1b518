"""Whether a process has ended, whosever child it is."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["is_gone"]


def is_gone(pid: int) -> bool:
    """Ended, waited for or not: an orphan's remains are init's to clear away."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # cleared away; while it was read
        return True
    # The last of its threads closes its files.
    return bool(re.search(r"\nState:\tZ(.|\n)*\nThreads:\t[01]\n", status))
