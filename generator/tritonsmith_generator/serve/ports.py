"""TCP ports: free ones, and who holds the taken ones."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping
from pathlib import Path

from tritonsmith_generator.errors import HostError, UsageError

__all__ = ["pick_ports"]


def pick_ports(host: str, wanted: Mapping[str, int | None]) -> dict[str, int]:
    """Return the wanted port for each name, or a free one where it is None.

    All are held until all are found, so that no two names get the same. Raises HostError
    for a port that is taken or not allowed, with the process that holds it where known, and
    UsageError for a number that is no port.
    """
    for name, port in wanted.items():
        if port is not None and not 0 < port < 65536:
            raise UsageError(f"--{name}-port {port}: a port is a number from 1 to 65535")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    ports: dict[str, int] = {}
    with contextlib.ExitStack() as held:
        for name, port in wanted.items():
            sock = held.enter_context(socket.socket(family, socket.SOCK_STREAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((host, port or 0))
            except OSError as exc:
                raise HostError(_refusal(host, name, port, exc)) from exc
            ports[name] = sock.getsockname()[1]
    return ports


def _refusal(host: str, name: str, port: int | None, exc: OSError) -> str:
    what = f"--{name}-port {port} on {host}: "
    if isinstance(exc, PermissionError):
        return what + "ports below 1024 need root; take a higher one"
    holder = _holder(port) if port else None
    by = f" by {holder}" if holder else ""
    reason = f"the port is taken{by}; take another, or none to get a free one"
    return what + (reason if exc.errno == 98 else str(exc))


def _holder(port: int) -> str | None:
    """Return who listens on this port, as "name (pid 123)"; None where /proc does not tell."""
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(str(fd.readlink()) in sockets for fd in (entry / "fd").iterdir()):
                return f"{(entry / 'comm').read_text().strip()} (pid {entry.name})"
    return None


def _listening(port: int) -> list[str]:
    """Inodes of the sockets that listen on this port; see proc(5), /proc/net/tcp."""
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                    found.append(fields[9])
    return found
