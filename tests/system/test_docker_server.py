"""``DockerServer`` on a real Docker Engine: what it is allowed, and every fault as a message."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import numpy as np
import pytest
from docker.types import Mount
from support.docker_engine import tagged

from tritonsmith_client import Client
from tritonsmith_generator.errors import HostError, InputError, ServerError, UsageError
from tritonsmith_generator.lock import LOCK_NAME, Lock, write_lock
from tritonsmith_generator.serve.docker import Container, DockerServer, container_arguments
from tritonsmith_generator.serve.dockerengine import Image, connect

pytestmark = pytest.mark.docker

Options = dict[str, Any]


@pytest.fixture
def engine(docker_options: Options) -> Iterator[docker.DockerClient]:
    """The engine. After the test no container of the test's may be left on it."""
    client = connect()
    before = _containers(client)
    yield client
    deadline = time.monotonic() + 20
    while left := _containers(client) - before:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.1)
    client.close()


@pytest.fixture
def small_repository(repository: Any) -> Path:
    for name in ("add_sub", "other"):
        repository.add_add_sub(name)
    path: Path = repository.path
    return path


@pytest.fixture
def served(small_repository: Path, docker_options: Options, engine: Any) -> Iterator[DockerServer]:
    with DockerServer(small_repository, **docker_options) as server:
        yield server


def _containers(client: docker.DockerClient) -> set[str]:
    found = client.containers.list(
        all=True, filters={"label": "tritonsmith=serve"}, ignore_removed=True
    )
    return {str(container.id) for container in found}


def _sum(server: DockerServer) -> list[float]:
    two = np.full((1, 4), 2, np.float32)
    with Client(server.grpc_url) as client:
        found: list[float] = client.model("add_sub")({"a": two, "b": two})["sum"][0].tolist()
        return found


def test_the_container_may_do_as_little_as_possible(served: DockerServer, engine: Any) -> None:
    assert _sum(served) == [4.0] * 4
    container = engine.containers.get(served.container)
    host = container.attrs["HostConfig"]
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert host["Privileged"] is False
    assert host["IpcMode"] == "private"
    assert container.attrs["Config"]["User"] == "1000:1000" or os.getuid()
    assert [m["RW"] for m in container.attrs["Mounts"]] == [False]
    who = container.exec_run(["python3", "-c", "import os; print(os.getuid())"])
    assert int(who.output) != 0
    written = container.exec_run(["python3", "-c", "open('/models/x', 'w')"])
    assert b"Read-only file system" in written.output
    written = container.exec_run(["python3", "-c", "open('/opt/x', 'w')"])
    assert b"Read-only file system" in written.output or b"Permission denied" in written.output


def test_a_release_means_nvidias_image(
    small_repository: Path, docker_options: Options, engine: Any
) -> None:
    """Run for real; where NVIDIA's image is not here, the stand-in has its name for a moment."""
    name = "nvcr.io/nvidia/tritonserver:26.10-py3"
    options = {k: v for k, v in docker_options.items() if k != "image"}
    (small_repository / "models.yaml").write_text('triton: "26.10"\n')
    with (
        tagged(engine, engine.images.get(docker_options["image"]), name),
        DockerServer(small_repository, **options) as server,
    ):
        assert _sum(server) == [4.0] * 4
        assert server.chosen.reason == f"as {small_repository / 'models.yaml'} says"
        assert server.image is not None
        assert server.image.name == name
        assert server.image.id.startswith("sha256:")
        ran = engine.containers.get(server.container).attrs
    assert ran["Config"]["Cmd"][:2] == ["tritonserver", "--model-repository=/models"]


def test_it_stops_and_starts_again(
    small_repository: Path, docker_options: Options, engine: Any
) -> None:
    server = DockerServer(small_repository, **docker_options)
    for _ in range(2):
        with server:
            assert _sum(server) == [4.0] * 4
            assert server.versions() == {"add_sub": ["1"], "other": ["1"]}
        assert not server.is_running


def test_two_containers_side_by_side(
    served: DockerServer, small_repository: Path, docker_options: Options
) -> None:
    with DockerServer(small_repository, **docker_options) as other:
        assert other.grpc_url != served.grpc_url
        assert _sum(other) == _sum(served) == [4.0] * 4


def test_a_subset_of_the_models(
    small_repository: Path, docker_options: Options, engine: Any
) -> None:
    with DockerServer(small_repository, models=["other"], **docker_options) as server:
        assert server.versions() == {"other": ["1"]}


def test_killed_from_outside(served: DockerServer, engine: Any) -> None:
    engine.containers.get(served.container).kill()
    with pytest.raises(ServerError, match=r"the container tritonsmith-\S+ was killed by signal 9"):
        served.wait()


def test_removed_from_outside(served: DockerServer, engine: Any) -> None:
    engine.containers.get(served.container).remove(force=True)
    with pytest.raises(ServerError, match=r"the container tritonsmith-\S+ (is gone|was killed)"):
        served.wait()


