"""``DockerServer`` on a real Docker Engine: what it is allowed, and every fault as a message."""

from __future__ import annotations

import contextlib
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
from support.programs.docker_engine import tagged
from support.wire.http_calls import free_port, until

from tritonsmith_client import Client
from tritonsmith_generator.containers.engine import connect
from tritonsmith_generator.deploy.files import Deployment, docker_files
from tritonsmith_generator.errors import HostError, ServerError, UsageError
from tritonsmith_generator.serve.docker_server import DockerServer

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
    with Client(server.grpc_url) as client:
        two = np.full((1, 4), 2, np.float32)
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


def test_the_server_in_it_is_killed(served: DockerServer, engine: Any) -> None:
    process = str(engine.containers.get(served.container).attrs["State"]["Pid"])
    subprocess.run(["kill", "-9", process], check=True)
    with pytest.raises(ServerError, match=r"the container tritonsmith-\S+ was killed by signal 9"):
        served.wait()


def test_restarted_from_outside(served: DockerServer, engine: Any) -> None:
    """It would come back with other ports, and nobody would watch it."""
    with contextlib.suppress(docker.errors.APIError):  # it is removed under docker's hands
        engine.containers.get(served.container).restart()
    with pytest.raises(
        ServerError, match=r"the container tritonsmith-\S+ (ended|is gone|was killed)"
    ):
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
        "from tritonsmith_generator.serve.docker_server import DockerServer\n"
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


_WRITES = """
import pathlib

class TritonPythonModel:
    def initialize(self, args):
        pathlib.Path(args["model_repository"], "state").write_text("")

    def execute(self, requests):
        return []
"""


def test_a_model_that_writes_into_the_repository(
    small_repository: Path, docker_options: Options, engine: Any
) -> None:
    """The mount is read-only, and the server says so."""
    (small_repository / "writes" / "1").mkdir(parents=True)
    (small_repository / "writes" / "1" / "model.py").write_text(_WRITES)
    (small_repository / "writes" / "config.pbtxt").write_text(
        'name: "writes" backend: "python" instance_group { kind: KIND_CPU }\n'
        'input { name: "x" data_type: TYPE_FP32 dims: [1] }\n'
        'output { name: "y" data_type: TYPE_FP32 dims: [1] }\n'
    )
    with pytest.raises(ServerError, match="could not load writes: .*Read-only file system"):
        DockerServer(small_repository, **docker_options).__enter__()


def test_no_room_in_shared_memory(
    small_repository: Path, docker_options: Options, engine: Any
) -> None:
    """Triton's own words name docker's flag, which is also ours."""
    with pytest.raises(ServerError, match="--shm-size"):
        DockerServer(small_repository, shm_size="1m", **docker_options).__enter__()


_FILL = """
import os
file = os.open("/tmp/full", os.O_CREAT | os.O_WRONLY)
free = os.statvfs("/tmp")
os.posix_fallocate(file, 0, free.f_bavail * free.f_bsize)
os.pwrite(file, bytes(4096), free.f_bavail * free.f_bsize)
"""


def test_a_full_disk_inside(small_repository: Path, docker_options: Options, engine: Any) -> None:
    """The disk that the container may write to, /tmp, is full; serving goes on."""
    with DockerServer(small_repository, **docker_options) as server:
        filled = engine.containers.get(server.container).exec_run(["python3", "-c", _FILL])
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


@pytest.mark.parametrize("port", [0, 65536, -1])
def test_a_number_that_is_no_port(
    small_repository: Path, docker_options: Options, port: int
) -> None:
    message = f"--http-port {port}: a port is a number from 1 to 65535"
    with pytest.raises(UsageError, match=message):
        DockerServer(small_repository, http_port=port, **docker_options).start()


def test_gpus_where_docker_has_none(
    small_repository: Path, docker_options: Options, engine: Any
) -> None:
    if docker_options["gpus"] != "none" or "nvidia" in engine.info()["Runtimes"]:
        pytest.skip("this engine has GPUs")
    options = docker_options | {"gpus": "all"}
    with pytest.raises(HostError, match="with GPUs .all., for which it needs NVIDIA's Container"):
        DockerServer(small_repository, **options).start()


@pytest.fixture
def bridge(engine: Any) -> Iterator[str]:
    """A network of the tests' own, on which ports are published."""
    network = engine.networks.create(f"tritonsmith-test-{os.getpid()}", driver="bridge")
    yield str(network.name)
    network.remove()


def test_published_ports(
    small_repository: Path, docker_options: Options, engine: Any, bridge: str
) -> None:
    """A port that was asked for, and two that docker found, all on the loopback interface."""
    options = docker_options | {"network": bridge, "grpc_port": free_port()}
    with DockerServer(small_repository, **options) as server:
        assert server.grpc_url == f"grpc://127.0.0.1:{options['grpc_port']}"
        assert _sum(server) == [4.0] * 4
        ports = engine.containers.get(server.container).attrs["NetworkSettings"]["Ports"]
        assert {one["HostIp"] for published in ports.values() for one in published} == {"127.0.0.1"}


def test_an_image_with_the_models_in_it(
    small_repository: Path, docker_options: Options, engine: Any, bridge: str
) -> None:
    """What gen-repo deploy docker writes: built, healthy by its own check, and asked."""
    deployment = Deployment(small_repository, docker_options["image"])
    (small_repository / "Dockerfile").write_text(docker_files(deployment)["Dockerfile"])
    image, _ = engine.images.build(path=str(small_repository), rm=True)
    container = engine.containers.run(
        image.id,
        detach=True,
        network=bridge,
        ports={"8001/tcp": ("127.0.0.1", None)},
        read_only=True,
        tmpfs={"/tmp": ""},
        healthcheck={"interval": 500_000_000, "start_period": 60_000_000_000},
        labels={"tritonsmith": "serve"},
    )
    try:
        until(lambda: engine.containers.get(container.id).health == "healthy")
        port = engine.containers.get(container.id).ports["8001/tcp"][0]["HostPort"]
        two = np.full((1, 4), 2, np.float32)
        with Client(f"127.0.0.1:{port}") as client:
            assert client.model("add_sub")({"a": two, "b": two})["sum"].tolist() == [[4.0] * 4]
        assert container.exec_run(["python3", "-c", "import os; exit(os.getuid())"]).exit_code
        written = container.exec_run(["python3", "-c", "open('/models/x', 'w')"])
        assert b"Permission denied" in written.output or b"Read-only" in written.output
    finally:
        container.remove(force=True)
        engine.images.remove(image.id)


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
