"""What a plan needs to be served: its plugin libraries, leave to bring a runtime, its weights."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.harness.paths import SIMPLENET
from support.onnx.gpu_repositories import as_tensorrt, edit_lock
from support.programs.command import GenRepo, Outcome
from support.trt.engine_builds import build_engine
from support.trt.plugin_library import compile_plugin, needs_compiler

from tritonsmith_generator.onnx_model.profiles import ShapeRange
from tritonsmith_generator.repository.inspect import read_config
from tritonsmith_generator.repository.lock import read_lock
from tritonsmith_generator.trt.request import EngineOptions, EngineRequest

pytestmark = needs_compiler


def compile_library(version: int = 1) -> None:
    compile_plugin(Path("libmine.so"), version=version)


def spec(builder: str, more: str = "") -> None:
    Path("models.yaml").write_text(
        f"models: {{m: {{onnx: '{SIMPLENET}', target: tensorrt_rtx, builder: {builder}{more}}}}}\n"
    )


def build(gen_repo: GenRepo, repository: str = "repository") -> Outcome:
    outcome = gen_repo("models.yaml", "-o", repository)
    assert outcome.code == 0, outcome
    return outcome


def test_a_plan_follows_from_its_plugins(gen_repo: GenRepo) -> None:
    spec("{plugins: [libmine.so]}")
    compile_library(1)
    build(gen_repo)
    assert "up to date" in build(gen_repo).out
    first = Path("libmine.so").read_bytes()
    compile_library(2)
    outcome = gen_repo("models.yaml", "-o", "repository", "--json")
    (model,) = json.loads(outcome.out)
    (plan,) = [stage for stage in model["stages"] if stage["stage"] == "plan"]
    assert (plan["ran"], plan["why"]) == (True, ["libmine.so: other bytes"])
    libraries = [Path(f"repository/m/{number}/libmine.so") for number in (1, 2)]
    assert [path.read_bytes() for path in libraries] == [first, Path("libmine.so").read_bytes()]


def test_a_missing_plugin_is_told_although_the_plan_without_it_is_known(gen_repo: GenRepo) -> None:
    spec("{}")
    assert gen_repo("models.yaml", "-o", "without").code == 0
    spec("{plugins: [libmine.so]}")
    outcome = gen_repo("models.yaml", "-o", "missing")
    assert (outcome.code, "there is no plugin library" in outcome.err) == (1, True), outcome
    assert not Path("missing").exists()
    compile_library(1)
    assert gen_repo("models.yaml", "-o", "repository").code == 0
    Path("libmine.so").unlink()
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert (outcome.code, "there is no plugin library" in outcome.err) == (1, True), outcome


def test_a_repository_brings_the_libraries_that_its_plans_need(gen_repo: GenRepo) -> None:
    spec("{plugins: [libmine.so]}")
    compile_library()
    build(gen_repo)
    copied = Path("repository/m/1/libmine.so")
    assert copied.read_bytes() == Path("libmine.so").read_bytes()
    parameters = read_config(Path("repository/m")).parameters
    assert parameters["plugins"].string_value == "libmine.so"
    assert gen_repo("check", "repository").code == 0
    copied.write_bytes(b"other")
    found = gen_repo("check", "repository")
    assert (found.code, "m/1/libmine.so: the file is not what gen-repo" in found.out) == (1, True)
    copied.unlink()
    found = gen_repo("check", "repository")
    assert (found.code, "m/1/libmine.so: the file that the config names" in found.out) == (1, True)


def test_two_libraries_of_one_name_are_warned_of(gen_repo: GenRepo) -> None:
    for name, version in (("a", 1), ("b", 2)):
        Path(name).mkdir()
        compile_plugin(Path(name) / "libmine.so", version=version)
    models = (
        f"{name}: {{onnx: '{SIMPLENET}', target: tensorrt_rtx, "
        f"builder: {{plugins: [{name}/libmine.so]}}}}"
        for name in "ab"
    )
    Path("models.yaml").write_text(f"models: {{{', '.join(models)}}}\n")
    build(gen_repo)
    assert "0 warnings" in gen_repo("check", "repository").out  # of TensorRT for RTX
    as_tensorrt(Path("repository"), "9.0")
    found = gen_repo("check", "repository")
    assert found.code == 0
    assert "warning b/1/libmine.so: a/1/libmine.so holds other bytes" in found.out


def test_a_model_that_is_checked_before_it_is_converted(gen_repo: GenRepo) -> None:
    """One process loads the library for the check and for the build; TensorRT takes it once."""
    spec("{plugins: [libmine.so]}", ", precision: fp16")
    compile_library()
    build(gen_repo)


def test_a_library_that_registers_its_plugins_when_it_is_opened(gen_repo: GenRepo) -> None:
    spec("{plugins: [libmine.so]}")
    compile_plugin(Path("libmine.so"), when_opened=True)
    build(gen_repo)


@pytest.mark.parametrize("when_opened", [True, False])
def test_the_report_names_libraries_that_have_to_be_asked(
    when_opened: bool, tmp_path: Path
) -> None:
    """Triton's TensorRT backend opens a library and does no more."""
    library = compile_plugin(tmp_path / "libmine.so", when_opened=when_opened)
    options = EngineOptions(plugins=(library,))
    shapes = ({"input": ShapeRange((1, 784), (1, 784), (1, 784))},)
    request = EngineRequest("tensorrt_rtx", SIMPLENET, tmp_path / "m.plan", shapes, options)
    assert build_engine(request).deferred_plugins == (() if when_opened else ("libmine.so",))


