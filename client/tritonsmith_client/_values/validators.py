"""Kinds of values that arguments may have.

A check returns the value in the form in which it is used, or raises `RefusedError`.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import numpy as np

__all__ = [
    "ABOVE_0",
    "Check",
    "INT64",
    "RefusedError",
    "TEXT",
    "UINT32",
    "can_be_sent",
    "choice",
    "flag",
    "is_whole",
    "name",
    "names",
    "number",
    "or_none",
    "seconds",
    "shown",
    "text",
    "whole",
]

V = TypeVar("V")
Check = Callable[[Any], V]

# What both protocols carry. Above, HTTP makes a float of an int, and gRPC counts from 0 again.
UINT32, INT64 = 2**32 - 1, 2**63
ABOVE_0 = math.ulp(0.0)
_LONGEST = 1e6  # seconds, 11 days: poll() counts milliseconds in 31 bits
TEXT = "a str without NUL characters and lone surrogates"
_LONGEST_SHOWN = 80


class RefusedError(Exception):
    """Args: allowed: goes on after "it must be"; what: is wrong, if not the value as a whole."""

    def __init__(self, allowed: str, what: str = "") -> None:
        super().__init__(allowed)
        self.allowed = allowed
        self.what = what


def number(allowed: str, least: float, most: float, *, zero: bool = False) -> Check[float]:
    """Return a number within limits, which are allowed; perhaps 0 besides."""

    def check(value: Any) -> float:
        real = isinstance(value, (int, float, np.integer, np.floating))
        if not real or isinstance(value, bool):
            raise RefusedError(allowed)
        # Compared before float(), which fails for integers that are far too large.
        if least <= value <= most or (zero and value == 0):
            return float(value)
        raise RefusedError(allowed)

    return check


def seconds(
    above: str,
    otherwise: str = "",
    *,
    least: float = 0.0,
    most: float = _LONGEST,
    zero: bool = False,
) -> Check[float]:
    """Return a time in seconds."""
    return number(f"seconds {above} up to {most:.0f}{otherwise}", least, most, zero=zero)


def or_none(check: Check[V]) -> Check[V | None]:
    """Return what the check takes, or None."""

    def none_or(value: Any) -> V | None:
        return None if value is None else check(value)

    return none_or


def choice(allowed: str, *choices: V) -> Check[V]:
    """One of a few texts, or None where it is among them."""

    def check(value: Any) -> V:
        if (value is None or isinstance(value, str)) and value in choices:
            return value
        raise RefusedError(allowed)

    return check


def whole(least: int, most: int, meaning: str = "") -> Check[int]:
    """Return an int within limits, which are allowed."""

    def check(value: Any) -> int:
        if is_whole(value) and least <= value <= most:
            return int(value)
        raise RefusedError(f"an int from {least} to {most}{meaning}")

    return check


def is_whole(value: object) -> bool:
    """Whether a value is an integer, and not a bool, which Python takes for one."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def flag(value: Any) -> bool:
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise RefusedError("True or False")


def text(value: Any) -> str:
    if isinstance(value, str) and can_be_sent(value):
        return value
    raise RefusedError(TEXT)


def can_be_sent(value: str) -> bool:
    """Servers read a text up to its first NUL, and a lone surrogate has no UTF-8."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def name(value: Any) -> str:
    if isinstance(value, str) and value and can_be_sent(value):
        return value
    raise RefusedError(f"{TEXT}, and not empty")


def names(value: Any) -> tuple[str, ...]:
    """Each of them once."""
    if isinstance(value, str):
        raise RefusedError(f"a list of names: write [{shown(value)}]")
    if isinstance(value, (bytes, Mapping)) or not isinstance(value, Iterable):
        raise RefusedError("a list of names")
    found: dict[str, None] = {}
    for number, item in enumerate(value):
        try:
            found[name(item)] = None
        except RefusedError as refused:
            raise RefusedError(refused.allowed, f"name {number} is {shown(item)}") from None
    return tuple(found)


def shown(value: object) -> str:
    """Return a value in few characters, all of which can be printed."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python writes no int of more than 4300 digits
        return f"a number with too many digits ({type(value).__name__})"


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _LONGEST_SHOWN + 2
