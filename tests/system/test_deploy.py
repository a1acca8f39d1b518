"""``gen-repo deploy``: what is written is valid, and does what it is for, in the real programs."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from support.docker_engine import compose_command
from support.http_calls import free_port, get, until
from support.servers import BriefServer
from typer.testing import CliRunner

from tritonsmith_client import Client
from tritonsmith_client._net.tls import TLS
from tritonsmith_client.errors import StatusError
from tritonsmith_generator.cli.deploy import deploy
from tritonsmith_generator.deploy.files import Deployment, compose_files, docker_files, write_files
from tritonsmith_generator.errors import InputError, UsageError
from tritonsmith_generator.serve import Server
from tritonsmith_generator.serve.server_base import ServerBase
from tritonsmith_generator.spec.loader import load_spec


def _program(name: str) -> str:
    """The path of a program. Skips where it is not installed."""
    found = shutil.which(name, path=f"{Path('/usr/sbin')}:{Path('/usr/bin')}") or shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed here")
    return found


@pytest.fixture
def deployment(repository: Any) -> Deployment:
    for name in ("add_sub", "other-model"):
        repository.add_add_sub(name)
    return Deployment(repository.path, "nvcr.io/nvidia/tritonserver:26.10-py3", "all")


def test_the_name_is_one_that_every_program_takes(deployment: Deployment) -> None:
    assert deployment.repository.name == "model repository"
    assert deployment.name == "model-repository"


def test_the_compose_file_protects_the_server(deployment: Deployment, tmp_path: Path) -> None:
    made = yaml.safe_load(compose_files(deployment, tmp_path)["compose.yaml"])
    triton = made["services"]["triton"]
    assert triton["image"] == "nvcr.io/nvidia/tritonserver:26.10-py3"
    assert triton["networks"] == ["inside"]
    assert made["networks"]["inside"] == {"internal": True}
    assert "ports" not in triton
    assert triton["read_only"] is True
    assert triton["user"] == "1000:1000"
    assert triton["cap_drop"] == ["ALL"]
    assert triton["volumes"] == [
        {
            "type": "bind",
            "source": str(deployment.repository),
            "target": "/models",
            "read_only": True,
        }
    ]
    assert "--model-control-mode=none" in triton["command"]
    devices = triton["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    published = [port for service in made["services"].values() for port in service.get("ports", ())]
    assert all(port.startswith("127.0.0.1:") for port in published)


def test_docker_compose_reads_it(deployment: Deployment, tmp_path: Path) -> None:
    write_files(compose_files(deployment, tmp_path), tmp_path)
    (tmp_path / "secrets").mkdir()
    for name in ("server.crt", "server.key", "token.conf", "grafana_password"):
        (tmp_path / "secrets" / name).touch()
    (tmp_path / ".env").write_text("TRITON_ADMIN_KEY=key-1\n")
    done = subprocess.run(
        [*compose_command(), "config"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    services = yaml.safe_load(done.stdout)["services"]
    assert set(services) == {"triton", "front", "prometheus", "grafana"}


def test_without_gpus_none_is_asked_for(deployment: Deployment, tmp_path: Path) -> None:
    plain = Deployment(deployment.repository, "image")
    triton = yaml.safe_load(compose_files(plain, tmp_path)["compose.yaml"])["services"]["triton"]
    assert "deploy" not in triton
    assert "memlock" not in triton["ulimits"]


def test_the_dashboard_has_a_row_of_panels_for_each_model(
    deployment: Deployment, tmp_path: Path
) -> None:
    made = json.loads(compose_files(deployment, tmp_path)["grafana/dashboards/models.json"])
    rows = [panel["title"] for panel in made["panels"] if panel["type"] == "row"]
    assert rows == ["add_sub", "other-model"]
    queries = [p["targets"][0]["expr"] for p in made["panels"] if p["type"] != "row"]
    assert sum('model="other-model"' in query for query in queries) == 5
    places = [tuple(p["gridPos"].values()) for p in made["panels"]]
    assert len(set(places)) == len(places)


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.embedded"])
def test_hadolint_has_nothing_to_say(deployment: Deployment, name: str) -> None:
    program = _program("hadolint")
    text = docker_files(deployment)[name]
    done = subprocess.run([program, "-"], input=text, capture_output=True, text=True, check=False)
    assert done.stdout == ""


def test_the_demo_is_deployed_as_the_repository_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """docker/ holds what is rendered for the demo's models; the backends are the package's."""
    root = Path(__file__).parents[2]
    for name, spec in load_spec(root / "model_repository" / "models.yaml").models.items():
        folder = tmp_path / "model_repository" / name
        (folder / "1").mkdir(parents=True)
        (folder / "config.pbtxt").write_text(f'backend: "{spec.target}"')
    monkeypatch.chdir(tmp_path)
    demo = Deployment(Path("model_repository"), "nvcr.io/nvidia/tritonserver:26.10-py3")
    files = docker_files(demo) | compose_files(demo, Path("docker"))
    rendered = {name: text for name, text in files.items() if not name.startswith("backends/")}
    assert rendered == {name: (root / "docker" / name).read_text() for name in rendered}
    assert set(demo.left_out) == {"simplenet_rtx"}
    assert "../model_repository/simplenet" in rendered["compose.yaml"]
    assert "simplenet_rtx" not in "".join(rendered.values())


def test_a_plan_is_deployed_where_gpus_are_asked_for(repository: Any, tmp_path: Path) -> None:
    repository.add("planned", None, 'backend: "tensorrt"')
    with pytest.raises(InputError, match="planned: it is a TensorRT plan, which needs --gpus all"):
        compose_files(Deployment(repository.path, "image"), tmp_path)
    made = compose_files(Deployment(repository.path, "image", "all"), tmp_path)
    assert "ModelMissing" in made["alerts.yml"]


def test_files_changed_by_hand_are_left_alone(deployment: Deployment, tmp_path: Path) -> None:
    files = compose_files(deployment, tmp_path)
    assert {change.action for change in write_files(files, tmp_path)} == {"create"}
    assert {change.action for change in write_files(files, tmp_path)} == {"identical"}
    (tmp_path / "alerts.yml").write_text("mine")
    changes = write_files(files, tmp_path)
    assert [c.path.name for c in changes if c.action == "conflict"] == ["alerts.yml"]
    assert (tmp_path / "alerts.yml").read_text() == "mine"
    write_files(files, tmp_path, force=True)
    assert (tmp_path / "alerts.yml").read_text() == files["alerts.yml"]


def test_the_command_says_what_it_wrote_and_what_to_do_next(
    deployment: Deployment, tmp_path: Path
) -> None:
    app = typer.Typer()
    app.command()(deploy)
    given = [str(deployment.repository), "-o", str(tmp_path), "--release", "26.10"]
    first = CliRunner().invoke(app, ["compose", *given], env={"COLUMNS": "400"})
    assert first.exit_code == 0
    assert f"create  {tmp_path}/compose.yaml" in first.output
    assert "docker compose up -d" in first.output
    (tmp_path / "alerts.yml").write_text("mine")
    again = CliRunner().invoke(app, ["compose", *given], env={"COLUMNS": "400"})
    assert f"conflict  {tmp_path}/alerts.yml" in again.output
    assert isinstance(again.exception, InputError)
    images = CliRunner().invoke(app, ["docker", *given], env={"COLUMNS": "400"})
    assert images.exit_code == 0
    assert "docker build -t model-repository" in images.output
    assert (tmp_path / "backends/onnxruntime/model.py").is_file()
    neither = CliRunner().invoke(app, ["docker", str(deployment.repository)])
    assert isinstance(neither.exception, UsageError)
    (deployment.repository / "models.yaml").write_text('triton: "26.10"')
    from_spec = CliRunner().invoke(
        app, ["docker", str(deployment.repository), "-o", str(tmp_path)], env={"COLUMNS": "400"}
    )
    assert from_spec.exit_code == 0
    assert f"nvcr.io/nvidia/tritonserver:26.10-py3, as {deployment.repository}" in from_spec.output


def test_a_model_name_that_would_break_a_file_is_refused(repository: Any, tmp_path: Path) -> None:
    repository.add_add_sub('a"b')
    with pytest.raises(InputError, match="can't be deployed"):
        compose_files(Deployment(repository.path, "image"), tmp_path)


@pytest.fixture(scope="module")
def running() -> Iterator[Callable[[list[str]], subprocess.Popen[bytes]]]:
    """Starts programs and ends them after the test."""
    started: list[subprocess.Popen[bytes]] = []

    def start(command: list[str]) -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        process.wait(timeout=30)


_TOKEN = {"authorization": "Bearer secret-1"}


@pytest.fixture(scope="module")
def front(
    module_repository: Any,
    tmp_path_factory: pytest.TempPathFactory,
    running: Any,
    start_any_server: Callable[..., ServerBase],
) -> tuple[int, Path]:
    """The front's port and the certificate to trust, with a real server behind it."""
    if not (module_repository.path / "add_sub").exists():
        module_repository.add_add_sub("add_sub")
    deployment = Deployment(module_repository.path, "image")
    tmp_path = tmp_path_factory.mktemp("front")
    nginx, openssl = _program("nginx"), _program("openssl")
    secrets, scratch, port = tmp_path / "secrets", tmp_path / "scratch", free_port()
    secrets.mkdir()
    scratch.mkdir()
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        + ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        + ["-keyout", secrets / "server.key", "-out", secrets / "server.crt"],
        check=True,
        capture_output=True,
    )
    (secrets / "token.conf").write_text('"Bearer secret-1" 1;\n')
    server = start_any_server(deployment.repository)
    values = {
        "secrets": secrets,
        "scratch": scratch,
        "listen": f"127.0.0.1:{port}",
        "triton_http": server.http_url.removeprefix("http://"),
        "triton_grpc": server.grpc_url.removeprefix("grpc://"),
    }
    conf = tmp_path / "nginx.conf"
    conf.write_text(compose_files(deployment, tmp_path, values)["nginx.conf"])
    running([nginx, "-c", str(conf), "-p", str(scratch), "-g", "daemon off;"])
    trusted = ssl.create_default_context(cafile=str(secrets / "server.crt"))
    until(lambda: get(port, "/v2/health/ready", _TOKEN, tls=trusted)[0] == 200)
    return port, secrets / "server.crt"


