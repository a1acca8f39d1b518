"""NVIDIA's tritonserver container as a Python object, with the same methods as ``Server``.

with DockerServer("model_repository", release="26.10", gpus="all") as server:
    with Client(server.grpc_url) as client:
        ...
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.types import Mount, Ulimit

from tritonsmith_generator.containers.container import ContainerRun
from tritonsmith_generator.containers.engine import Image, connect, ensure_image, refusals
from tritonsmith_generator.containers.isolation import PROTECTION, gpu_requests
from tritonsmith_generator.errors import HostError
from tritonsmith_generator.events import Progress
from tritonsmith_generator.host.gpus import visible_gpus
from tritonsmith_generator.repository.release import choose_image
from tritonsmith_generator.serve.log import LogLine
from tritonsmith_generator.serve.plan_flags import plan_flags
from tritonsmith_generator.serve.ports import pick_ports
from tritonsmith_generator.serve.served_models import container_reason, leave_out, read_models
from tritonsmith_generator.serve.server_base import SAFE_FLAGS, Running, ServerBase

__all__ = ["DockerServer", "container_arguments"]

_INSIDE = {"http": 8000, "grpc": 8001, "metrics": 8002}
_MODELS = "/models"
_TRITON_USER = 1000  # "triton-server" in NVIDIA's images
_STACK = 64 << 20  # bytes; NVIDIA's advice
_OTHERS_READ = 0o005
_SHM_FLAG_SINCE = (26, 4)  # the release that asks for --allow-client-shm


@dataclass(frozen=True)
class Container:
    """How the container is run, apart from what it serves.

    Attributes:
        gpus: "all", "none", or the numbers of GPUs such as "0,1".
        network: "host" listens on the machine itself; any other publishes the ports.
        shm_size: of /dev/shm, where the Python backend keeps tensors; such as "1g".
        client_shm: lets clients on this machine register their shared memory.
    """

    gpus: str
    network: str = "bridge"
    shm_size: str = "1g"
    client_shm: bool = False


class DockerServer(ServerBase):
    """A tritonserver in a container that is removed at the end, whichever side dies first.

    It runs as a user without privileges on a read-only file system, sees the repository
    read-only, and listens on the loopback interface.

    Args:
        repository: the model repository.
        release: of NVIDIA's image, such as "26.10"; by default the one that the repository was
            made for.
        image: another image instead.
        gpus: "all", "none", or numbers such as "0,1"; by default all where there are any.
        models, host, http_port, grpc_port, metrics_port, on_log, on_progress, extra_args: as
            for ``Server``. on_progress is called while the image is pulled.
        network, shm_size, client_shm: see ``Container``.
    """

    _HAS_BANNER = True  # NVIDIA's image says its name and licence first

    def __init__(
        self,
        repository: str | os.PathLike[str],
        *,
        release: str | None = None,
        image: str | None = None,
        gpus: str | None = None,
        models: Sequence[str] | None = None,
        http_port: int | None = None,
        grpc_port: int | None = None,
        metrics_port: int | None = None,
        host: str = "127.0.0.1",
        network: str = "bridge",
        shm_size: str = "1g",
        client_shm: bool = False,
        on_log: Callable[[LogLine], None] | None = None,
        on_progress: Progress | None = None,
        extra_args: Sequence[str] = (),
    ) -> None:
        ports = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        super().__init__(Path(repository).absolute(), host, ports, on_log, on_progress)
        self._models = models
        self.chosen = choose_image(self._repository, release, image)
        chosen = gpus or ("all" if visible_gpus() else "none")
        self._how = Container(chosen, network, shm_size, client_shm)
        self._extra_args = tuple(extra_args)
        self.image: Image | None = None
        self._plan_flags: list[str] = []

    @property
    def container(self) -> str:
        """The container's name, for docker's own commands."""
        run = self._started()
        assert isinstance(run, ContainerRun)
        return run.name

    def _prepare(self) -> None:
        models = read_models(self._repository, self._models)
        # Docker counts GPUs in another order than CUDA: which ones "0,1" are is not known.
        gpus = visible_gpus() if self._how.gpus == "all" else ()
        reason = container_reason(self._how.gpus != "none", gpus)
        self._serve_or_skip(models, leave_out(models, reason))
        self._plan_flags = plan_flags(self._served.values(), _MODELS)
        with contextlib.closing(connect()) as client:
            self.image = ensure_image(client, self.chosen.name, self._on_progress)

    def _launch(self, on_line: Callable[[str], None]) -> Running:
        assert self.image is not None
        on_host = self._how.network == "host"
        wanted = self._wanted_ports
        if on_host:
            self._ports = inside = pick_ports(self._host, wanted)
        else:
            pick_ports(self._host, wanted)  # names who holds a port better than docker does
            inside = _INSIDE
        arguments = container_arguments(
            self.image, self._how, self._mounts(), inside, self._host if on_host else "0.0.0.0"
        )
        arguments["command"] += self._restrictions(
            "shared-memory" if self._how.client_shm else None
        )
        arguments["command"] += [*self._plan_flags, *self._extra_args]
        if not on_host:
            arguments["ports"] = {
                f"{port}/tcp": (self._host, wanted[name]) for name, port in inside.items()
            }
        models = (model.path for model in self._served.values())
        arguments["user"] = _user([self._repository, *models])
        name = f"tritonsmith-{os.getpid()}-{secrets.token_hex(4)}"
        with contextlib.ExitStack() as undo, refusals(self._doing()):
            client = undo.enter_context(contextlib.closing(connect()))
            container = client.containers.create(self.image.id, name=name, **arguments)
            undo.callback(container.remove, force=True)
            container.start()
            if not on_host:
                self._ports = _published(container)
            undo.pop_all()
        return ContainerRun(client, container, on_line)

    def _doing(self) -> str:
        assert self.image is not None
        with_gpus = f" with GPUs ({self._how.gpus}), for which it needs NVIDIA's Container Toolkit"
        return f"run {self.image.name}{'' if self._how.gpus == 'none' else with_gpus}"

    def _mounts(self) -> list[Mount]:
        """Return the repository, or just the models that are served if some are left out."""
        if set(self._served) == set(read_models(self._repository)):
            paths = {_MODELS: self._repository}
        else:
            paths = {f"{_MODELS}/{name}": model.path for name, model in self._served.items()}
        return [
            Mount(inside, str(path.resolve()), type="bind", read_only=True)
            for inside, path in paths.items()
        ]


def container_arguments(
    image: Image, how: Container, mounts: Sequence[Mount], ports: dict[str, int], address: str
) -> dict[str, Any]:
    """Return what docker is asked for: as much protection as tritonserver runs with.

    ``ports`` and ``address`` are what the server listens on inside the container.
    """
    command = ["tritonserver", f"--model-repository={_MODELS}", *SAFE_FLAGS]
    for name, port in ports.items():
        command += [f"--{name}-address={address}", f"--{name}-port={port}"]
    if how.client_shm and (image.release or (0, 0)) >= _SHM_FLAG_SINCE:
        command.append("--allow-client-shm=true")
    arguments: dict[str, Any] = {
        **PROTECTION,
        "command": command,
        "mounts": list(mounts),
        "network_mode": how.network,
        "ipc_mode": "host" if how.client_shm else "private",
        "ulimits": [Ulimit(name="stack", soft=_STACK, hard=_STACK)],
        "environment": {"HOME": "/tmp"},
        "labels": {"tritonsmith": "serve"},
    }
    if not how.client_shm:
        arguments["shm_size"] = how.shm_size
    if requests := gpu_requests(how.gpus):
        arguments["device_requests"] = requests
        # For pinned memory. A rootless engine can't raise it, and the CPU does not need it.
        arguments["ulimits"].append(Ulimit(name="memlock", soft=-1, hard=-1))
    return arguments


def _user(folders: Iterable[Path]) -> str:
    """Return the user and group that the server runs as: not root, and able to read these folders.

    Raises HostError if only root can read them.
    """
    if not hasattr(os, "getuid"):  # Windows: docker itself makes the files readable
        return f"{_TRITON_USER}:{_TRITON_USER}"
    if os.getuid():
        return f"{os.getuid()}:{os.getgid()}"
    for folder in folders:
        status = folder.stat()
        if status.st_mode & _OTHERS_READ != _OTHERS_READ:
            if status.st_uid:
                return f"{status.st_uid}:{status.st_gid}"
            raise HostError(
                f"{folder} can be read by root only, and the container's server does not run as "
                f"root. Let others read it: chmod -R a+rX {folder}"
            )
    return f"{_TRITON_USER}:{_TRITON_USER}"


def _published(container: Any) -> dict[str, int]:
    """Return the ports on this machine that docker gave to the server's."""
    container.reload()
    given = container.attrs["NetworkSettings"]["Ports"]
    return {name: int(given[f"{port}/tcp"][0]["HostPort"]) for name, port in _INSIDE.items()}
