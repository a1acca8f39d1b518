"""Headers that callers add: what reaches the server unchanged over either protocol."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

from tritonsmith_client._values.argument import Argument
from tritonsmith_client._values.validators import RefusedError, shown

__all__ = ["CALL_HEADERS", "Headers", "client_headers"]

# What gRPC allows; HTTP allows more.
_NAME = re.compile(r"[0-9A-Za-z_.-]+")
_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")
_COMPRESSION = "left to Client(compression=...)"
_CLIENT = "left to the client"
_ONCE = ("host", "user-agent")
_ALLOWED_VALUE = (
    "a str of printable ASCII characters without spaces around it: strip() it, and encode what is "
    "not ASCII"
)
# Those that the client writes itself, or that would change how a message is read.
_OWN = {
    "accept-encoding": _COMPRESSION,
    "connection": _CLIENT,
    "content-encoding": _COMPRESSION,
    "content-length": _CLIENT,
    "content-type": _CLIENT,
    "expect": _CLIENT,
    "inference-header-content-length": _CLIENT,
    "keep-alive": _CLIENT,
    "proxy-connection": _CLIENT,
    "te": _CLIENT,
    "trailer": _CLIENT,
    "transfer-encoding": _CLIENT,
    "upgrade": _CLIENT,
}


def _call_headers(value: Any) -> Headers:
    """Headers of one call. Raises RefusedError."""
    return tuple(_checked(value, _call_name).items())


def client_headers(value: Any) -> dict[str, str]:
    """Headers of all calls, which may say ``host`` and ``user-agent`` too. Raises RefusedError."""
    return _checked(value, _client_name)


def _checked(value: Any, checked_name: Callable[[Any], str]) -> dict[str, str]:
    """By names in lower case."""
    if not isinstance(value, Mapping):
        raise RefusedError("a dict from str to str", f"headers is a {type(value).__name__}")
    found: dict[str, str] = {}
    for name, content in value.items():
        lower = checked_name(name)
        if not isinstance(content, str) or not _VALUE.fullmatch(content):
            # What it has may be a secret.
            what = f"the header '{name}' has a value that no header may have"
            raise RefusedError(_ALLOWED_VALUE, what)
        found[lower] = content
    if len(found) != len(value):
        raise RefusedError("given once, in upper or in lower case", "a header is there twice")
    return found


@lru_cache(maxsize=256)  # a function may give the headers of each call
def _call_name(name: Any) -> str:
    lower = _client_name(name)
    if lower in _ONCE:
        use = "given to Client(headers={...})"
        raise RefusedError(use, f"the header '{name}' is the same for all calls")
    return lower


def _client_name(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        what = f"the header {shown(name)} has a name that no header may have"
        raise RefusedError("letters, digits, '-', '_' and '.'", what)
    lower = name.lower()
    if lower in _OWN or lower.startswith("grpc-"):
        use = _OWN.get(lower, "given another name")
        raise RefusedError(use, f"the header '{name}' belongs to the protocol")
    if lower.endswith("-bin"):
        what = f"the header '{name}' would be binary in gRPC"
        raise RefusedError("given a name that does not end in -bin", what)
    return lower


Headers = tuple[tuple[str, str], ...]


CALL_HEADERS = Argument("headers", _call_headers)
