"""``gen-repo build --in-release``: plans compiled in a real container, by the image's own TensorRT.

The image has NVIDIA's name, TensorRT for RTX (which builds without a GPU) and no Python bindings
of it; with ``--image`` it is the one that is named there, and its TensorRT.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import docker
import numpy as np
import pytest
from ml_dtypes import bfloat16
from support.harness.paths import SIMPLENET
from support.onnx import bad_models
from support.programs.docker_engine import tagged
from support.trt.engine_builds import build_engine
from support.wire.http_calls import until

from tritonsmith_generator.containers.engine import connect
from tritonsmith_generator.engine_image.toolchain import ImageToolchain, image_toolchain
from tritonsmith_generator.layout import LOCK_NAME
from tritonsmith_generator.onnx_model.profiles import ShapeRange
from tritonsmith_generator.trt.request import Arrays, EngineRequest, PlanQuestion, Progress

pytestmark = pytest.mark.docker

NVIDIA = "nvcr.io/nvidia/tritonserver:26.10-py3"
_DOCKERFILE = """
FROM {base}
COPY . /opt/tritonserver/lib/
ENV CUDA_VERSION=13.0.1 NVIDIA_TRITON_SERVER_VERSION=26.10
"""

SmallDisk = Callable[[Path, str], None]
Builds = Callable[..., "subprocess.Popen[str]"]


@dataclass(frozen=True)
class Builder:
    """An image that builds, the options that name it, and the target that it has."""

    options: tuple[str, ...]
    target: str


@pytest.fixture(scope="module")
def client(docker_options: dict[str, Any]) -> Iterator[docker.DockerClient]:
    client = connect()
    yield client
    client.close()


@pytest.fixture(scope="module")
def builder(
    client: docker.DockerClient,
    docker_options: dict[str, Any],
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Builder]:
    given = request.config.getoption("--image")
    if given:
        if docker_options["gpus"] == "none":
            pytest.skip("TensorRT builds on a GPU only: give --gpus all")
        yield Builder(("--in-image", given), "tensorrt")
        return
    libraries = importlib.util.find_spec("tensorrt_rtx_libs")
    if libraries is None or libraries.origin is None:
        pytest.skip("tensorrt_rtx is not installed, and the image gets its library from there")
    context = tmp_path_factory.mktemp("rtx")
    for library in Path(libraries.origin).parent.glob("*.so.*"):
        os.link(library, context / library.name)
    (context / "Dockerfile").write_text(_DOCKERFILE.format(base=docker_options["image"]))
    image, _ = client.images.build(path=str(context), rm=True)
    image.tag("tritonsmith-test-rtx")
    with tagged(client, image, NVIDIA) as named:
        options = ("--in-release", "26.10") if named else ("--in-image", "tritonsmith-test-rtx")
        yield Builder(options, "tensorrt_rtx")
    client.images.remove("tritonsmith-test-rtx")


@pytest.fixture(scope="module")
def known_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is known of images, and fetched for them, is kept from test to test."""
    return tmp_path_factory.mktemp("images")


@pytest.fixture
def build(
    builder: Builder,
    known_images: Path,
    gen_repo: Callable[..., subprocess.Popen[str]],
    client: docker.DockerClient,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Iterator[Builds]:
    """``build(source)``: the command at work inside the image. No container may be left."""
    cache = tmp_path / "cache"
    (cache / "tritonsmith").mkdir(parents=True)
    (cache / "tritonsmith" / "images").symlink_to(known_images)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))

    def start(source: Path, *more: object) -> subprocess.Popen[str]:
        options = more or builder.options
        if source.suffix == ".onnx":
            options = (*options, "--target", builder.target)
        return gen_repo("build", source, "-o", tmp_path / "repository", *options)

    yield start
    deadline = time.monotonic() + 20
    while left := _containers(client):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.1)


def _containers(client: docker.DockerClient) -> list[Any]:
    found: list[Any] = client.containers.list(
        all=True, filters={"label": "tritonsmith=build"}, ignore_removed=True
    )
    return found


def _caught(client: docker.DockerClient, process: subprocess.Popen[str]) -> Any:
    """The container of the engine build, stopped in its tracks."""
    while True:
        assert process.poll() is None, process.communicate()
        for container in _containers(client):
            building = (
                "tritonsmith_generator.engine_image.entrypoint" in container.attrs["Config"]["Cmd"]
            )
            if building and container.status == "running":
                container.pause()
                container.reload()
                until(partial(_guarded, container))
                return container
        time.sleep(0.02)


def _guarded(container: Any) -> bool:
    """Whether the program runs that removes the container when its owner is killed."""
    wanted = f"tritonsmith_generator.containers.reaper\0{container.id}\0".encode()
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if wanted in command.read_bytes():
                return True
    return False


def _done(process: subprocess.Popen[str], code: int = 0) -> str:
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, out + err
    return out + err


