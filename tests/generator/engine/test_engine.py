"""Real engine builds with TensorRT for RTX, which builds without a GPU."""

from __future__ import annotations

import importlib.util
import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from onnx import TensorProto, helper
from support.harness.needs import needs_rtx
from support.onnx import bad_models
from support.onnx import engine_models as models
from support.trt.engine_builds import (
    assert_refused,
    batches,
    both,
    build_engine,
    request,
    unsupported_nodes,
)

from tritonsmith_client.dtypes import from_wire
from tritonsmith_generator.errors import HostError, InputError
from tritonsmith_generator.onnx_model.profiles import Profile, ShapeRange, check_profiles
from tritonsmith_generator.onnx_model.signature import Signature, Tensor
from tritonsmith_generator.trt.request import Progress

pytestmark = needs_rtx


def test_a_static_model_with_progress(tmp_path: Path) -> None:
    events: list[Progress] = []
    build = request(models.LIGHT / "light_squeezenet.onnx", tmp_path)
    report = build_engine(build, events.append)
    assert report.plan_bytes == build.plan.stat().st_size > 1_000_000
    assert list(tmp_path.iterdir()) == [build.plan]
    assert report.library == "tensorrt_rtx"
    assert report.version.startswith("1.")
    assert report.layers > 60
    assert report.seconds > 0
    assert [str(tensor) for tensor in report.signature.inputs] == ["data_0: FP32[1, 3, 224, 224]"]
    assert [tensor.dims for tensor in report.signature.outputs] == [(1, 1000, 1, 1)]

    open_phases: list[str] = []
    for event in events:
        if event.state == "start":
            assert event.parent == (open_phases[-1] if open_phases else None)
            open_phases.append(event.phase)
        elif event.state == "finish":
            assert open_phases.pop() == event.phase
        else:
            assert event.phase in open_phases
            assert event.steps is not None and 0 <= event.step <= event.steps
    assert open_phases == []
    assert "Cloning network graph" in {event.phase for event in events}


def test_a_dynamic_model_with_integers_and_two_profiles(tmp_path: Path) -> None:
    profiles = (both((1, 1), (4, 16), (8, 64)), both((1, 64), (1, 64), (1, 128)))
    one = build_engine(request(models.encoder(tmp_path / "m.onnx"), tmp_path, profiles[0]))
    report = build_engine(request(tmp_path / "m.onnx", tmp_path, *profiles))
    assert report.profiles == profiles
    assert report.plan_bytes > one.plan_bytes
    assert list(map(str, report.signature.inputs)) == [
        "ids: INT64[batch, seq]",
        "mask: FP32[batch, seq]",
    ]
    assert report.signature.output("y").dims == (-1, -1, 8)


def test_double_is_reported_as_the_float_it_becomes(tmp_path: Path) -> None:
    report = build_engine(request(models.double_input(tmp_path / "m.onnx"), tmp_path))
    assert str(report.signature.input("x")) == "x: FP32[4]"


def test_external_data(tmp_path: Path) -> None:
    onnx = models.two_layers(tmp_path / "m.onnx", external=True)
    assert onnx.stat().st_size < 2000
    report = build_engine(request(onnx, tmp_path, batches(1, 4, 8)))
    assert report.plan_bytes > (tmp_path / "weights.bin").stat().st_size


def test_missing_external_data_names_the_model(tmp_path: Path) -> None:
    onnx = models.two_layers(tmp_path / "m.onnx", external=True)
    (tmp_path / "weights.bin").unlink()
    assert_refused(request(onnx, tmp_path, batches(1, 4, 8)), InputError, "m.onnx")


def test_unsupported_nodes_are_listed_all(tmp_path: Path) -> None:
    onnx = models.unsupported(tmp_path / "m.onnx")
    listed = [
        "node 1 'determinant' (Det)",
        "node 2 'custom' (Sharpen)",
        "node 3 '' (Unique)",
    ]
    assert_refused(request(onnx, tmp_path), InputError, "TensorRT for RTX", "m.onnx", *listed)
    found = unsupported_nodes("tensorrt_rtx", onnx)
    assert [(node.index, node.operator) for node in found] == [
        (1, "Det"),
        (2, "Sharpen"),
        (3, "Unique"),
    ]
    assert unsupported_nodes("tensorrt_rtx", models.LIGHT / "light_squeezenet.onnx") == ()


