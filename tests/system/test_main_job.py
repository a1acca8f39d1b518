"""The main job: what gen-repo builds, a real tritonserver serves and our client calls.

Every output is compared with ONNX Runtime, run directly on the same input.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tritonsmith_client import Client
from tritonsmith_generator.onnx_model.case_file import Case, case_path, load_cases, write_cases
from tritonsmith_generator.onnx_model.reference import Reference
from tritonsmith_generator.repository.inspect import inspect_model, model_folders
from tritonsmith_generator.serve import Server

SPEC = Path(__file__).parents[2] / "model_repository" / "models.yaml"
SERVED = ("light_densenet121", "light_resnet50", "light_squeezenet", "simplenet", "text_encoder")


def gen_repo(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tritonsmith_generator", *map(str, arguments)],
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's models, built by the command."""
    path = tmp_path_factory.mktemp("main_job") / "model_repository"
    done = gen_repo("build", SPEC, "-o", path)
    assert done.returncode == 0, done.stdout + done.stderr
    return path


@pytest.fixture(scope="module")
def server(repository: Path) -> Iterator[Server]:
    with Server(repository) as running:
        yield running


def test_the_whole_repository_is_there(repository: Path) -> None:
    names = {folder.name for folder in model_folders(repository)}
    assert names == {*SERVED, "simplenet_rtx"}
    assert (repository / "simplenet_rtx/1/model.plan").stat().st_size > 100_000


def test_the_server_loads_all_that_this_machine_can_run(server: Server) -> None:
    assert sorted({*server.models, *server.skipped}) == sorted({*SERVED, "simplenet_rtx"})
    assert set(SERVED) <= set(server.models)


@pytest.mark.parametrize("protocol", ["grpc", "http"])
@pytest.mark.parametrize("name", SERVED)
def test_every_output_is_onnx_runtimes_own(
    name: str, protocol: str, server: Server, repository: Path
) -> None:
    url = {"grpc": server.grpc_url, "http": server.http_url}[protocol]
    reference = Reference(repository / name / "1/model.onnx")
    random = np.random.default_rng(7)
    with Client(url) as client:
        model = client.model(name)
        inputs = {}
        for tensor in model.metadata.inputs:
            shape = [
                2 if axis == 0 and size < 0 else 5 if size < 0 else size
                for axis, size in enumerate(tensor.shape)
            ]
            values = (
                random.integers(0, 2, shape)
                if tensor.dtype.wire == "INT64"
                else (random.standard_normal(shape))
            )
            inputs[tensor.name] = values.astype(tensor.dtype.numpy)
        answer = model(inputs)
    expected = reference(inputs)
    assert set(answer) == set(expected)
    for output, want in expected.items():
        got = answer[output]
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        assert got.nbytes == want.nbytes > 0
        # The server's ONNX Runtime may be another release: the last bits may differ, no more.
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_simplenet_reads_digits(server: Server) -> None:
    """The trained network, served, sees the digits; more than agreeing with itself."""
    digits = load_digits()
    images = np.stack([upsampled(image / 16) for image in digits.images]).astype(np.float32)
    right = 0
    with Client(server.grpc_url) as client:
        model = client.model("simplenet")
        for start in range(0, len(images), 32):
            logits = model(images[start : start + 32].reshape(-1, 784))["output"]
            right += int((logits.argmax(1) == digits.target[start : start + 32]).sum())
    assert right / len(images) > 0.97


def upsampled(image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """8x8 to 28x28, bilinear between the centers of the pixels, as in train_simplenet.py."""
    at = (np.arange(28) + 0.5) * 8 / 28 - 0.5
    rows = np.stack([np.interp(at, np.arange(8), row) for row in image])
    return np.asarray(np.stack([np.interp(at, np.arange(8), c) for c in rows.T]).T)


def test_check_live_proves_it(repository: Path) -> None:
    done = gen_repo("check", repository, "--live", "--json")
    assert done.returncode == 0, done.stderr
    live = {model["model"]: model for model in json.loads(done.stdout)["live"]}
    for name in SERVED:
        assert live[name]["problem"] is None
        assert live[name]["max_difference"] < 1e-4
        assert set(live[name]["latency_ms"]) == {"grpc", "http"}
    assert "NVIDIA GPU" in (live["simplenet_rtx"]["skipped"] or "NVIDIA GPU")


def test_a_flipped_byte_of_an_output_is_noticed(repository: Path, tmp_path: Path) -> None:
    """One bit of a recorded answer is turned over: the live check must fail on that model."""
    # Without its lock, which would notice the changed file before anything is served.
    alone = tmp_path / "model_repository"
    shutil.copytree(repository / "simplenet", alone / "simplenet")
    path = case_path(alone / "simplenet", 1)
    first, *rest = load_cases(path)
    output = first.outputs["output"].copy()
    output.view(np.uint8).reshape(-1)[3] ^= 0x40  # the exponent of the first number
    path.write_bytes(write_cases([Case(first.inputs, {"output": output}), *rest]))
    done = gen_repo("check", alone, "--live")
    assert done.returncode == 4, done.stdout + done.stderr
    assert "wrong simplenet: case 0 over grpc: output 'output': " in done.stdout


def test_metadata_and_config_are_what_was_built(server: Server, repository: Path) -> None:
    with Client(server.http_url) as client:
        for name in SERVED:
            built = inspect_model(repository / name)
            metadata = client.model(name).metadata
            assert [t.name for t in metadata.inputs] == [t.name for t in built.signature.inputs]
            assert [tuple(t.shape) for t in metadata.inputs] == [
                t.dims for t in built.signature.inputs
            ]
