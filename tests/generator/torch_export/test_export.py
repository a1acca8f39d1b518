"""PyTorch to ONNX, with real exports and real comparisons; the slow exporter runs where it must."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
from support.harness.paths import MODEL_REPOSITORY as MODELS

from tritonsmith_generator.errors import HostError, InputError, UsageError
from tritonsmith_generator.host.user_code import call_factory
from tritonsmith_generator.onnx_model.reference import run
from tritonsmith_generator.torch_export.export import export

needs_torch = pytest.mark.skipif(
    find_spec("torch") is None or find_spec("onnxscript") is None,
    reason="PyTorch is not installed: pip install 'tritonsmith[torch]'",
)

FACTORIES = """
import torch
from torch import nn
from tritonsmith_generator.torch_export.export import Export

class Doubled(nn.Module):
    def forward(self, image):
        return {"doubled": image * 2, "rows": image.sum(1).long()}

class Sized(nn.Module):
    def forward(self, x):
        return x * 2 if x.shape[0] == 2 else x * 3

class Decides(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else x + 1

class Added(nn.Module):
    def forward(self, a, b):
        return a + b

class Broken(nn.Module):
    def forward(self, x):
        raise RuntimeError("the wheel fell off")

class Lowered(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4).bfloat16()

    def forward(self, x):
        return self.linear(x.bfloat16()).float()

class Wrapped(nn.Module):
    def forward(self, x):
        return "text"

def alone(): return Doubled()
def pair(): return Doubled(), torch.ones(2, 3)
def dynamic(): return Doubled(), [torch.ones(2, 3)], {"image": {0: "batch"}}
def unnamed(): return Doubled(), [torch.ones(2, 3)], {"image": [0]}
def by_place(): return Doubled(), [torch.ones(2, 3)], [{0: "batch"}]
def reversed(): return [torch.ones(2, 3)], Doubled(), {"image": {0: "batch"}}
def four(): return Doubled(), [torch.ones(2, 3)], {"image": {0: "batch"}}, ["a"]
def sized(): return Export(Sized(), [torch.ones(2, 3)], {"x": {0: "batch"}})
def decides(): return Decides(), [torch.ones(2, 3)]
def linear(): return nn.Linear(30, 40), torch.randn(2, 30)
def unequal():
    axes = {0: "batch"}
    return Export(Added(), [torch.ones(2, 3), torch.ones(4, 3)], {"a": axes, "b": axes})
def broken(): return Broken(), torch.ones(2)
def wrapped(): return Wrapped(), torch.ones(2)
def bfloat(): return nn.Linear(3, 4).bfloat16(), torch.ones(2, 3).bfloat16()
def lowered(): return Lowered(), torch.ones(2, 3)
def number(): return 7
def raises(): raise ValueError("no weights")
"""


@pytest.fixture
def factories(tmp_path: Path) -> str:
    """Path of a file of factories, in a folder of its own."""
    folder = tmp_path / "source"
    folder.mkdir()
    path = folder / "factories.py"
    path.write_text(FACTORIES)
    return str(path)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Where to export to: a folder with nothing else in it."""
    folder = tmp_path / "output"
    folder.mkdir()
    return folder / "model.onnx"


def shapes(path: Path) -> dict[str, list[int | str]]:
    graph = onnx.load(path).graph
    return {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }


@needs_torch
def test_the_checked_in_text_encoder_is_what_its_source_exports(output: Path) -> None:
    exported = export(f"{MODELS / 'text_encoder.py'}:text_encoder", output)

    assert exported.max_difference < 1e-6
    assert [dict(check.sizes) for check in exported.checks] == [
        {"batch": 2, "sequence": 16},
        {"batch": 3, "sequence": 15},
    ]
    assert shapes(output) == {
        "input_ids": ["batch", "sequence"],
        "attention_mask": ["batch", "sequence"],
        "embedding": ["batch", 128],
    }
    tokens = np.random.default_rng(1).integers(0, 2000, (5, 7))
    inputs = {"input_ids": tokens, "attention_mask": np.ones_like(tokens)}
    kept = run(MODELS / "text_encoder.onnx", inputs)["embedding"]
    np.testing.assert_allclose(run(output, inputs)["embedding"], kept, atol=1e-6)


@pytest.mark.parametrize("name", ["simplenet", "text_encoder"])
def test_a_checked_in_model_says_where_it_comes_from(name: str) -> None:
    model = onnx.load(MODELS / f"{name}.onnx")

    metadata = {entry.key: entry.value for entry in model.metadata_props}
    source = re.search(r"model_repository/(\w+\.py)", metadata["origin"])
    assert source and (MODELS / source[1]).is_file()
    assert metadata.get("accuracy", "") in (MODELS / "ORIGIN.md").read_text().replace(" %", "%")


@needs_torch
def test_mobilenet_v2_exports_with_a_dynamic_batch(output: Path) -> None:
    exported = export(f"{MODELS / 'mobilenet_v2.py'}:mobilenet_v2", output, legacy=True)

    assert shapes(output) == {"image": ["batch", 3, 224, 224], "logits": ["batch", 1000]}
    assert exported.max_difference < 1e-4
    assert np.ptp(run(output, {"image": np.ones((1, 3, 224, 224), np.float32)})["logits"]) > 0.1


@needs_torch
@pytest.mark.parametrize("legacy", [False, True])
def test_a_bare_module_with_a_described_input(factories: str, output: Path, legacy: bool) -> None:
    exported = export(
        f"{factories}:alone",
        output,
        inputs={"image": "FP32[1,3]"},
        dynamic={"image": {0: "batch"}},
        legacy=legacy,
    )

    model = onnx.load(output)
    assert model.opset_import[0].version == exported.opset == (17 if legacy else 18)
    assert shapes(output) == {"image": ["batch", 3], "doubled": ["batch", 3], "rows": ["batch"]}
    image = np.arange(12, dtype=np.float32).reshape(4, 3)
    found = run(output, {"image": image})
    np.testing.assert_array_equal(found["doubled"], image * 2)
    np.testing.assert_array_equal(found["rows"], [3, 12, 21, 30])
    assert b"factories.py" not in output.read_bytes()  # torch writes source paths


@needs_torch
def test_a_factory_says_the_dynamic_axes_too(factories: str, output: Path) -> None:
    exported = export(f"{factories}:dynamic", output, legacy=True)

    assert shapes(output)["image"] == ["batch", 3]
    assert [dict(check.sizes) for check in exported.checks[::2]] == [{"batch": 2}, {"batch": 3}]


@needs_torch
def test_output_names_can_be_chosen(factories: str, output: Path) -> None:
    export(f"{factories}:pair", output, outputs=["a", "b"], legacy=True)

    assert shapes(output) == {"image": [2, 3], "a": [2, 3], "b": [2]}


@needs_torch
@pytest.mark.parametrize("legacy", [False, True])
def test_large_weights_lie_beside_the_model(factories: str, output: Path, legacy: bool) -> None:
    exported = export(f"{factories}:linear", output, legacy=legacy, embed_limit=0)

    assert set(exported.files) == set(output.parent.iterdir())
    assert len(exported.files) > 1
    assert len({path.stat().st_mode for path in exported.files}) == 1
    assert run(output, {"input": np.ones((2, 30), np.float32)})["output"].shape == (2, 40)


@needs_torch
def test_a_difference_from_torch_writes_nothing(factories: str, output: Path) -> None:
    # Tracing follows one branch, the one for two rows: at three rows the graph is wrong.
    with pytest.raises(
        InputError, match=r"not written: output 'output' differs from torch by 1 at batch=3"
    ):
        export(f"{factories}:sized", output, legacy=True)

    assert list(output.parent.iterdir()) == []


@needs_torch
@pytest.mark.parametrize(
    ("factory", "options", "message"),
    [
        ("decides", {}, "torch cannot export the module: Could not guard on data-dependent"),
        ("alone", {}, r"no example inputs for forward\(image\)"),
        ("alone", {"inputs": {"img": "FP32[1]"}}, "'img'; the inputs are: image"),
        ("alone", {"inputs": {"image": "FP31[1]"}}, "no type 'FP31'; BOOL, UINT8"),
        ("alone", {"inputs": {"image": "a lot"}}, "or a text like FP32"),
        ("pair", {"dynamic": {"img": {0: "batch"}}}, "'img'; the inputs are: image"),
        ("pair", {"dynamic": {"image": {2: "batch"}}}, r"no axis 2; its shape is \[2, 3\]"),
        ("pair", {"outputs": ["a"]}, "the module has 2 outputs"),
        ("pair", {"outputs": ["a", "a"]}, "2 outputs, which need as many different names"),
        ("unequal", {}, "axis 'batch' is 2 in one example input and 4 in axis 0 of 'b'"),
        ("broken", {}, r"the module itself fails on inputs of shape x \[2\]: the wheel fell"),
        ("wrapped", {}, "the module returns str"),
        ("bfloat", {}, "is torch.bfloat16.*export in float32"),
        ("lowered", {"legacy": True}, "written: the exported graph: ONNX Runtime cannot load it"),
        ("number", {}, r"factories.py:number returned int; a factory returns a torch.nn.Module"),
        ("unnamed", {}, r"dynamic axes are {'image': \[0\]}; they are given by input, each with "),
        ("by_place", {}, r"dynamic axes are \[{0: 'batch'}\]; .* name: {'image': {0: 'batch'}}"),
        ("reversed", {}, r"reversed returned \(list, Doubled, dict\); a factory returns .*, \(mo"),
        ("four", {}, r"four returned \(Doubled, list, dict, list\); .*Export, which also names "),
    ],
)
def test_what_cannot_be_exported_says_why(
    factories: str, output: Path, factory: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        export(f"{factories}:{factory}", output, **options)  # type: ignore[arg-type]

    assert "\n" not in str(caught.value)
    assert list(output.parent.iterdir()) == []


@needs_torch
def test_a_file_is_replaced_only_by_force(factories: str, output: Path) -> None:
    output.write_text("precious")
    with pytest.raises(UsageError, match="exists; --force replaces it"):
        export(f"{factories}:pair", output, legacy=True)
    assert output.read_text() == "precious"

    export(f"{factories}:pair", output, legacy=True, force=True)
    assert list(shapes(output)) == ["image", "doubled", "rows"]


@needs_torch
def test_the_output_folder_must_exist(output: Path) -> None:
    with pytest.raises(UsageError, match="the folder of .* does not exist"):
        export("module:factory", output / "deeper" / "model.onnx")


@pytest.mark.parametrize("absent", ["torch", "onnxscript"])
def test_without_torch_the_message_is_the_pip_command(
    monkeypatch: pytest.MonkeyPatch, output: Path, absent: str
) -> None:
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(HostError, match=rf"{absent}.*: pip install 'tritonsmith\[torch\]'"):
        export("module:factory", output)


@pytest.mark.parametrize(
    ("reference", "error", "message"),
    [
        ("factory", UsageError, "names no factory; write package.module:factory or file.py"),
        ("absent.py:factory", InputError, "there is no file absent.py"),
        ("no_such_module:f", InputError, "there is no module 'no_such_module'"),
        ("json.absent:f", InputError, "there is no module 'json.absent'"),
        ("good.py:absent", InputError, "good.py has no callable 'absent'; it defines: factory"),
        ("good:absent", InputError, "good has no callable 'absent'; it defines: factory"),
        ("raises.py:factory", InputError, "factory raised ValueError: no weights"),
        ("needs.py:factory", InputError, "needs.py needs 'no_such_package', which is not inst"),
        ("needs:factory", InputError, "needs needs 'no_such_package', which is not installed"),
        ("invalid.py:factory", InputError, "invalid.py raised SyntaxError"),
        ("invalid:factory", InputError, "importing invalid raised SyntaxError"),
    ],
)
def test_a_factory_that_cannot_be_called_says_why(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    reference: str,
    error: type[Exception],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("good.py").write_text("from json import loads\n\ndef factory(): return 1\n")
    Path("raises.py").write_text("def factory(): raise ValueError('no weights')\n")
    Path("needs.py").write_text("import no_such_package\n")
    Path("invalid.py").write_text("def factory(:\n")
    with pytest.raises(error, match=message):
        call_factory(reference)
    for name in ("good", "needs", "invalid"):
        sys.modules.pop(name, None)


def test_a_factory_file_imports_its_neighbors_and_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Triton would take a __pycache__ in a model repository for a model.
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    (tmp_path / "neighbor_of_factory.py").write_text("VALUE = 7\n")
    source = tmp_path / "with_neighbor.py"
    source.write_text("from neighbor_of_factory import VALUE\n\ndef factory(): return VALUE\n")

    before = list(sys.path)
    assert call_factory(f"{source}:factory") == 7
    assert sys.path == before
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    for name in ("neighbor_of_factory", "with_neighbor"):
        sys.modules.pop(name)


def gen_repo(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tritonsmith_generator", "export", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


@needs_torch
def test_the_command_exports_a_module_that_lies_in_the_current_folder(factories: str) -> None:
    folder = Path(factories).parent
    options = ("--input", "image=FP32[1, 3]", "--dynamic", "image:0=batch", "--legacy")
    done = gen_repo("factories:alone", *options, cwd=folder)

    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"doubled +batch=3 +0\b", done.stdout)
    assert shapes(folder / "alone.onnx")["image"] == ["batch", 3]


@needs_torch
def test_the_command_says_that_every_axis_is_fixed(factories: str) -> None:
    done = gen_repo("factories:pair", "--legacy", cwd=Path(factories).parent)

    assert done.returncode == 0, done.stderr
    assert "Every axis is fixed; --dynamic NAME:0=batch makes" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("factory",), 2, "gen-repo: 'factory' names no factory"),
        (("a.py:b", "--dynamic", "image=batch"), 2, "write it as image:0=batch"),
        (("a.py:b", "--input", "image"), 2, "write it as image=FP32[1,3,224,224]"),
        (("a.py:b",), 1, "gen-repo: there is no file a.py"),
    ],
)
@needs_torch
def test_the_command_exits_with_the_code_of_the_error(
    tmp_path: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    done = gen_repo(*arguments, cwd=tmp_path)

    assert (done.returncode, done.stdout) == (code, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
