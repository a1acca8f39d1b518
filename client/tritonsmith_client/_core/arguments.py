"""What each argument besides the tensors may be: a check by name.

They run where arguments come in, once, so that a call has nothing left to check.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from tritonsmith_client._net.headers import call_headers, client_headers
from tritonsmith_client._values.regions import RegionTensor
from tritonsmith_client._values.validators import (
    TEXT,
    Check,
    Choice,
    Number,
    RefusedError,
    can_be_sent,
    flag,
    is_whole,
    name,
    names,
    shown,
    text,
    whole,
)
from tritonsmith_client.errors import InputError

__all__ = ["checked", "checked_instance"]

_LONGEST = 1e6  # seconds, 11 days: poll() counts milliseconds in 31 bits
_ABOVE_0 = math.ulp(0.0)
_MOST_KEEPALIVE = 32767  # Linux takes no more for TCP_KEEPIDLE
_MOST_SEQUENCE_ID = 128  # bytes, for Triton
# What both protocols carry. Above, HTTP makes a float of an int, and gRPC counts from 0 again.
_UINT32, _INT64 = 2**32 - 1, 2**63
# Words that the protocol gives a meaning of its own; Triton reserves triton_* as well.
_RESERVED = {
    "binary_data_output": "left out: outputs are always binary",
    "headers": "given with headers=",
    "priority": "given with priority=",
    "sequence_end": "left to model.sequence()",
    "sequence_id": "left to model.sequence()",
    "sequence_start": "left to model.sequence()",
    "timeout": "given with queue_timeout=",
}


def checked(option: str, value: Any, where: str = "", *, model: str | None = None) -> Any:
    """The value in the form in which it is used.

    Args:
        where: for messages: what was called, if not a model.
        model: the name of the model that it is about, if it is about one.

    Raises:
        InputError: it has no meaning, or would not arrive as it is.
    """
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


def _version(value: Any) -> str:
    if is_whole(value) and 0 < value < _INT64:
        return str(int(value))
    if isinstance(value, str):
        digits = value.isascii() and value.isdecimal() and len(value) < 20
        if not value or (digits and 0 < int(value) < _INT64):
            return value
    raise RefusedError("a number above 0, such as 1 or '1', or '' (the default)")


def _sequence_id(value: Any) -> int | str:
    if is_whole(value) and 0 < value < _INT64:
        return int(value)
    good = isinstance(value, str) and can_be_sent(value)
    if good and 0 < len(value.encode()) <= _MOST_SEQUENCE_ID:
        return str(value)
    raise RefusedError(
        f"an int from 1 to {_INT64 - 1} or a str of 1 to {_MOST_SEQUENCE_ID} bytes without NUL "
        "characters and lone surrogates; 0 and '' mean 'no sequence'"
    )


def _parameters(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise RefusedError("a dict from names to bool, int, float or str")
    return {_parameter_name(key): _parameter(key, given) for key, given in value.items()}


def _parameter_name(key: Any) -> str:
    if not isinstance(key, str) or not can_be_sent(key):
        raise RefusedError(TEXT, f"the name of the parameter {shown(key)} is none")
    if key in _RESERVED or key.startswith("triton_"):
        use = _RESERVED.get(key, "given another name")
        raise RefusedError(use, f"the parameter '{key}' belongs to the protocol")
    return key


def _parameter(key: str, value: Any) -> Any:
    given = value.item() if isinstance(value, np.generic) else value
    if isinstance(given, (bool, float)):
        return given
    if isinstance(given, int) and -_INT64 <= given < _INT64:
        return given
    if isinstance(given, str) and can_be_sent(given):
        return given
    raise RefusedError(
        "a bool, int, float or str; ints have 64 bits, and texts neither NUL characters nor lone "
        "surrogates",
        f"the parameter '{key}' is {shown(value)}",
    )


def _out(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise RefusedError("a dict from output names to arrays")
    for key, given in value.items():
        writable = isinstance(given, np.ndarray) and given.flags.writeable
        if not isinstance(key, str) or not (writable or isinstance(given, RegionTensor)):
            what = f"out[{shown(key)}] is {shown(given)}"
            raise RefusedError(
                "a writable array or RegionTensor, and its key an output's name", what
            )
    return dict(value)


def _items(value: Any) -> Iterable[Any]:
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, Mapping)):
        return value
    raise RefusedError("a list, or another iterable, of what the model is to be called with")


def _progress(value: Any) -> Callable[[int], object] | None:
    if value is None or callable(value):
        found: Callable[[int], object] | None = value
        return found
    raise RefusedError("a function that takes the number of results so far, or None")


def _config(value: Any) -> str:
    """The JSON of a model's configuration."""
    try:
        if value is None or isinstance(value, Mapping):
            return "" if value is None else text(json.dumps(value, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError, RefusedError) as exc:
        what = f"config is no JSON: {exc}"
        raise RefusedError("a dict of plain values, such as model.config.fields", what) from exc
    raise RefusedError("a dict, such as model.config.fields, or None")


def _files(value: Any) -> dict[str, bytes]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise RefusedError("a dict from paths to bytes")
    for path, content in value.items():
        if not isinstance(content, (bytes, bytearray, memoryview)):
            what = f"files[{shown(path)}] is {shown(content)}"
            raise RefusedError("the content as bytes, such as path.read_bytes()", what)
    return {name(path): bytes(content) for path, content in value.items()}


def _shape(value: Any) -> tuple[int, ...]:
    listed = isinstance(value, (list, tuple, np.ndarray))
    if listed and all(is_whole(axis) and axis >= 0 for axis in value):
        return tuple(map(int, value))
    raise RefusedError("a list or tuple of ints from 0 on")


def _path(value: Any) -> str | os.PathLike[str] | None:
    if value is None or (isinstance(value, (str, os.PathLike)) and os.fspath(value)):
        found: str | os.PathLike[str] | None = value
        return found
    raise RefusedError("a path as str or Path, or None")


def _optional_name(value: Any) -> str | None:
    return None if value is None else name(value)


def _trace_settings(value: Any) -> dict[str, tuple[str, ...] | None]:
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
    allowed = f"a str, an int from {least} to {_UINT32}, or None"
    raise RefusedError(f"{allowed}, or a list of str" if key == "trace_level" else allowed)


def _log_settings(value: Any) -> dict[str, Any]:
    return _settings(value, _log_setting)


def _log_setting(key: str, value: Any) -> bool | int | str:
    check = _LOG_SETTINGS.get(key)
    if check is not None or isinstance(value, bool):
        found: bool | int | str = (check or flag)(value)
        return found
    if _is_setting(value, 0):
        return value if isinstance(value, str) else int(value)
    raise RefusedError(f"a bool, a str or an int from 0 to {_UINT32}")


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
    return is_whole(value) and least <= value <= _UINT32


_LOG_SETTINGS: Mapping[str, Check] = {
    "log_error": flag,
    "log_file": text,
    "log_format": text,
    "log_info": flag,
    "log_verbose_level": whole(0, _UINT32),
    "log_warning": flag,
}


def _seconds(
    above: str, otherwise: str = "", *, least: float = 0.0, most: float = _LONGEST, **also: bool
) -> Check:
    return Number(f"seconds {above} up to {most:.0f}{otherwise}", least, most, **also)


CHECKS: Mapping[str, Check] = {
    "attempts": whole(1, _UINT32),
    "ca": _path,
    "certificate": _path,
    "classes": whole(0, _UINT32, " (0 for none)"),
    "compression": Choice("'gzip', 'deflate' or None", ("gzip", "deflate", None)),
    "concurrency": whole(1, _UINT32),
    "config": _config,
    "convert": flag,
    "dependents": flag,
    "device": whole(0, 2**31 - 1, " (the number of a GPU)"),
    "files": _files,
    "first": _seconds("from 0"),
    "headers": call_headers,
    "headers of all calls": client_headers,
    "hedge": _seconds("from 0 (never)"),
    "http2": Choice("'grpcio' or 'own'", ("grpcio", "own")),
    "id": text,
    "items": _items,
    "keepalive": _seconds(
        "above 0", ", or None for never", least=_ABOVE_0, most=_MOST_KEEPALIVE, none=True
    ),
    "key": _path,
    "log settings": _log_settings,
    "longest": _seconds("from 0"),
    "model": text,
    "models": names,
    "name": name,
    "offset": whole(0, _INT64 - 1, " (bytes)"),
    "out": _out,
    "outputs": names,
    "parameters": _parameters,
    "priority": whole(0, _UINT32, " (1 is the highest, 0 the model's default)"),
    "progress": _progress,
    "queue_timeout": _seconds(
        "from 0.000001", ", or 0 for the model's default", least=1e-6, zero=True
    ),
    "ready": flag,
    "resolve": flag,
    "sequence id": _sequence_id,
    "server_name": _optional_name,
    "shape": _shape,
    "shared_memory": Choice("'auto' or 'off'", ("auto", "off")),
    "size": whole(1, _INT64 - 1, " (bytes)"),
    "split": flag,
    "timeout": _seconds("above 0", ", or None for no deadline", least=_ABOVE_0, none=True),
    "trace settings": _trace_settings,
    "version": _version,
    "workers": whole(1, _UINT32),
}