def test_a_plan_is_built_inside_and_published_outside(
    build: Builds, builder: Builder, client: docker.DockerClient, tmp_path: Path
) -> None:
    assert "1 built" in _done(build(SIMPLENET))
    plan = tmp_path / "repository/simplenet/1/model.plan"
    assert (plan.stat().st_uid, plan.stat().st_gid) == (os.getuid(), os.getgid())
    lock = json.loads((tmp_path / "repository" / LOCK_NAME).read_text())
    tools = lock["models"]["simplenet"]["tools"]
    image = client.images.get(tools["image_name"])
    assert tools["image"] in (image.id, *image.attrs["RepoDigests"])
    assert builder.target in tools
    assert "nothing had to be rebuilt" in _done(build(SIMPLENET))
    if builder.target == "tensorrt_rtx":
        assert tools["cuda"] == "13.0.1"
        assert lock["triton"] == "26.10"
        here = tmp_path / "here.plan"
        shapes = {"input": ShapeRange((1, 784), (8, 784), (32, 784))}
        build_engine(EngineRequest("tensorrt_rtx", SIMPLENET, here, (shapes,)))
        assert plan.read_bytes() == here.read_bytes()


def test_a_link_leads_to_the_model_inside(build: Builds, builder: Builder, tmp_path: Path) -> None:
    (tmp_path / "blobs").mkdir()
    bad_models.saved(bad_models.good())(tmp_path / "blobs")  # it needs no tidying, and no copy
    (tmp_path / "blobs" / "model.onnx").rename(tmp_path / "blobs" / "f00d")
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "linked.onnx").symlink_to("../blobs/f00d")
    spec = tmp_path / "models.yaml"
    spec.write_text(f"models: {{m: {{onnx: snapshot/linked.onnx, target: {builder.target}}}}}")
    assert "1 built" in _done(build(spec))


