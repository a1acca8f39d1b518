"""TLS, as the user asks for it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tritonsmith_client._values.argument import Argument
from tritonsmith_client._values.validators import RefusedError, name, or_none
from tritonsmith_client.errors import InputError

if TYPE_CHECKING:
    import ssl

__all__ = ["TLS"]


def _path(value: Any) -> str | os.PathLike[str] | None:
    if value is None or (isinstance(value, (str, os.PathLike)) and os.fspath(value)):
        found: str | os.PathLike[str] | None = value
        return found
    raise RefusedError("a path as str or Path, or None")


_ARGUMENTS: tuple[Argument[Any], ...] = (
    *(Argument(option, _path) for option in ("ca", "certificate", "key")),
    Argument("server_name", or_none(name)),
)


@dataclass(frozen=True)
class TLS:
    """Certificates for ``grpcs://`` and ``https://``, as paths of PEM files.

    Attributes:
        ca: who is trusted; the system's authorities if None.
        certificate, key: the client's own, for servers that ask for it (mTLS).
        server_name: the name in the server's certificate, if not the one in the URL.
    """

    ca: str | Path | None = None
    certificate: str | Path | None = None
    key: str | Path | None = None
    server_name: str | None = None

    def __post_init__(self) -> None:
        for argument in _ARGUMENTS:
            argument(getattr(self, argument.name), "TLS")
        if (self.certificate is None) != (self.key is None):
            raise InputError("TLS needs certificate and key together, or neither")

    def context(self, *protocols: str) -> ssl.SSLContext:
        """For sockets of our own; ``protocols`` are offered by ALPN.

        Raises InputError where a file cannot be read or is no PEM.
        """
        import ssl  # not needed in the clear

        try:
            context = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
            if self.certificate is not None and self.key is not None:
                context.load_cert_chain(str(self.certificate), str(self.key))
        except OSError as exc:  # ssl.SSLError is one
            raise InputError(f"the TLS certificates cannot be read: {exc} ({self})") from exc
        if protocols:
            context.set_alpn_protocols(protocols)
        return context

    def pem(self) -> tuple[bytes | None, bytes | None, bytes | None]:
        """For gRPC: the contents of ca, key and certificate. Raises InputError."""
        self.context()  # grpcio would say nothing of a file that is no PEM
        ca, key, certificate = (
            None if path is None else Path(path).read_bytes()
            for path in (self.ca, self.key, self.certificate)
        )
        return ca, key, certificate