def test_a_library_without_plugins(gen_repo: GenRepo, tmp_path: Path) -> None:
    spec("{plugins: [libmine.so]}")
    source = ["-x", "c++", "/dev/null"]
    subprocess.run(["g++", "-shared", "-fPIC", "-o", "libmine.so", *source], check=True)
    outcome = gen_repo("models.yaml", "-o", "repository")
    told = f"the plugin library {tmp_path}/libmine.so registers no plugin with TensorRT: "
    assert (outcome.code, told in outcome.err) == (1, True), outcome


@pytest.mark.parametrize(
    ("plugins", "message"),
    [
        ("['a;b.so']", "plugin library a;b.so: its name goes onto the server's command line"),
        ("[model.plan]", "end it with .so"),
        ("[a/x.so, b/x.so]", "a/x.so and b/x.so have one name"),
    ],
)
def test_names_that_cannot_lie_beside_the_plan(
    gen_repo: GenRepo, plugins: str, message: str
) -> None:
    spec(f"{{plugins: {plugins}}}")
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert outcome.code == 1
    assert message in " ".join(outcome.err.split())


def test_merged_plans_keep_their_libraries(gen_repo: GenRepo) -> None:
    spec("{plugins: [libmine.so]}")
    compile_library()
    for gpu in ("8.0", "9.0"):
        build(gen_repo, gpu)
        as_tensorrt(Path(gpu), gpu)
    assert gen_repo("merge", "8.0", "9.0", "-o", "merged").code == 0
    files = {path.name for path in Path("merged/m/1").iterdir()}
    assert files == {"model_8_0.plan", "model_9_0.plan", "libmine.so"}
    assert gen_repo("check", "merged").code == 0


def test_a_build_into_merged_plans_keeps_their_libraries(gen_repo: GenRepo) -> None:
    spec("{plugins: [libmine.so]}")
    compile_library()
    for gpu in ("8.0", "9.0"):
        build(gen_repo, gpu)
        mine = read_lock(Path(gpu)).models["m"]
        as_tensorrt(Path(gpu), gpu)
    assert gen_repo("merge", "8.0", "9.0", "-o", "merged").code == 0

    def built_here(models: dict[str, Any]) -> None:
        models["m"]["plans"]["9.0"].update(key=mine.key, artifact=mine.artifact)

    edit_lock(Path("merged"), built_here)
    spec("{plugins: [libmine.so]}", ", batching: {max_delay_us: 300}")
    build(gen_repo, "merged")
    model = read_lock(Path("merged")).models["m"]
    assert {"1/model_8_0.plan", "1/model_9_0.plan", "1/libmine.so"} < model.files.keys()


# The process that runs a plan may be another than the one that built it.
_ASK = """
from pathlib import Path
import tensorrt_rtx
from tritonsmith_generator.trt import builder
from tritonsmith_generator.trt.request import PlanQuestion
plan, library = Path("repository/m/1/model.plan"), Path("libmine.so")
builder.ask(PlanQuestion("tensorrt_rtx", plan, (), (library,)), print)
print([creator.name for creator in tensorrt_rtx.get_plugin_registry().all_creators])
"""


def test_a_plan_that_is_compared_gets_its_libraries(gen_repo: GenRepo) -> None:
    spec("{plugins: [libmine.so]}")
    compile_library()
    build(gen_repo)
    command = [sys.executable, "-c", _ASK]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "'Mine'" in done.stdout.splitlines()[-1]


def test_a_plan_with_a_runtime_of_its_own_is_marked(gen_repo: GenRepo) -> None:
    spec("{version_compatible: true, exclude_lean_runtime: true}")
    build(gen_repo)
    parameters = read_config(Path("repository/m")).parameters
    assert parameters["version-compatible"].string_value == "true"


def test_a_plan_without_its_weights_is_warned_of(gen_repo: GenRepo) -> None:
    """TensorRT for RTX leaves them out on a machine with a GPU only."""
    spec("{strip_plan: true}")
    planned = gen_repo("models.yaml", "-o", "repository", "--dry-run")
    assert (planned.code, "strip_plan leaves the weights out" in planned.out) == (0, True)
    spec("{}")
    assert "strip_plan" not in gen_repo("models.yaml", "-o", "repository", "--dry-run").out
    build(gen_repo)
    as_tensorrt(Path("repository"), "9.0", builder={"strip_plan": True})
    found = gen_repo("check", "repository")
    assert (found.code, "m/1: strip_plan leaves the weights out" in found.out) == (0, True), found