def test_a_killed_owner_takes_its_container_along(
    small_repository: Path, docker_options: Options, engine: Any
) -> None:
    script = (
        "import json, sys, time\n"
        "from tritonsmith_generator.serve.docker import DockerServer\n"
        "server = DockerServer(sys.argv[1], **json.loads(sys.argv[2])).start().wait_ready()\n"
        "print(server.container, flush=True)\n"
        "time.sleep(600)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, small_repository, json.dumps(docker_options)],
        stdout=subprocess.PIPE,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        name = owner.stdout.readline().strip()
        assert engine.containers.get(name).status == "running"
        owner.kill()
    # The fixture waits until the container is gone.


def test_a_model_that_does_not_load(
    small_repository: Path, docker_options: Options, engine: Any
) -> None:
    (small_repository / "other" / "1" / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ServerError, match="could not load other: .*Protobuf parsing failed"):
        DockerServer(small_repository, **docker_options).__enter__()


def test_no_room_in_shared_memory(
    small_repository: Path, docker_options: Options, engine: Any
) -> None:
    """Triton's own words name docker's flag, which is also ours."""
    with pytest.raises(ServerError, match="--shm-size"):
        DockerServer(small_repository, shm_size="1m", **docker_options).__enter__()


def test_a_full_disk_inside(small_repository: Path, docker_options: Options, engine: Any) -> None:
    """The disk that the container may write to, /tmp, is full; serving goes on."""
    with DockerServer(small_repository, **docker_options) as server:
        fill = "f = open('/tmp/full', 'wb', 0)\nwhile f.write(bytes(1 << 24)): pass"
        filled = engine.containers.get(server.container).exec_run(["python3", "-c", fill])
        assert b"No space left on device" in filled.output
        assert _sum(server) == [4.0] * 4


def test_models_that_only_root_can_read(
    small_repository: Path, docker_options: Options, engine: Any
) -> None:
    small_repository.chmod(0o700)
    if os.getuid() == 0:
        with pytest.raises(HostError, match=r"read by root only.*chmod -R a\+rX"):
            DockerServer(small_repository, **docker_options).start()
        os.chown(small_repository, 12345, 12345)
    with DockerServer(small_repository, **docker_options) as server:
        assert _sum(server) == [4.0] * 4


def test_a_taken_port(small_repository: Path, docker_options: Options, engine: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(HostError, match=rf"--grpc-port {port}.*taken by .*pid {os.getpid()}"):
            DockerServer(small_repository, grpc_port=port, **docker_options).start()


def test_an_image_that_does_not_exist(
    small_repository: Path, docker_options: Options, engine: Any
) -> None:
    options = docker_options | {"image": "localhost:1/nowhere:26.10"}
    with pytest.raises(HostError, match=r"could not get the image localhost:1/nowhere:26\.10"):
        DockerServer(small_repository, **options).start()


def test_an_image_that_has_no_tritonserver(
    small_repository: Path, docker_options: Options, engine: Any
) -> None:
    base = docker_options | {"image": "debian:bookworm-slim"}
    if not any("debian:bookworm-slim" in image.tags for image in engine.images.list()):
        pytest.skip("the base image is not here: --image was given")
    with pytest.raises((HostError, ServerError), match="tritonserver"):
        DockerServer(small_repository, **base).__enter__()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("unix:///nowhere/docker.sock", "it is not running.*systemctl start docker"),
        ("tcp://127.0.0.1:1", "nothing answers there"),
    ],
)
def test_no_engine(
    small_repository: Path, monkeypatch: pytest.MonkeyPatch, address: str, reason: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    with pytest.raises(HostError, match=f"No Docker Engine at {address}: {reason}"):
        DockerServer(small_repository, release="26.10").start()


def test_no_permission(docker_options: Options, small_repository: Path) -> None:
    """As a user who may not open the engine's socket."""
    if os.getuid():
        pytest.skip("only root can become another user")
    script = (
        "import os, sys\n"
        "os.environ['HOME'] = '/tmp'\n"
        "from tritonsmith_generator.serve.dockerengine import connect\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: connect()\n"
        "except Exception as exc: print(exc)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "this user may not use it. Add the user to the group 'docker'" in done.stdout


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
def test_the_command(
    small_repository: Path,
    docker_options: Options,
    engine: Any,
    gen_repo: Any,
    tmp_path: Path,
    number: str,
) -> None:
    ready = tmp_path / "ready.json"
    options = [f"--{name}={value}" for name, value in docker_options.items()]
    process = gen_repo("serve", small_repository, "--docker", *options, "--ready-file", ready)
    while not ready.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    facts = json.loads(ready.read_text())
    with Client(facts["http"]) as client:
        two = np.full((1, 4), 2, np.float32)
        assert client.model("add_sub")({"a": two, "b": two})["sum"].tolist() == [[4.0] * 4]
    process.send_signal(getattr(signal, number))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert err.splitlines()[-1] == f"Stopped ({number}); nothing is left running."


_IMAGE = Image("nvcr.io/nvidia/tritonserver:26.10-py3", "sha256:1", None, {})
_PORTS = {"http": 8000, "grpc": 8001, "metrics": 8002}


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