def _sum(client: Client) -> list[float]:
    two = np.full((1, 4), 2, np.float32)
    found: list[float] = client.model("add_sub")({"a": two, "b": two})["sum"][0].tolist()
    return found


def test_the_front_passes_known_clients_through_tls(front: tuple[int, Path]) -> None:
    port, certificate = front
    for scheme in ("grpcs", "https"):
        url = f"{scheme}://localhost:{port}"
        with Client(url, tls=TLS(ca=certificate), headers=_TOKEN) as client:
            assert _sum(client) == [4.0] * 4
        with (
            Client(url, tls=TLS(ca=certificate), headers={"authorization": "Bearer x"}) as client,
            pytest.raises(StatusError),
        ):
            _sum(client)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/add_sub/unload"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/systemsharedmemory/region/x/register"),
        ("GET", "/v2/cudasharedmemory/status"),
        ("GET", "/v2/trace/setting"),
        ("GET", "/v2/models/add_sub/trace/setting"),
        ("GET", "/v2/logging"),
        ("POST", "/inference.GRPCInferenceService/RepositoryModelLoad"),
        ("POST", "/inference.GRPCInferenceService/SystemSharedMemoryRegister"),
        ("GET", "/metrics"),
        ("GET", "/v2/models/add_sub/../../repository/index"),
        ("GET", "/"),
    ],
)
def test_the_front_passes_on_nothing_but_serving(
    front: tuple[int, Path], method: str, path: str
) -> None:
    port, certificate = front
    trusted = ssl.create_default_context(cafile=str(certificate))
    assert get(port, path, _TOKEN, method, trusted)[0] == 403
    assert get(port, path, {}, method, trusted)[0] == 401
    for open_path in ("/v2", "/v2/models/add_sub", "/v2/models/add_sub/versions/1/stats"):
        assert get(port, open_path, _TOKEN, tls=trusted)[0] == 200


