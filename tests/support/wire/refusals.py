"""What the client refuses before anything is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tritonsmith_client import InputError

__all__ = ["LONE", "SECONDS", "TEXT", "refused"]

LONE = "a\ud800"  # half of a character: no UTF-8 has it
TEXT = "a str without NUL characters and lone surrogates"
SECONDS = "seconds above 0 up to 1000000, or None for no deadline"


def refused(said: str, call: Callable[..., object], /, *args: Any, **named: Any) -> str:
    """What the error says, which is all of this and can be printed."""
    with pytest.raises(InputError) as caught:
        call(*args, **named)
    message = str(caught.value)
    assert said in message
    assert "Traceback" not in message and len(message) < 400
    message.encode()
    return message
