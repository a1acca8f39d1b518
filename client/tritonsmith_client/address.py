"""Where a server is: the URL that the user wrote, taken apart."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from .errors import InputError

__all__ = ["Address", "parse_url", "parse_urls"]

_SCHEMES = {"grpc": ("grpc", False, 8001), "grpcs": ("grpc", True, 8001)}
_SCHEMES |= {"http": ("http", False, 8000), "https": ("http", True, 443)}


@dataclass(frozen=True)
class Address:
    """
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
    addresses = tuple(parse_url(u) for u in ([url] if isinstance(url, str) else url))
    if not addresses:
        raise InputError("the list of URLs is empty")
    if len({(a.protocol, a.tls, a.path if a.host else "") for a in addresses}) > 1:
        raise InputError(
            f"the servers {', '.join(map(str, addresses))} differ in protocol, TLS or path; "
            "make a client for each kind"
        )
    return addresses


def parse_url(url: str) -> Address:
    """Reads ``localhost:8001`` (gRPC), ``grpc://``, ``grpcs://``, ``http://``, ``https://``,
    ``grpc+unix:///path`` and ``http+unix:///path``.

    Raises:
        InputError: it is none of these.
    """
    full = url if "://" in url else f"grpc://{url}"
    try:
        parts = urlsplit(full)
        port = parts.port
    except ValueError as exc:
        raise InputError(f"the URL {url!r} cannot be read: {exc}") from exc
    if parts.scheme in ("grpc+unix", "http+unix"):
        return Address(parts.scheme[:4], False, "", 0, parts.path)
    if parts.scheme not in _SCHEMES or not parts.hostname:
        raise InputError(
            f"the URL {url!r} cannot be read: write host:port (gRPC), or grpc://, grpcs://, "
            "http:// or https:// before it, or grpc+unix:///path or http+unix:///path"
        )
    protocol, tls, default = _SCHEMES[parts.scheme]
    if protocol == "grpc" and parts.path.strip("/"):
        raise InputError(f"the URL {url!r} has a path, which gRPC has not")
    return Address(protocol, tls, parts.hostname, port or default, parts.path.rstrip("/"))
