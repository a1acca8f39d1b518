"""Values that users give, checked by what they are called."""

from __future__ import annotations

from typing import Any

from tritonsmith_client._values.validators import (
    RefusedError,
    shown,
)
from tritonsmith_client.errors import InputError

__all__ = ["checked", "checked_instance"]


# What both protocols carry. Above, HTTP makes a float of an int, and gRPC counts from 0 again.
_UINT32, _INT64 = 2**32 - 1, 2**63


def checked(option: str, value: Any, where: str = "", *, model: str | None = None) -> Any:
    """The value in the form in which it is used.

    Args:
        where: for messages: what was called, if not a model.
        model: the name of the model that it is about, if it is about one.

    Raises:
        InputError: it has no meaning, or would not arrive as it is.
    """
    from tritonsmith_client._core.arguments import CHECKS  # one circle less, one to go

    try:
        return CHECKS[option](value)
    except RefusedError as refused:
        what = refused.what or f"{option} is {shown(value)}"
        place = where or f"model '{model}'"
        raise InputError(
            f"{place}: {what}", model=model, remedy=f"it must be {refused.allowed}"
        ) from None


def checked_instance(kind: type, option: str, value: Any, where: str) -> None:
    """Raises InputError for a value of another class."""
    if not isinstance(value, kind):
        raise InputError(f"{where}: {option} is {shown(value)}; it must be a {kind.__name__}")
