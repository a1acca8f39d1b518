"""The Docker Engine (or podman's service that speaks its API): images and clear refusals."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import docker
import docker.errors
import requests
from docker.utils import parse_repository_tag

from tritonsmith_generator.errors import HostError
from tritonsmith_generator.events import Progress

__all__ = ["Image", "connect", "ensure_image", "refusals"]

_HINTS: dict[type[BaseException], str] = {
    PermissionError: "this user may not use it. Add the user to the group 'docker' "
    "(sudo usermod -aG docker $USER, then log in again), or use rootless docker or podman",
    FileNotFoundError: "it is not running. Start it (sudo systemctl start docker), or name "
    "another one in DOCKER_HOST (podman: unix:///run/user/$UID/podman/podman.sock)",
    ConnectionRefusedError: "nothing answers there. Start it (sudo systemctl start docker), or "
    "correct DOCKER_HOST",
}


@dataclass(frozen=True)
class Image:
    """An image on this machine, and what it says of itself.

    Attributes:
        name: as it was asked for.
        id: of the image itself; the same on every machine for the same content.
        digest: the registry's name for it, "name@sha256:..."; None if it came from no registry.
        environment: the variables that are set in it, such as TRT_VERSION.
    """

    name: str
    id: str
    digest: str | None
    environment: Mapping[str, str]

    @property
    def release(self) -> tuple[int, int] | None:
        """NVIDIA's number of the release, such as (26, 10); None for other images."""
        parts = self.environment.get("NVIDIA_TRITON_SERVER_VERSION", "").split(".")
        return (int(parts[0]), int(parts[1])) if len(parts) == 2 else None


def connect() -> docker.DockerClient:
    """Return a client of the engine that DOCKER_HOST names, or the usual one. Raises HostError."""
    address = os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")
    try:
        if address.startswith("unix://"):  # docker's own client leaks the socket if this fails
            with socket.socket(socket.AF_UNIX) as sock:
                sock.connect(address.removeprefix("unix://"))
        return docker.from_env(timeout=60, version="auto")
    except (OSError, docker.errors.DockerException) as exc:
        reason = next((_HINTS[type(e)] for e in _chain(exc) if type(e) in _HINTS), str(exc))
        raise HostError(f"No Docker Engine at {address}: {reason}") from exc


def _chain(exc: BaseException | None) -> Iterator[BaseException]:
    """Get the exception and all that caused it; requests hides the first cause in the arguments."""
    while exc is not None:
        yield exc
        for argument in exc.args:
            if isinstance(argument, BaseException):
                yield from _chain(argument)
        exc = exc.__cause__ or exc.__context__


@contextlib.contextmanager
def refusals(doing: str) -> Iterator[None]:
    """Raise what the engine refuses as a HostError with the engine's own explanation."""
    try:
        yield
    except docker.errors.APIError as exc:
        raise HostError(f"Docker could not {doing}: {exc.explanation or exc}") from exc
    except (docker.errors.DockerException, requests.RequestException) as exc:
        raise HostError(f"Docker could not {doing}: {exc}") from exc


def ensure_image(client: docker.DockerClient, name: str, on_progress: Progress | None) -> Image:
    """Return the image, pulled with progress if it is not here. Raises HostError."""
    with refusals(f"look for the image {name}"):
        try:
            return _described(name, client.images.get(name))
        except docker.errors.ImageNotFound:
            pass
    with refusals(
        f"get the image {name}, which is not on this machine (docker pull {name} shows more; "
        "a private registry needs docker login)"
    ):
        _pull(client, name, on_progress or (lambda text, done: None))
        return _described(name, client.images.get(name))


def _pull(client: docker.DockerClient, name: str, report: Progress) -> None:
    """Pull, and report bytes over all layers."""
    layers: dict[str, tuple[int, int]] = {}
    repository, tag = parse_repository_tag(name)
    report(f"pulling {name}", 0.0)
    for event in client.api.pull(repository, tag or "latest", stream=True, decode=True):
        if "error" in event:
            raise docker.errors.DockerException(event["error"])
        detail = event.get("progressDetail") or {}
        if event.get("status") == "Downloading" and detail.get("total"):
            layers[event["id"]] = (detail["current"], detail["total"])
        elif event.get("status") == "Download complete" and event.get("id") in layers:
            total = layers[event["id"]][1]
            layers[event["id"]] = (total, total)
        if layers:
            had, total = (sum(column) for column in zip(*layers.values(), strict=True))
            report(f"pulling {name} ({total / 1e9:.1f} GB)", min(had / total, 0.99))
    report(f"pulled {name}", 1.0)


def _described(name: str, image: Any) -> Image:
    pairs = (entry.partition("=") for entry in image.attrs["Config"].get("Env") or ())
    digests = image.attrs.get("RepoDigests") or [None]
    return Image(name, image.id, digests[0], {key: value for key, _, value in pairs})