def test_the_build_may_do_as_little_as_possible(
    build: Builds, client: docker.DockerClient, tmp_path: Path
) -> None:
    process = build(SIMPLENET)
    container = _caught(client, process)
    host = container.attrs["HostConfig"]
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges:true"]
    assert container.attrs["Config"]["User"] == f"{os.getuid()}:{os.getgid()}"
    written = [m["Destination"] for m in container.attrs["Mounts"] if m["RW"]]
    assert "/tritonsmith/work/plan" in written
    assert all(path.startswith("/tritonsmith/work/") for path in written)
    container.unpause()
    assert "1 built" in _done(process)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_container_goes_with_its_owner(
    build: Builds, client: docker.DockerClient, tmp_path: Path, number: signal.Signals
) -> None:
    process = build(SIMPLENET)
    _caught(client, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert not (tmp_path / "repository" / "simplenet").exists()
    if number == signal.SIGINT:
        assert process.returncode == 130
        assert "nothing is half-written" in err
    # The fixture waits until the container is gone.


def test_a_container_that_is_killed(
    build: Builds, client: docker.DockerClient, tmp_path: Path
) -> None:
    process = build(SIMPLENET)
    container = _caught(client, process)
    container.unpause()
    container.kill()
    said = _done(process, 3)
    assert "the engine build of simplenet.onnx gave no plan: the container tritonsmith-" in said
    assert "was killed by signal 9" in said
    assert not (tmp_path / "repository").exists()


# What the image's Python finds in the place of the module that runs plans, which takes a GPU.
_ANSWERING = """
import sys, types
def ask(question, emit):
    from tritonsmith_generator.trt.request import PlanAnswers, Progress
    assert question.plan.stat().st_size > 1000 and question.plan.name == "m.plan"
    emit(Progress("doubling", None, 1, 2, "step"))
    double = lambda row: {f"{name} twice": array + array for name, array in row.items()}
    return PlanAnswers((*map(double, question.inputs), None))
module = types.ModuleType("tritonsmith_generator.trt.builder")
module.ask = ask
sys.modules[module.__name__] = module
"""


@pytest.fixture
def toolchain(builder: Builder, known_images: Path, client: docker.DockerClient) -> ImageToolchain:
    release = builder.options[1]
    name = NVIDIA if builder.options[0] == "--in-release" else release
    return image_toolchain(name, lambda text, done: None)


@pytest.fixture
def plan(toolchain: ImageToolchain, builder: Builder, tmp_path: Path) -> Path:
    shapes = {"input": ShapeRange((1, 784), (8, 784), (32, 784))}
    plan = tmp_path / "plans" / "m.plan"
    plan.parent.mkdir()
    library: Any = builder.target
    with toolchain.process(library) as process:
        process.build(EngineRequest(library, SIMPLENET, plan, (shapes,)), lambda _: None)
    return plan


def test_a_plan_is_run_where_it_was_built(
    toolchain: ImageToolchain, builder: Builder, plan: Path, tmp_path: Path
) -> None:
    """Arrays go in and come out; what they are multiplied by needs no GPU."""
    packages = tmp_path / "packages"
    shutil.copytree(toolchain.packages, packages)
    (packages / "sitecustomize.py").write_text(_ANSWERING)
    rows: tuple[Arrays, ...] = (
        {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones((), np.int64)},
        {"a": np.array([0.5, np.inf, -2], bfloat16), "b": np.zeros((0, 4), np.float16)},
    )
    said: list[Progress] = []
    library: Any = builder.target
    question = PlanQuestion(library, plan, rows)
    with replace(toolchain, packages=packages).process(library) as process:
        answers = process.ask(question, said.append)
    assert answers.skipped == "" and answers.outputs[2:] == (None,)
    for row, output in zip(rows, answers.outputs, strict=False):
        assert output is not None and list(output) == [f"{name} twice" for name in row]
        for name, array in row.items():
            found = output[f"{name} twice"]
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            assert (found == array + array).all()
    assert [progress.phase for progress in said] == ["doubling"]


def test_without_a_gpu_a_plan_is_not_run_inside_either(
    toolchain: ImageToolchain, builder: Builder, plan: Path
) -> None:
    if builder.target == "tensorrt":
        pytest.skip("TensorRT builds on a GPU only")
    library: Any = builder.target
    question = PlanQuestion(library, plan, ({"input": np.zeros((1, 784), np.float32)},))
    with toolchain.process(library) as process:
        answers = process.ask(question, lambda _: None)
    assert answers.outputs == ()
    assert answers.skipped.startswith("it does not load: "), answers.skipped


def test_what_the_builder_refuses_is_said_outside(
    build: Builds, builder: Builder, tmp_path: Path
) -> None:
    plugin = tmp_path / "plugin.so"
    plugin.write_text("no library")
    spec = tmp_path / "models.yaml"
    spec.write_text(
        f"models: {{simplenet: {{onnx: {SIMPLENET}, target: {builder.target}, "
        f"builder: {{plugins: [{plugin}]}}}}}}"
    )
    assert f"plugin library {plugin} does not load" in _done(build(spec), 1)


def test_a_full_disk(build: Builds, tmp_path: Path, small_disk: SmallDisk) -> None:
    """The folder that the container writes the plan to."""
    stages = tmp_path / "cache" / "tritonsmith" / "stages" / "plan"
    small_disk(stages, "200k")
    said = _done(build(SIMPLENET), 3)
    assert f"cannot write {stages}" in said
    assert "No space left on device. Free space there" in said
    assert not (tmp_path / "repository").exists()


def test_an_image_without_tensorrt(build: Builds, docker_options: dict[str, Any]) -> None:
    plain = docker_options["image"]
    said = _done(build(SIMPLENET, "--in-image", plain), 3)
    assert f"{plain} has no TensorRT, so no plan can be built in it" in said


def test_a_target_that_the_image_has_not(build: Builds, builder: Builder, tmp_path: Path) -> None:
    other = {"tensorrt": "tensorrt_rtx", "tensorrt_rtx": "tensorrt"}[builder.target]
    spec = tmp_path / "models.yaml"
    spec.write_text(f"models: {{simplenet: {{onnx: {SIMPLENET}, target: {other}}}}}")
    assert re.search(
        rf"target {other}: \S+ has no TensorRT.*; it has TensorRT", _done(build(spec), 3)
    )


def test_an_image_that_cannot_be_asked(
    build: Builds, client: docker.DockerClient, tmp_path: Path
) -> None:
    empty = io.BytesIO()
    with tarfile.open(fileobj=empty, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("nothing"))
    client.api.import_image_from_data(empty.getvalue(), repository="tritonsmith-test-empty")
    said = _done(build(SIMPLENET, "--in-image", "tritonsmith-test-empty"), 3)
    client.images.remove("tritonsmith-test-empty")
    assert "Docker could not run python3 in tritonsmith-test-empty" in said


def test_a_release_that_is_not_here(build: Builds) -> None:
    said = _done(build(SIMPLENET, "--in-image", "localhost:1/nowhere:26.10"), 3)
    assert "Docker could not get the image localhost:1/nowhere:26.10" in said


def test_no_engine(build: Builds, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as changed:
        changed.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
        process = build(SIMPLENET)
    assert "No Docker Engine at unix:///nowhere/docker.sock" in _done(process, 3)


def test_a_release_against_the_spec(build: Builds, tmp_path: Path) -> None:
    spec = tmp_path / "models.yaml"
    spec.write_text(f'triton: "26.09"\nmodels: {{simplenet: {{onnx: {SIMPLENET}}}}}\n')
    said = _done(build(spec, "--in-release", "26.10"), 2)
    assert "--in-release 26.10: the spec says triton: 26.09" in said
