"""What a plan needs at serving time reaches the server that loads it, or a message says what lacks.

No plan is run: that needs a GPU. The libraries, TensorRT for RTX and the servers are real.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml
from support.docker_engine import own_engine
from support.http_calls import until
from support.plugin_library import compile_plugin, needs_compiler
from support.program_image import import_program
from support.servers import BriefServer

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.serve.docker_server import DockerServer
from tritonsmith_generator.serve.embedded.sandbox import BACKENDS

_NEEDS = """
backend: "tensorrt"
parameters { key: "plugins" value { string_value: "libmine.so" } }
parameters { key: "version-compatible" value { string_value: "true" } }
"""
_IMAGE = "tritonsmith-test-arguments:1"
_FLAG = "--backend-config=tensorrt"
_LIBRARIES = "plugins=/models/net/1/libmine.so;/models/other/2/libmine.so"


@pytest.fixture
def models(repository: Any) -> Path:
    """Three models with a plan: two bring one library, the third another of the same name."""
    for name, version, content in (("net", 1, "a"), ("copy", 1, "a"), ("other", 2, "b")):
        folder = repository.add(name, None, _NEEDS, version)
        (folder / str(version) / "libmine.so").write_text(content)
        (folder / str(version) / "model.plan").touch()
    (repository.path / "copy").rename(repository.path / "zcopy")
    config = repository.path / "zcopy" / "config.pbtxt"
    config.write_text(config.read_text().replace('"copy"', '"zcopy"'))
    path: Path = repository.path
    return path


def _deploy(what: str, models: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tritonsmith_generator", "deploy", what, str(models)]
    options = ["--release", "26.10", "--gpus", "all", "-o", str(models.parent / "out")]
    return subprocess.run([*command, *options, *arguments], capture_output=True, text=True)


@pytest.mark.parametrize("what", ["docker", "compose"])
def test_what_is_deployed_names_each_library_once(models: Path, what: str) -> None:
    done = _deploy(what, models)
    assert done.returncode == 0, done
    if what == "compose":
        text = (models.parent / "out" / "compose.yaml").read_text()
        command = yaml.safe_load(text)["services"]["triton"]["command"]
    else:
        text = (models.parent / "out" / "Dockerfile").read_text()
        (line,) = (line for line in text.splitlines() if line.startswith("CMD ["))
        command = yaml.safe_load(line.removeprefix("CMD "))
        assert _FLAG not in (models.parent / "out" / "Dockerfile.embedded").read_text()
    flags = [argument for argument in command if argument.startswith(_FLAG)]
    assert flags == [f"{_FLAG},{_LIBRARIES}", f"{_FLAG},version-compatible=true"]


def test_only_plans_that_are_served_count(models: Path, repository: Any) -> None:
    repository.add_add_sub("add_sub")
    command = [sys.executable, "-m", "tritonsmith_generator", "deploy", "compose", str(models)]
    out = models.parent / "out"
    subprocess.run([*command, "--release", "26.10", "-o", str(out)], check=True)
    assert _FLAG not in (out / "compose.yaml").read_text()


def test_a_missing_library_is_one_message(models: Path) -> None:
    (models / "net" / "1" / "libmine.so").unlink()
    missing = f"{models / 'net' / '1' / 'libmine.so'} is missing, a plugin library"
    done = _deploy("compose", models)
    assert (done.returncode, missing in done.stderr) == (1, True), done
    assert not (models.parent / "out").exists()
    with pytest.raises(InputError, match="is missing, a plugin library"):
        DockerServer(models, release="26.10", gpus="all").start()


def test_tritonserver_takes_the_flags(repository: Any) -> None:
    """One setting per flag: a comma would belong to the value."""
    repository.add_add_sub("add_sub")
    flags = [f"{_FLAG},{_LIBRARIES}", f"{_FLAG},version-compatible=true"]
    with BriefServer(repository.path, extra_args=flags) as server:
        assert server.models == ("add_sub",)


@pytest.mark.docker
def test_the_containers_server_gets_the_flags(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On an engine that has no GPUs to hand out, and so is not asked for them."""
    monkeypatch.setattr("tritonsmith_generator.serve.docker_server.gpu_requests", lambda gpus: [])
    with own_engine() as (client, _):
        _import_stub(client)
        server = DockerServer(models, image=_IMAGE, network="host", gpus="all").start()
        try:
            until(lambda: any(line.text == "all told" for line in server.log))
            told = [line.text for line in server.log]
        finally:
            server.stop()
    flags = [argument for argument in told if argument.startswith(_FLAG)]
    assert flags == [f"{_FLAG},{_LIBRARIES}", f"{_FLAG},version-compatible=true"]


def _import_stub(client: docker.DockerClient) -> None:
    """An image whose ``tritonserver`` says what it was told, and never becomes ready."""
    bash, sleep = shutil.which("bash"), shutil.which("sleep")
    assert bash is not None
    assert sleep is not None
    script = (
        f"#!{bash}\ntrap 'exit 0' TERM\nprintf '%s\\n' \"$@\" 'all told'\n{sleep} 600 &\nwait\n"
    )
    scripts = {"/usr/bin/tritonserver": script}
    import_program(client, [bash, sleep], _IMAGE, user=1000, command=[], scripts=scripts)


# TensorRT keeps what it has registered for as long as a process lives.
_LOAD = """
import sys
from pathlib import Path
import tensorrt_rtx as trt
sys.path.append(sys.argv[1])
from tritonsmith_backend.plan_engine import Plan
try:
    Plan(trt, Path("model.plan"), print, [Path(name) for name in sys.argv[2:]])
except (RuntimeError, OSError) as exc:
    print("error:", exc)
print([creator.name for creator in trt.get_plugin_registry().all_creators])
"""


def _load(folder: Path, *libraries: str) -> list[str]:
    """What the embedded backend's ``Plan`` says when it is given these libraries, line by line."""
    command = [sys.executable, "-c", _LOAD, str(BACKENDS / "common"), *libraries]
    (folder / "model.plan").write_bytes(b"no plan")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@needs_compiler
@pytest.mark.parametrize("when_opened", [False, True])
def test_the_backend_registers_what_a_plan_needs(tmp_path: Path, when_opened: bool) -> None:
    compile_plugin(tmp_path / "libmine.so", when_opened=when_opened)
    *_, error, creators = _load(tmp_path, "libmine.so", "libmine.so")
    assert "'Mine'" in creators
    assert "cannot load model.plan" in error  # which came after the libraries
    assert "'Mine'" not in _load(tmp_path)[-1]


@needs_compiler
def test_a_library_that_the_backend_cannot_load(tmp_path: Path) -> None:
    (tmp_path / "libother.so").write_text("no library")
    path = tmp_path.resolve()
    assert (
        f"error: the plugin library {path}/libmine.so is missing"
        in _load(tmp_path, "libmine.so")[-2]
    )
    assert (
        f"error: the plugin library {path}/libother.so does not load"
        in _load(tmp_path, "libother.so")[-2]
    )
