"""A program that runs to its end in a container of an image, without network."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import docker
from docker.types import Mount, Ulimit

from tritonsmith_generator.containers.container import ContainerRun
from tritonsmith_generator.containers.engine import Image, connect, refusals
from tritonsmith_generator.containers.isolation import PROTECTION, gpu_requests

__all__ = ["run_in_image"]


def run_in_image(
    image: Image,
    command: Sequence[str],
    on_line: Callable[[str], None],
    *,
    mounts: Sequence[Mount] = (),
    environment: Mapping[str, str] = {},
    gpus: str = "none",
) -> ContainerRun:
    """Run the command as this user and call ``on_line`` with each line of its output.

    Returns the ended run. When this raises, the container is removed; if this process is killed,
    a moment later. Raises HostError where the engine refuses.
    """
    name = f"tritonsmith-{os.getpid()}-{secrets.token_hex(4)}"
    with contextlib.ExitStack() as undo, refusals(f"run {command[0]} in {image.name}"):
        client = undo.enter_context(contextlib.closing(connect()))
        container = client.containers.create(
            image.id, list(command), name=name, **_arguments(client, mounts, environment, gpus)
        )
        undo.callback(container.remove, force=True)
        container.start()
        undo.pop_all()
    run = ContainerRun(client, container, on_line)
    try:
        while not run.ended.wait(1.0):  # in steps, so that Ctrl-C gets through
            pass
    finally:
        run.stop(0)
    return run


def _arguments(
    client: docker.DockerClient,
    mounts: Sequence[Mount],
    environment: Mapping[str, str],
    gpus: str,
) -> dict[str, Any]:
    return {
        **PROTECTION,
        "mounts": list(mounts),
        "network_mode": "none",
        "user": _user(client),
        "environment": {"HOME": "/tmp", "PYTHONDONTWRITEBYTECODE": "1", **environment},
        "device_requests": gpu_requests(gpus),
        "ulimits": [Ulimit(name="stack", soft=64 << 20, hard=64 << 20)],
        "labels": {"tritonsmith": "build"},
    }


def _user(client: docker.DockerClient) -> str:
    """Return this user, who is root inside where the engine itself runs as this user."""
    rootless = any("rootless" in option for option in client.info().get("SecurityOptions") or ())
    return "0:0" if rootless else f"{os.getuid()}:{os.getgid()}"