def test_an_operator_that_tensorrt_says_it_has_and_cannot_read(tmp_path: Path) -> None:
    """TensorRT for RTX's supports_operator is True for NonZero; its parser then lacks a plugin."""
    onnx = models.save(
        tmp_path / "m.onnx",
        [
            helper.make_node("NonZero", ["x"], ["y"], "where"),
            helper.make_node("Cast", ["y"], ["z"], to=1),
        ],
        {"x": (TensorProto.FLOAT, [8])},
        ["z"],
    )
    assert_refused(request(onnx, tmp_path), InputError, "m.onnx", "node 0 'where' (NonZero)")


def test_the_second_build_of_a_process_has_its_own_messages(tmp_path: Path) -> None:
    """TensorRT keeps the first logger of a process, whatever it is given later."""
    onnx = models.two_layers(tmp_path / "m.onnx")
    script = """
import sys
from pathlib import Path
from tritonsmith_generator.trt.request import EngineOptions, EngineRequest
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model.profiles import ShapeRange
from tritonsmith_generator.trt.builder import build
profile = {"x": ShapeRange((1, 256), (4, 256), (8, 256))}
for options in ({"memory_pools": {"workspace": 0}}, {"compute_capabilities": ("7.5",)}):
    request = EngineRequest("tensorrt_rtx", Path(sys.argv[1]), Path(sys.argv[2]), (profile,),
                            EngineOptions(**options))
    try:
        build(request, lambda progress: None)
    except InputError as exc:
        print(repr(str(exc)))
"""
    command = [sys.executable, "-c", script, str(onnx), str(tmp_path / "model.plan")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert "workspace 0 bytes" in first and "SM75" not in first
    assert "SM75" in second and "workspace" not in second.lower()


def test_a_dynamic_model_without_a_profile_names_the_inputs(tmp_path: Path) -> None:
    build = request(models.encoder(tmp_path / "m.onnx"), tmp_path)
    assert_refused(build, InputError, "no profile", "ids: INT64[batch, seq]")


def test_an_input_whose_values_are_a_shape(tmp_path: Path) -> None:
    shapes: Profile = {"x": ShapeRange((1,), (6,), (12,)), "target": ShapeRange((2,), (2,), (2,))}
    build = request(models.reshaping(tmp_path / "m.onnx"), tmp_path, shapes)
    assert_refused(build, InputError, "the values of target decide the shapes of other tensors")
    assert_refused(replace(build, values=({},)), InputError, "the values of 'target'")
    values: Profile = {"target": ShapeRange((1, 1), (2, 3), (12, 12))}
    report = build_engine(replace(build, values=(values,)))
    assert report.signature.output("y").dims == (-1, -1)


X = Tensor("x", from_wire("FP32"), ("batch", 3, "width"))


@pytest.mark.parametrize(
    ("profile", "text"),
    [
        ({}, "profile 0 has no shapes for the dynamic input x: FP32[batch, 3, width]"),
        ({"z": ShapeRange((1,), (1,), (1,))}, "profile 0 names input 'z', which the model has not"),
        (
            {"x": ShapeRange((1, 3), (1, 3, 8), (1, 3, 8))},
            "min is [1, 3], of rank 2; the input has rank 3",
        ),
        (
            {"x": ShapeRange((1, 3, 8), (1, 4, 8), (1, 3, 8))},
            "opt is [1, 4, 8], with 4 on axis 1; the model fixes that axis at 3",
        ),
        (
            {"x": ShapeRange((1, 3, 8), (1, 3, 9), (1, 3, 7))},
            "on axis 2 min, opt and max are 8, 9 and 7",
        ),
        ({"x": ShapeRange((-1, 3, 8), (1, 3, 9), (1, 3, 9))}, "on axis 0 min, opt and max are -1"),
    ],
)
def test_profiles_that_do_not_suit(profile: Profile, text: str) -> None:
    with pytest.raises(InputError) as caught:
        check_profiles(Signature((X,), ()), (profile,))
    assert text in str(caught.value)


def test_nothing_heavy_is_imported_before_tensorrt() -> None:
    """A build waits for it: the rest is imported while TensorRT parses."""
    script = (
        "import sys; from tritonsmith_generator.engine import process\n"
        "from tritonsmith_generator.trt import builder\n"
        "print(sys.modules.keys() & {'email', 'ml_dtypes', 'numpy', 'onnx', 'pydantic', 'uuid'})"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"


def test_missing_files_are_named(tmp_path: Path) -> None:
    absent = tmp_path / "absent.onnx"
    assert_refused(request(absent, tmp_path), InputError, f"there is no model file {absent}")
    build = request(models.LIGHT / "light_squeezenet.onnx", tmp_path / "nowhere")
    assert_refused(build, InputError, "there is no folder")


def test_a_library_that_is_not_installed(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorrt") is not None:
        pytest.skip("tensorrt is installed here")
    build = replace(request(models.LIGHT / "light_squeezenet.onnx", tmp_path), library="tensorrt")
    assert_refused(build, HostError, "pip install 'tritonsmith[tensorrt]'")


def test_a_failed_build_leaves_the_plan_that_was_there(tmp_path: Path) -> None:
    build = request(models.two_layers(tmp_path / "m.onnx"), tmp_path, batches(1, 4, 8))
    build.plan.write_text("of an earlier build")
    with pytest.raises(InputError):
        build_engine(replace(build, profiles=()))
    assert build.plan.read_text() == "of an earlier build"
    assert build_engine(build).plan_bytes == build.plan.stat().st_size


def test_a_full_disk_leaves_no_half_plan(tmp_path: Path) -> None:
    """A limit on the size of files, which the child inherits, stands for a full disk."""
    build = request(models.two_layers(tmp_path / "m.onnx"), tmp_path, batches(1, 4, 8))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        assert_refused(build, HostError, "cannot write", "File too large")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_ctrl_c_stops_the_build_and_leaves_nothing(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from tritonsmith_generator.engine.toolchain import LOCAL
from tritonsmith_generator.trt.request import EngineRequest
request = EngineRequest("tensorrt_rtx", Path({str(models.LIGHT / "light_densenet121.onnx")!r}),
                        Path({str(tmp_path / "model.plan")!r}))
try:
    with LOCAL.process("tensorrt_rtx") as process:
        process.build(request, lambda progress: print(progress, flush=True))
except KeyboardInterrupt:
    sys.exit(130)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        for line in parent.stdout:
            if "Optimizing graph" in line:
                break
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        assert len(children) == 1
        parent.send_signal(signal.SIGINT)
        parent.stdout.read()
        assert parent.wait(10) == 130
    assert not Path("/proc", children[0]).exists()
    assert list(tmp_path.iterdir()) == []


# In the place of TensorRT: it notes what was loaded before it, and does not load.
NOTE_MODULES = """
import json, os, sys
if not os.path.exists(os.environ["LOADED"]):  # the first time
    with open(os.environ["LOADED"], "w") as file:
        json.dump(sorted(sys.modules), file)
raise ImportError("seen enough")
"""


def test_tensorrt_loads_before_what_can_wait(tmp_path: Path) -> None:
    """It takes seconds to load, and no build can be quicker."""
    (tmp_path / "tensorrt_rtx.py").write_text(NOTE_MODULES)
    bad_models.saved(bad_models.good())(tmp_path)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "LOADED": str(tmp_path / "loaded.json"),
    }
    command = [sys.executable, "-m", "tritonsmith_generator", "build", "model.onnx"]
    done = subprocess.run(
        [*command, "--target", "tensorrt_rtx", "-o", "repository"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    assert "its libraries do not load: seen enough" in done.stderr
    loaded = {*json.loads((tmp_path / "loaded.json").read_text())}
    heavy = {"numpy", "onnx", "onnxruntime", "pydantic", "typer", "multiprocessing", "dataclasses"}
    assert loaded & heavy == set()
    assert "tritonsmith_generator.trt.builder" not in loaded
