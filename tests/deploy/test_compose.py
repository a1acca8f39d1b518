"""What ``gen-repo deploy compose`` writes, brought up by docker-compose on a real engine.

Images that can't be pulled have stand-ins under their names: the server's is built here, nginx
and Prometheus are the installed programs. There is none for Grafana.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import numpy as np
import pytest
from support.programs.docker_engine import compose_command, tagged
from support.programs.program_image import import_program
from support.wire.http_calls import free_port, get, until

from tritonsmith_client import Client
from tritonsmith_client._net.tls import TLS
from tritonsmith_generator.containers.engine import connect
from tritonsmith_generator.deploy.files import IMAGES, Deployment, compose_files, write_files

pytestmark = pytest.mark.docker

NVIDIA = "nvcr.io/nvidia/tritonserver:26.10-py3"
_TOKEN = {"authorization": "Bearer secret-1"}
_KEY = {"admin-key": "key-1"}
_NOBODY: Mapping[str, str] = {}


def program(name: str) -> str:
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


@dataclass(frozen=True)
class Stack:
    """The running services; ``call`` runs docker-compose on them."""

    ports: dict[str, int]
    trusted: ssl.SSLContext
    certificate: Path
    call: Callable[..., str]

    def get(self, path: str, headers: Mapping[str, str] = _NOBODY, method: str = "GET") -> int:
        """The status that the front answers with; 0 while nobody listens."""
        status: int = get(self.ports["front"], path, headers, method, self.trusted)[0]
        return status


@pytest.fixture(scope="module")
def client(docker_options: dict[str, Any]) -> Iterator[docker.DockerClient]:
    client = connect()
    yield client
    client.close()


@pytest.fixture(scope="module")
def images(client: docker.DockerClient, docker_options: dict[str, Any]) -> Iterator[None]:
    nginx, prometheus = program("nginx"), program("prometheus")
    files = ["--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus"]
    made: dict[str, Any] = {
        "front": (nginx, 101, ["-g", "daemon off;"], ["/var/lib/nginx"]),
        "prometheus": (prometheus, 65534, files, ["/prometheus"]),
    }
    here = {tag for image in client.images.list() for tag in image.tags}
    with contextlib.ExitStack() as stack:
        stack.enter_context(tagged(client, client.images.get(docker_options["image"]), NVIDIA))
        for service, (path, user, command, folders) in made.items():
            name = IMAGES[service]
            if name not in here:
                import_program(client, [path], name, user=user, command=command, folders=folders)
                stack.callback(lambda name: client.images.remove(name), name)
        yield


@pytest.fixture(scope="module")
def stack(
    images: None, module_repository: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    compose, openssl = compose_command(), program("openssl")
    module_repository.add_add_sub("add_sub")
    folder = tmp_path_factory.mktemp("compose")
    ports = {service: free_port() for service in IMAGES}
    write_files(
        compose_files(Deployment(module_repository.path, NVIDIA), folder, {"ports": ports}), folder
    )
    _secrets(folder, openssl)

    def call(*words: str, key: str = "key-1") -> str:
        done = subprocess.run(
            [*compose, "-p", "tritonsmith-test", *words],
            cwd=folder,
            env=os.environ | {"TRITON_ADMIN_KEY": key},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    certificate = folder / "secrets" / "server.crt"
    trusted = ssl.create_default_context(cafile=str(certificate))
    try:
        call("up", "-d", "triton", "front", "prometheus")
        yield Stack(ports, trusted, certificate, call)
    finally:
        call("down", "--volumes", "--timeout", "1")


def _secrets(folder: Path, openssl: str) -> None:
    """As SECRETS.md says, with known ones."""
    secrets = folder / "secrets"
    secrets.mkdir(mode=0o700)
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        + ["-keyout", secrets / "server.key", "-out", secrets / "server.crt"],
        check=True,
        capture_output=True,
    )
    (secrets / "token.conf").write_text('"Bearer secret-1" 1;\n')
    (secrets / "grafana_password").write_text("x")
    for path in secrets.iterdir():
        path.chmod(0o644)


def _server(client: docker.DockerClient) -> Any:
    labels = ["com.docker.compose.project=tritonsmith-test", "com.docker.compose.service=triton"]
    (server,) = client.containers.list(filters={"label": labels})
    return server


def test_clients_with_the_token_are_served_over_tls(stack: Stack) -> None:
    until(lambda: stack.get("/v2/health/ready", _TOKEN) == 200)
    two = np.full((1, 4), 2, np.float32)
    for scheme in ("grpcs", "https"):
        url = f"{scheme}://localhost:{stack.ports['front']}"
        with Client(url, tls=TLS(ca=stack.certificate), headers=_TOKEN) as client:
            assert client.model("add_sub")({"a": two, "b": two})["sum"].tolist() == [[4.0] * 4]


def test_strangers_are_not(stack: Stack) -> None:
    until(lambda: stack.get("/v2/health/ready", _TOKEN) == 200)
    assert stack.get("/v2/health/ready") == 401
    assert stack.get("/v2/health/ready", {"authorization": "Bearer x"}) == 401
    assert stack.get("/v2/repository/index", _TOKEN | _KEY, "POST") == 403


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/index"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("GET", "/v2/trace/setting"),
        ("GET", "/v2/logging"),
    ],
)
def test_the_server_itself_refuses_who_has_not_the_key(
    stack: Stack, client: docker.DockerClient, method: str, path: str
) -> None:
    """Other containers reach it without the front."""
    server = _server(client)
    assert not any(server.attrs["NetworkSettings"]["Ports"].values())
    networks = server.attrs["NetworkSettings"]["Networks"]
    (address,) = [network["IPAddress"] for network in networks.values()]
    assert get(8000, path, {}, method, host=address)[0] == 403
    assert get(8000, path, _KEY, method, host=address)[0] == 200


def test_prometheus_watches_the_server(stack: Stack) -> None:
    port = stack.ports["prometheus"]
    query = "/api/v1/query?query=up"
    found = until(lambda: json.loads(get(port, query)[1] or b"{}").get("data", {}).get("result"))
    assert found[0]["metric"]["job"]
    until(lambda: json.loads(get(port, query)[1])["data"]["result"][0]["value"][1] == "1")
    rules = json.loads(get(port, "/api/v1/rules")[1])["data"]["groups"]
    assert {group["name"] for group in rules} == {"server", "model add_sub"}


def test_a_killed_server_comes_back(stack: Stack, client: docker.DockerClient) -> None:
    """kill -9 of the server's process: docker starts it again, and the front finds it."""
    until(lambda: stack.get("/v2/health/ready", _TOKEN) == 200)
    server = _server(client)
    subprocess.run(["kill", "-9", str(server.attrs["State"]["Pid"])], check=True)
    until(lambda: client.containers.get(server.id).attrs["RestartCount"] == 1)
    until(lambda: stack.get("/v2/health/ready", _TOKEN) == 200)


def test_without_the_key_nothing_starts(stack: Stack) -> None:
    with pytest.raises(AssertionError, match=r"SECRETS\.md says how it is made"):
        stack.call("config", key="")
