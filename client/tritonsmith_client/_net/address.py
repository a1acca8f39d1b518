"""Where a server is: the URL that the user wrote, taken apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from tritonsmith_client._values.validators import shown
from tritonsmith_client.errors import InputError

__all__ = ["Address", "parse_url", "parse_urls"]

_SCHEMES = {"grpc": ("grpc", False, 8001), "grpcs": ("grpc", True, 8001)}
_SCHEMES |= {"http": ("http", False, 8000), "https": ("http", True, 443)}
_UNIX = {"grpc+unix": "grpc", "http+unix": "http"}
_FORMS = (
    "write host:port (gRPC), or grpc://, grpcs://, http:// or https:// before it, or "
    "grpc+unix:///path or http+unix:///path"
)
_CHARACTERS = re.compile("[!-~]+")
_HOST = re.compile(r"[0-9A-Za-z._-]+|[0-9a-f:.]+(%[0-9A-Za-z._-]+)?")


@dataclass(frozen=True)
class Address:
    """Where a server is.

    Attributes:
        protocol: ``"grpc"`` or ``"http"``.
        host: name or IP address, IPv6 without brackets; empty for a Unix domain socket.
        name: what was looked up to find the host, if it was; TLS asks for it.
        path: what stands before ``/v2`` over HTTP, or the path of the Unix domain socket.
    """

    protocol: str
    tls: bool
    host: str
    port: int
    path: str = ""
    name: str = ""

    @property
    def unix(self) -> bool:
        return not self.host

    @property
    def target(self) -> str:
        """Host and port as gRPC targets and the Host header write them."""
        if self.unix:
            return f"unix:{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def __str__(self) -> str:
        scheme = self.protocol + ("s" if self.tls else "")
        return f"{scheme}://{self.target}"


def parse_urls(url: str | Sequence[str]) -> tuple[Address, ...]:
    """One or several servers. Raises InputError where they differ in protocol or path."""
    several = isinstance(url, Sequence) and not isinstance(url, (str, bytes))
    urls: Iterable[Any] = url if several else [url]
    addresses = tuple(map(parse_url, urls))
    if not addresses:
        raise InputError("the list of URLs is empty")
    if len({(a.protocol, a.tls, a.path if a.host else "") for a in addresses}) > 1:
        raise InputError(
            f"the servers {', '.join(map(str, addresses))} differ in protocol, TLS or path; "
            "make a client for each kind"
        )
    return addresses


def parse_url(url: str) -> Address:
    """Read a server's URL.

    It is ``localhost:8001`` (gRPC), ``grpc://``, ``grpcs://``, ``http://``, ``https://``,
    ``grpc+unix:///path`` or ``http+unix:///path``.

    Raises:
        InputError: it is none of these, or has a part that would be dropped.
    """
    if not isinstance(url, str):
        raise InputError(f"the URL is {shown(url)}, which is no str; {_FORMS}")
    if url and not _CHARACTERS.fullmatch(url):
        raise _unusable(
            url,
            "has spaces or characters that are not ASCII",
            "write a path with %20 and the like, and a host name as xn--...",
        )
    parts = _parts(url)
    if "@" in parts.netloc:
        use = "give them as Client(headers={'authorization': ...})"
        raise _unusable(url, "has credentials, which would not be sent", use)
    if "?" in url or "#" in url:
        raise _unusable(url, "has a query or a fragment", "leave it out")
    if parts.scheme in _UNIX:
        if parts.netloc or "%" in parts.path or not parts.path.strip("/"):
            raise _unusable(url, "names no socket", f"write {parts.scheme}:///path, without %")
        return Address(_UNIX[parts.scheme], False, "", 0, parts.path)
    if parts.scheme not in _SCHEMES or not _HOST.fullmatch(parts.hostname or ""):
        raise _unusable(url, "cannot be read", _FORMS)
    protocol, tls, default = _SCHEMES[parts.scheme]
    if protocol == "grpc" and parts.path.strip("/"):
        raise _unusable(url, "has a path, which gRPC has not", "leave it out")
    port = default if parts.port is None else parts.port
    return Address(protocol, tls, parts.hostname or "", port, parts.path.rstrip("/"))


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url if "://" in url else f"grpc://{url}")
    except ValueError as exc:  # of brackets
        raise _unusable(url, "cannot be read", _FORMS) from exc
    try:
        port = parts.port
    except ValueError:
        port = 0
    if port == 0:
        raise _unusable(url, "has a port that is none", "write a number from 1 to 65535")
    return parts


def _unusable(url: str, why: str, hint: str) -> InputError:
    public = re.sub(r"^([a-z+]*://)?.*@", r"\1...@", url)  # a password is for no message
    public = re.sub(r"[?#].*", "?...", public)
    return InputError(f"the URL {shown(public)} {why}; {hint}")
