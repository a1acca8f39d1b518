"""What docker is asked for, and what is refused before it is asked: no engine is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from docker.types import Mount

from tritonsmith_generator.containers.engine import Image
from tritonsmith_generator.errors import HostError, InputError, UsageError
from tritonsmith_generator.layout import LOCK_NAME
from tritonsmith_generator.repository.lock import Lock, write_lock
from tritonsmith_generator.serve.docker_server import Container, DockerServer, container_arguments

Options = dict[str, Any]

_IMAGE = Image("nvcr.io/nvidia/tritonserver:26.10-py3", "sha256:1", None, {})
_PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002}


@pytest.fixture
def small_repository(repository: Any) -> Path:
    repository.add_add_sub("add_sub")
    path: Path = repository.path
    return path


def test_the_arguments_for_nvidias_image() -> None:
    """As docker's API gets them, on a machine with GPUs."""
    mounts = [Mount("/models", "/srv/models", type="bind", read_only=True)]
    got = container_arguments(_IMAGE, Container("0,1"), mounts, _PORTS, "0.0.0.0")
    assert got["command"] == [
        "tritonserver",
        "--model-repository=/models",
        "--disable-auto-complete-config",
        "--model-control-mode=none",
        "--strict-readiness=true",
        "--exit-on-error=true",
        "--exit-timeout-secs=8",
        *(f"--{n}-{what}" for n, p in _PORTS.items() for what in ("address=0.0.0.0", f"port={p}")),
    ]
    assert got["device_requests"][0]["DeviceIDs"] == ["0", "1"]
    assert got["device_requests"][0]["Capabilities"] == [["gpu"]]
    assert {limit.name: limit.hard for limit in got["ulimits"]} == {"memlock": -1, "stack": 1 << 26}
    assert got["shm_size"] == "1g"
    assert got["ipc_mode"] == "private"
    assert got["read_only"] is True


@pytest.mark.parametrize(("release", "flag"), [("26.03", False), ("26.04", True), ("26.10", True)])
def test_shared_memory_for_clients_only_when_asked(release: str, flag: bool) -> None:
    image = Image("x", "sha256:1", None, {"NVIDIA_TRITON_SERVER_VERSION": release})
    got = container_arguments(image, Container("none", client_shm=True), [], _PORTS, "0.0.0.0")
    assert got["ipc_mode"] == "host"
    assert ("--allow-client-shm=true" in got["command"]) is flag
    closed = container_arguments(image, Container("none"), [], _PORTS, "0.0.0.0")
    assert "--allow-client-shm=true" not in closed["command"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, 'which server image.*--release .such as 26.10. or --image.*triton: "26.10" into'),
        ({"release": "26.10", "image": "x"}, "--release and --image: name one of the two"),
    ],
)
def test_a_release_or_an_image(tmp_path: Path, options: Options, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        DockerServer(tmp_path, **options)


def test_the_lock_knows_the_release_and_another_one_is_said(small_repository: Path) -> None:
    write_lock(small_repository, Lock(triton="26.09"))
    server = DockerServer(small_repository)
    assert server.chosen.name == "nvcr.io/nvidia/tritonserver:26.09-py3"
    other = DockerServer(small_repository, release="26.10")
    assert other.chosen.reason.endswith(f"though {small_repository / LOCK_NAME} says 26.09")


def test_gpus_that_are_none(small_repository: Path) -> None:
    with pytest.raises(UsageError, match="--gpus first: write all, none, or numbers"):
        container_arguments(_IMAGE, Container("first"), [], _PORTS, "0.0.0.0")


def test_a_plan_needs_a_gpu_and_rtx_is_not_in_nvidias_image(repository: Any) -> None:
    for backend in ("tensorrt", "tensorrt_rtx"):
        repository.add(backend, None, f'backend: "{backend}"')
    with pytest.raises(HostError) as caught:
        DockerServer(repository.path, release="26.10", gpus="none").start()
    assert "tensorrt: it is a TensorRT plan and this machine has no NVIDIA GPU" in str(caught.value)
    assert "tensorrt_rtx: NVIDIA's container has no TensorRT for RTX" in str(caught.value)


def test_no_repository(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no model repository"):
        DockerServer(tmp_path, release="26.10").start()
