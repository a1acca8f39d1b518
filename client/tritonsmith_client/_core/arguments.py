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

from tritonsmith_client._core.server_settings import _log_settings, _trace_settings
from tritonsmith_client._net.headers import call_headers, client_headers
from tritonsmith_client._values.checked import _INT64, _UINT32
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

__all__ = []

_LONGEST = 1e6  # seconds, 11 days: poll() counts milliseconds in 31 bits
_ABOVE_0 = math.ulp(0.0)
_MOST_KEEPALIVE = 32767  # Linux takes no more for TCP_KEEPIDLE
_MOST_SEQUENCE_ID = 128  # bytes, for Triton
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
