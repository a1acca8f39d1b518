"""``gen-repo check`` warns of what could be used against the server."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from support.command import GenRepo

from tritonsmith_generator.deploy.files import Deployment, compose_files, write_files

DIGEST = "@sha256:" + 64 * "0"
IMAGES = {name: name + DIGEST for name in ("front", "prometheus", "grafana")}

Change = Callable[[Path], object]


@pytest.fixture
def repository(built_once: Path, tmp_path: Path) -> Path:
    return shutil.copytree(built_once, tmp_path / "model_repository")


def warnings(gen_repo: GenRepo, folder: Path) -> list[tuple[str, str]]:
    """Where and what; warnings alone are no failure."""
    done = gen_repo("check", folder, "--json")
    assert done.code == 0
    findings = json.loads(done.out)["findings"]
    assert {found["severity"] for found in findings} <= {"warning"}
    return [(found["where"], found["message"]) for found in findings]


def append(text: str) -> Change:
    def change(repository: Path) -> None:
        with (repository / "m/config.pbtxt").open("a") as file:
            file.write(text)
        (repository / "repository.lock.json").unlink()

    return change


def environment(path: str) -> Change:
    return append(
        f'parameters {{ key: "EXECUTION_ENV_PATH" value {{ string_value: "{path}" }} }}\n'
    )


def link(repository: Path) -> None:
    outside = repository.with_name("weights.bin")
    outside.write_bytes(b"w")
    (repository / "m/1/weights.bin").symlink_to(outside)


# what is unsafe: (how it gets so, where it is found, what the message says)
UNSAFE: dict[str, tuple[Change, str, str]] = {
    "repository": (lambda r: r.chmod(0o777), ".", "any user of this machine may change it"),
    "model file": (
        lambda r: (r / "m/1/model.onnx").chmod(0o666),
        "m/1/model.onnx",
        "chmod -R o-w",
    ),
    "link": (link, "m/1/weights.bin", "a link out of the repository, to "),
    "environment": (
        environment("/opt/env.tar.gz"),
        "m/config.pbtxt",
        "EXECUTION_ENV_PATH '/opt/env.tar.gz' lies outside the model's folder",
    ),
    "environment of a neighbour": (
        environment("$$TRITON_MODEL_DIRECTORY/../env.tar.gz"),
        "m/config.pbtxt",
        "who may write there runs code in the server",
    ),
    "library": (
        append('model_operations { op_library_filename: "../../ops.so" }\n'),
        "m/config.pbtxt",
        "op_library_filename '../../ops.so' leads out of the model's folder",
    ),
    "release": (
        lambda r: (r / "models.yaml").write_text('triton: "25.06"'),
        "models.yaml",
        "CVE-2026-24207 (CVSS 9.8); code execution through the Python backend, CVE-2025-23319",
    ),
    "release that crashes": (
        lambda r: (r / "models.yaml").write_text('triton: "25.03"'),
        "models.yaml",
        "server#8034, which HTTP does not have): take 26.06 or newer",
    ),
}


@pytest.mark.parametrize("name", UNSAFE)
def test_what_is_unsafe_in_a_repository(gen_repo: GenRepo, repository: Path, name: str) -> None:
    change, where, message = UNSAFE[name]
    assert warnings(gen_repo, repository) == []
    change(repository)
    assert any(w == where and message in said for w, said in warnings(gen_repo, repository))


def test_what_is_safe_is_not_warned_of(gen_repo: GenRepo, repository: Path) -> None:
    (repository / "m/1/alias.bin").symlink_to("model.onnx")
    environment("$$TRITON_MODEL_DIRECTORY/env.tar.gz")(repository)
    (repository / "models.yaml").write_text('triton: "26.10"')
    assert [said for _, said in warnings(gen_repo, repository)] == [
        "not written by gen-repo: the lock doesn't list it"
    ]


@pytest.fixture
def composed(tmp_path: Path) -> Path:
    """What gen-repo deploy compose writes, with every image pinned."""
    (tmp_path / "models/m/1").mkdir(parents=True)
    (tmp_path / "models/m/config.pbtxt").write_text('backend: "onnxruntime"')
    image = f"nvcr.io/nvidia/tritonserver:26.10-py3{DIGEST}"
    folder = tmp_path / "deploy"
    write_files(
        compose_files(Deployment(tmp_path / "models", image, images=IMAGES), folder), folder
    )
    return folder


def test_what_deploy_writes_is_safe(gen_repo: GenRepo, composed: Path) -> None:
    assert warnings(gen_repo, composed) == []


# a change to the server's service, and what the message says
OPENED: dict[str, tuple[dict[str, object], str]] = {
    "model control": (
        {"command": ["tritonserver", "--model-control-mode=explicit"]},
        "whoever reaches the server may load models, which is to run code",
    ),
    "polling": ({"command": "tritonserver --model-control-mode=poll"}, "the server polls"),
    "shared memory": (
        {"command": "tritonserver --allow-client-shm=true", "ports": ["0.0.0.0:8000:8000"]},
        "clients may register shared memory, and other machines reach the server",
    ),
    "shared memory through ipc": (
        {"ipc": "host", "ports": ["8000:8000"]},
        "clients may register shared memory",
    ),
    "port": ({"ports": ["8001:8001"]}, "port 8001:8001 is open to other machines"),
    "port in long form": (
        {"ports": [{"published": 8001, "target": 8001}]},
        "port 8001:8001 is open to other machines",
    ),
    "host network": ({"network_mode": "host"}, "it listens on every address of the machine"),
    "writable models": ({"volumes": ["/srv/models:/models"]}, "/models is mounted writable"),
    "writable models in long form": (
        {"volumes": [{"type": "bind", "source": "/srv", "target": "/models"}]},
        "/models is mounted writable",
    ),
    "root": ({"user": "root"}, "it runs as root"),
    "nobody said who": ({"user": None}, "it runs as root"),
    "privileged": ({"privileged": True}, "which is root on the machine"),
    "root file system": ({"read_only": False}, "its root file system is writable"),
    "capabilities": ({"cap_drop": []}, "it keeps capabilities"),
    "privileges": ({"security_opt": []}, "it may gain privileges"),
    "tag": ({"image": "nvcr.io/nvidia/tritonserver:26.10-py3"}, "is not pinned by digest"),
    "old release": (
        {"image": f"nvcr.io/nvidia/tritonserver:26.05-py3{DIGEST}"},
        "release 26.05 has known vulnerabilities",
    ),
}


@pytest.mark.parametrize("name", OPENED)
def test_what_a_compose_file_opens(gen_repo: GenRepo, composed: Path, name: str) -> None:
    change, message = OPENED[name]
    path = composed / "compose.yaml"
    made = yaml.safe_load(path.read_text())
    made["services"]["triton"] |= change
    if change.get("user", "") is None:
        del made["services"]["triton"]["user"]
    path.write_text(yaml.safe_dump(made))
    said = warnings(gen_repo, composed)
    assert all(where == "compose.yaml: triton" for where, _ in said)
    assert [text for _, text in said if message in text]


def test_what_is_restricted_or_local_may_be_open(gen_repo: GenRepo, composed: Path) -> None:
    path = composed / "compose.yaml"
    made = yaml.safe_load(path.read_text())
    triton = made["services"]["triton"]
    triton["command"] = [*triton["command"], "--model-control-mode=explicit"]
    triton["ports"] = ["127.0.0.1:8000:8000", "[::1]:8001:8001"]
    path.write_text(yaml.safe_dump(made))
    assert warnings(gen_repo, composed) == []


def test_a_file_that_is_no_compose_file(gen_repo: GenRepo, tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: [")
    done = gen_repo("check", tmp_path)
    assert done.code == 1
    assert "compose.yaml is no compose file" in done.err
