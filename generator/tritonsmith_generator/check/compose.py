"""How a compose file runs tritonserver: what in it is open to strangers. All are warnings."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tritonsmith_generator.check.advisories import advice_on
from tritonsmith_generator.check.finding import Finding
from tritonsmith_generator.errors import InputError

__all__ = ["COMPOSE_NAMES", "check_compose", "compose_file"]

COMPOSE_NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
_LOOPBACK = ("127.", "localhost", "[::1]", "::1")
_NOT_LATEST = "two machines, or two days, may run different servers"


@dataclass(frozen=True)
class _Service:
    """A service that runs tritonserver. ``flags`` are its arguments, by name."""

    name: str
    given: Mapping[str, Any]
    flags: Mapping[str, str]

    @property
    def open_ports(self) -> list[str]:
        """The published ports that other machines can reach."""
        found = []
        for port in self.given.get("ports") or ():
            if isinstance(port, Mapping):
                port = f"{port.get('host_ip', '')}:{port.get('published')}:{port.get('target')}"
            if not str(port).startswith(_LOOPBACK):
                found.append(str(port).lstrip(":"))
        return found


def compose_file(folder: Path) -> Path | None:
    """Return the compose file in this folder, by the names that docker compose looks for."""
    return next((folder / name for name in COMPOSE_NAMES if (folder / name).is_file()), None)


def check_compose(path: Path) -> tuple[Finding, ...]:
    """Raise InputError if it is no compose file."""
    try:
        read = yaml.safe_load(path.read_text(encoding="utf-8"))
        services = dict(read["services"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError, ValueError) as exc:
        raise InputError(f"{path} is no compose file: {' '.join(str(exc).split())}") from exc
    findings = [
        Finding("warning", f"{path.name}: {name}", message)
        for name, given in services.items()
        if (service := _server(name, given)) is not None
        for rule in _RULES
        for message in rule(service)
    ]
    images = {name: given.get("image") for name, given in services.items() if given}
    for name, image in images.items():
        if image and "@sha256:" not in image:
            findings.append(
                Finding(
                    "warning",
                    f"{path.name}: {name}",
                    f"image {image} is not pinned by digest, so that {_NOT_LATEST}: docker pull "
                    f"{image}, then gen-repo deploy compose --force",
                )
            )
    return tuple(findings)


def _server(name: str, given: Any) -> _Service | None:
    if not isinstance(given, Mapping):
        return None
    command = given.get("command") or ()
    words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    if "tritonserver" not in str(given.get("image", "")) and "tritonserver" not in words:
        return None
    pairs = (word.removeprefix("--").partition("=") for word in words if word.startswith("--"))
    return _Service(name, given, {flag: value for flag, _, value in pairs})


def _control(service: _Service) -> Iterator[str]:
    mode = service.flags.get("model-control-mode", "none")
    if mode == "explicit" and "model-repository" not in _restricted(service):
        yield (
            "model control is explicit, and whoever reaches the server may load models, which is "
            "to run code: --model-control-mode=none, or restrict model-repository "
            "(--http-restricted-api, --grpc-restricted-protocol)"
        )
    if mode == "poll":
        yield (
            "the server polls the repository, and loads whatever is written there: "
            "--model-control-mode=none, and restart it to change models"
        )


def _restricted(service: _Service) -> set[str]:
    """Return what both protocols restrict."""
    values = [
        set(service.flags.get(flag, "").partition(":")[0].split(","))
        for flag in ("http-restricted-api", "grpc-restricted-protocol")
    ]
    return values[0] & values[1]


def _shared_memory(service: _Service) -> Iterator[str]:
    allowed = service.flags.get("allow-client-shm", "false").lower() in ("true", "1", "")
    if (allowed or service.given.get("ipc") == "host") and service.open_ports:
        yield (
            "clients may register shared memory, and other machines reach the server: leave out "
            "--allow-client-shm and ipc: host, or publish on 127.0.0.1 only"
        )


def _strangers(service: _Service) -> Iterator[str]:
    if service.given.get("network_mode") == "host" and "http-address" not in service.flags:
        yield (
            "it listens on every address of the machine, and tritonserver knows no users: "
            "leave network_mode: host out, or give --http-address and --grpc-address 127.0.0.1"
        )
    for port in service.open_ports:
        yield (
            f"port {port} is open to other machines, and tritonserver knows no users: publish on "
            f"127.0.0.1, or put a front with TLS and a token before it (gen-repo deploy compose)"
        )


def _writable(service: _Service) -> Iterator[str]:
    for volume in service.given.get("volumes") or ():
        if isinstance(volume, Mapping):
            target, read_only = volume.get("target"), volume.get("read_only", False)
        else:
            _, _, rest = str(volume).partition(":")
            target, _, options = rest.partition(":")
            read_only = "ro" in options.split(",")
        if not read_only:
            yield f"{target} is mounted writable: mount it read-only"


def _rights(service: _Service) -> Iterator[str]:
    given = service.given
    if given.get("privileged"):
        yield "it is privileged, which is root on the machine: leave privileged out"
    if str(given.get("user", "0")).split(":")[0] in ("0", "root"):
        yield 'it runs as root: user: "1000:1000" is NVIDIA\'s triton-server'
    if not given.get("read_only"):
        yield "its root file system is writable: read_only: true, with tmpfs for /tmp"
    if "ALL" not in (given.get("cap_drop") or ()):
        yield "it keeps capabilities that it does not need: cap_drop: [ALL]"
    options = [str(option).replace("=", ":") for option in given.get("security_opt") or ()]
    if not any(option in ("no-new-privileges:true", "no-new-privileges") for option in options):
        yield 'it may gain privileges: security_opt: ["no-new-privileges:true"]'


def _release(service: _Service) -> Iterator[str]:
    if advice := advice_on(str(service.given.get("image", ""))):
        yield advice


_RULES: tuple[Callable[[_Service], Iterator[str]], ...] = (
    _control,
    _shared_memory,
    _strangers,
    _writable,
    _rights,
    _release,
)
