"""What a client does besides its calls, for whoever listens: the logger "tritonsmith", at DEBUG."""

from __future__ import annotations

import sys

__all__ = ["debug"]


def debug(message: str, *arguments: object) -> None:
    """Log a message, for what happens rarely: connects, retries, failovers, leases.

    A program that nobody told to log has not imported ``logging``, and need not do so for this.
    """
    logging = sys.modules.get("logging")
    if logging is not None:
        logging.getLogger("tritonsmith").debug(message, *arguments)
