"""``--debug``: errors are shown with their tracebacks, those of other processes included."""

from __future__ import annotations

import traceback
from contextvars import ContextVar

__all__ = ["DEBUG", "show_traceback"]

DEBUG: ContextVar[bool] = ContextVar("debug", default=False)


def show_traceback(error: BaseException) -> None:
    """Print it on stderr if that was asked for; for errors that are not raised any further."""
    if DEBUG.get():
        traceback.print_exception(error)