_FAILING = """
backend: "python"
input { name: "x" data_type: TYPE_FP32 dims: [1] }
output { name: "y" data_type: TYPE_FP32 dims: [1] }
instance_group { kind: KIND_CPU count: 1 }
"""
_RAISES = """
class TritonPythonModel:
    def execute(self, requests):
        raise RuntimeError("out of order")
"""


def _fail(server: Server) -> bool:
    """Make the model fail once more; Prometheus sees an increase, not a count."""
    with Client(server.grpc_url) as client, pytest.raises(StatusError, match="out of order"):
        client.model("failing")(np.zeros(1, np.float32))
    return True


def test_prometheus_sees_the_models_and_its_alerts_fire(
    deployment: Deployment, tmp_path: Path, running: Any
) -> None:
    prometheus, promtool = _program("prometheus"), _program("promtool")
    (deployment.repository / "failing" / "1").mkdir(parents=True)
    (deployment.repository / "failing" / "config.pbtxt").write_text('name: "failing"' + _FAILING)
    (deployment.repository / "failing" / "1" / "model.py").write_text(_RAISES)
    with BriefServer(deployment.repository) as server:
        # A model that is expected and is not there: one that did not come up with the rest.
        shutil.copytree(deployment.repository / "add_sub", deployment.repository / "lost")
        (deployment.repository / "lost" / "config.pbtxt").write_text('name: "lost"')
        values = {
            "target": server.metrics_url.removeprefix("http://").removesuffix("/metrics"),
            "rules": str(tmp_path / "alerts.yml"),
            "patience": "0s",
        }
        files = compose_files(deployment, tmp_path, values)
        quick = files["prometheus.yml"].replace("5s", "1s")
        write_files(files | {"prometheus.yml": quick}, tmp_path)
        for kind in ("rules", "config"):
            file = {"rules": "alerts.yml", "config": "prometheus.yml"}[kind]
            subprocess.run([promtool, "check", kind, tmp_path / file], check=True)
        port = free_port()
        running(
            [
                prometheus,
                f"--config.file={tmp_path}/prometheus.yml",
                f"--storage.tsdb.path={tmp_path}/data",
                f"--web.listen-address=127.0.0.1:{port}",
            ]
        )
        with Client(server.grpc_url) as client:
            assert _sum(client) == [4.0] * 4
        until(lambda: _alerts(port) == {("ModelMissing", "lost")})
        query = "/api/v1/query?query=nv_inference_request_success%7Bmodel%3D%22add_sub%22%7D"
        found = until(lambda: json.loads(get(port, query)[1])["data"]["result"])
        assert found[0]["value"][1] == "1"
        until(lambda: _fail(server) and ("ModelFails", "failing") in _alerts(port))
    until(lambda: ("TritonDown", None) in _alerts(port))


def _alerts(port: int) -> set[tuple[str, str | None]]:
    """The alerts that fire, each with the model that it is about."""
    status, body = get(port, "/api/v1/alerts")
    if status != 200:
        return set()
    found = json.loads(body)["data"]["alerts"]
    return {
        (alert["labels"]["alertname"], alert["labels"].get("model"))
        for alert in found
        if alert["state"] == "firing"
    }
