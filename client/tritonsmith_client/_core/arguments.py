"""What the arguments of the client's own methods may be."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tritonsmith_client._values.argument import Argument
from tritonsmith_client._values.validators import (
    INT64,
    UINT32,
    RefusedError,
    choice,
    flag,
    is_whole,
    name,
    names,
    shown,
    text,
    whole,
)

__all__ = [
    "CONCURRENCY",
    "CONFIG",
    "DEPENDENTS",
    "FILES",
    "ITEMS",
    "MODEL",
    "MODELS",
    "NAME",
    "PROGRESS",
    "READY",
    "RESOLVE",
    "SHARED_MEMORY",
    "VERSION",
    "WORKERS",
]


def _version(value: Any) -> str:
    if is_whole(value) and 0 < value < INT64:
        return str(int(value))
    if isinstance(value, str):
        digits = value.isascii() and value.isdecimal() and len(value) < 20
        if not value or (digits and 0 < int(value) < INT64):
            return value
    raise RefusedError("a number above 0, such as 1 or '1', or '' (the default)")


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
    """Return the JSON of a model's configuration."""
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


CONCURRENCY = Argument("concurrency", whole(1, UINT32))
CONFIG = Argument("config", _config)
DEPENDENTS = Argument("dependents", flag)
FILES = Argument("files", _files)
ITEMS = Argument("items", _items)
MODEL = Argument("model", text)
MODELS = Argument("models", names)
NAME = Argument("name", name)
PROGRESS = Argument("progress", _progress)
READY = Argument("ready", flag)
RESOLVE = Argument("resolve", flag)
SHARED_MEMORY = Argument("shared_memory", choice("'auto' or 'off'", "auto", "off"))
VERSION = Argument("version", _version)
WORKERS = Argument("workers", whole(1, UINT32))
