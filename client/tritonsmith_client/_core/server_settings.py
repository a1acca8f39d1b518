"""Checks of the server's trace and log settings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tritonsmith_client._values.argument import Argument
from tritonsmith_client._values.validators import (
    UINT32,
    Check,
    RefusedError,
    can_be_sent,
    flag,
    is_whole,
    name,
    shown,
    text,
    whole,
)


def trace_settings(value: Any) -> dict[str, tuple[str, ...] | None]:
    """Each setting as texts, which is all that a server takes."""
    return _settings(value, _trace_setting)


def _trace_setting(key: str, value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    several = isinstance(value, (list, tuple)) and key == "trace_level"
    least = -1 if key == "trace_count" else 0  # -1: no limit
    found = tuple(value) if several else (value,)
    if found and all(_is_setting(each, least) for each in found):
        return tuple(map(str, found))
    allowed = f"a str, an int from {least} to {UINT32}, or None"
    raise RefusedError(f"{allowed}, or a list of str" if key == "trace_level" else allowed)


def log_settings(value: Any) -> dict[str, Any]:
    return _settings(value, _log_setting)


def _log_setting(key: str, value: Any) -> bool | int | str:
    check = _LOG_SETTINGS.get(key)
    if check is not None or isinstance(value, bool):
        found: bool | int | str = (check or flag)(value)
        return found
    if _is_setting(value, 0):
        return value if isinstance(value, str) else int(value)
    raise RefusedError(f"a bool, a str or an int from 0 to {UINT32}")


def _settings(value: Any, setting: Callable[[str, Any], Any]) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RefusedError("a dict from the names of settings to values")
    found = {}
    for key, given in value.items():
        name(key)
        try:
            found[key] = setting(key, given)
        except RefusedError as refused:
            what = f"the setting {shown(key)} is {shown(given)}"
            raise RefusedError(refused.allowed, what) from None
    return found


def _is_setting(value: Any, least: int) -> bool:
    if isinstance(value, str):
        return can_be_sent(value)
    return is_whole(value) and least <= value <= UINT32


_LOG_SETTINGS: Mapping[str, Check[bool] | Check[int] | Check[str]] = {
    "log_error": flag,
    "log_file": text,
    "log_format": text,
    "log_info": flag,
    "log_verbose_level": whole(0, UINT32),
    "log_warning": flag,
}


TRACE_SETTINGS = Argument("trace settings", trace_settings)
LOG_SETTINGS = Argument("log settings", log_settings)
