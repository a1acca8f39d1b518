"""The modules that ``gen-repo stubs`` writes, used against a real server and read by mypy."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest
from support.harness.paths import CLIENT_MODELS as MODELS
from support.programs.command import run_gen_repo

from tritonsmith_client import AsyncClient, Client, InputError, UnknownOutputError
from tritonsmith_client.dtypes import DATA_TYPES

CONFIG = 'name: "{name}"\nbackend: "python"\nmax_batch_size: 4\n'


@pytest.fixture(scope="module")
def module_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stubs") / "triton_models.py"
    command = [sys.executable, "-m", "tritonsmith_generator", "stubs", str(MODELS), "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"classes for {len([*MODELS.iterdir()])} models" in done.stdout
    return path


@pytest.fixture(scope="module")
def models(module_path: Path) -> ModuleType:
    return _imported(module_path)


def test_a_call_takes_and_gives_arrays(client: Client, models: ModuleType) -> None:
    add_sub = models.AddSub.open(client)
    a, b = np.arange(16, dtype=np.int32)[None], np.full((1, 16), 3, np.int32)
    answer = add_sub(INPUT0=a, INPUT1=b)
    assert isinstance(answer, models.AddSubOutputs)
    np.testing.assert_array_equal(answer.SUM, a + b)
    np.testing.assert_array_equal(add_sub(a, b).DIFF, a - b)
    future = add_sub.submit(a, b)
    np.testing.assert_array_equal(future.result(30).SUM, a + b)


def test_every_data_type_comes_through(client: Client, models: ModuleType) -> None:
    given = {f"IN_{t.wire}": np.ones((2, 3), t.numpy) for t in DATA_TYPES if t.wire != "BYTES"}
    words = np.array([["a", "bc"], ["", "d"]])
    answer = models.Identity.open(client)(**given, IN_BYTES=words)
    for name, array in given.items():
        out = getattr(answer, name.replace("IN_", "OUT_"))
        assert out.dtype == array.dtype
        np.testing.assert_array_equal(out, array)
    assert answer.OUT_BYTES.tolist() == [[b"a", b"bc"], [b"", b"d"]]
    assert answer.OUT_BF16.dtype == ml_dtypes.bfloat16


def test_options_come_from_the_model_that_is_wrapped(client: Client, models: ModuleType) -> None:
    wishes = models.Wishes(client.model("wishes").using(id="seventeen"))
    assert b'"id": "seventeen"' in wishes(np.zeros(1, np.float32)).SAID[0]


def test_a_sequence_keeps_its_state(client: Client, models: ModuleType) -> None:
    with models.Accumulate.open(client).sequence() as track:
        sums = [track(VALUE=np.array([[n]], np.int32)).SUM.item() for n in (1, 2)]
        sums.append(track.end(np.array([[3]], np.int32)).SUM.item())
        with pytest.raises(InputError, match="has ended"):
            track(np.array([[4]], np.int32))
    assert sums == [1, 3, 6]


def test_a_sequence_of_a_decoupled_model_streams(url: str, models: ModuleType) -> None:
    def count(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int32]]:
        return np.array([[number]], np.int32)

    async def use() -> list[int]:
        async with AsyncClient(url, timeout=30) as client:
            model = await models.AsyncSteps.open(client)
            async with model.sequence() as track:
                found = [part.TOTAL.item() async for part in track.stream(count(2))]
                found += [part.TOTAL.item() async for part in track.end_stream(COUNT=count(1))]
        return found

    if url.startswith("http"):  # which has no streams in sequences
        return
    with Client(url, timeout=30) as client, models.Steps.open(client).sequence() as track:
        found = [part.TOTAL.item() for part in track.stream(COUNT=count(2))]
        found += [part.TOTAL.item() for part in track.end_stream(count(1))]
    assert found == asyncio.run(use()) == [1, 2, 3]


def test_an_optional_input_may_be_left_out(client: Client, models: ModuleType) -> None:
    """The server takes the request; this model then has no answer for what it was not given."""
    with pytest.raises(UnknownOutputError, match="OUT_BOOL"):
        models.Identity.open(client)(IN_FP32=np.zeros((1, 1), np.float32))


def test_a_cancelled_future_ends_its_call(client: Client, models: ModuleType) -> None:
    slow = models.Slow.open(client)
    tensor = client.model("slow").metadata.inputs[0]
    future = slow.submit(np.full(np.abs(tensor.shape), 20, tensor.dtype.numpy))
    assert future.cancel()
    with pytest.raises(BaseException) as raised:
        future.result(10)
    assert "ancel" in type(raised.value).__name__


def test_a_decoupled_model_streams(url: str, models: ModuleType) -> None:
    if url.startswith("http"):
        return  # its own tests say what a stream over HTTP is
    with Client(url, timeout=30) as client:
        repeat = models.Repeat.open(client)
        parts = repeat.stream(
            COUNT=np.array([3], np.int32),
            DELAY=np.array([0], np.float32),
            FAIL=np.array([False]),
        )
        assert [part.NUMBER.item() for part in parts] == [0, 1, 2]


def test_the_asynchronous_classes_do_the_same(url: str, models: ModuleType) -> None:
    async def use() -> None:
        async with AsyncClient(url, timeout=30) as client:
            add_sub = await models.AsyncAddSub.open(client)
            ones = np.ones((1, 16), np.int32)
            assert (await add_sub(ones, ones)).SUM.tolist() == [[2] * 16]
            accumulate = await models.AsyncAccumulate.open(client)
            async with accumulate.sequence() as track:
                assert (await track(np.array([[4]], np.int32))).SUM.item() == 4
                assert (await track.end(np.array([[5]], np.int32))).SUM.item() == 9
            if url.startswith("http"):
                return
            repeat = await models.AsyncRepeat.open(client)
            two, now, no = np.array([2], np.int32), np.zeros(1, np.float32), np.array([False])
            numbers = [part.NUMBER.item() async for part in repeat.stream(two, now, no)]
            assert numbers == [0, 1]

    asyncio.run(use())


def test_another_model_under_the_same_name_is_noticed(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    shutil.copytree(MODELS / "add_sub", tmp_path / "repo" / "add_sub")
    config = tmp_path / "repo" / "add_sub" / "config.pbtxt"
    config.write_text(config.read_text().replace("TYPE_INT32", "TYPE_FP32", 1))
    path = tmp_path / "stale.py"
    assert run_gen_repo(monkeypatch, capsys, "stubs", tmp_path / "repo", "-o", path).code == 0
    with pytest.raises(InputError, match=r"'INPUT0' INT32.*'INPUT0' FP32.*gen-repo stubs"):
        _imported(path).AddSub.open(client)


USE = """
import numpy as np
from tritonsmith_client import AsyncClient, Client
from triton_models import AddSub, Accumulate, AsyncAddSub, AsyncSteps, Repeat, Steps, Text

def use(client: Client) -> None:
    add_sub = AddSub.open(client)
    good = np.ones((1, 16), np.int32)
    floats = good.astype(np.float32)
    total: np.typing.NDArray[np.int32] = add_sub(good, INPUT1=good).SUM
    total = add_sub.submit(good, good).result().SUM
    Text.open(client)(np.array([["words"]]))
    with Accumulate.open(client).sequence() as track:
        total = track.end(good).SUM
    for part in Repeat.open(client).stream(good, np.ones(1, np.float32), np.array([True])):
        total = part.NUMBER
    with Steps.open(client).sequence() as steps:
        for step in steps.stream(COUNT=good):
            total = step.TOTAL

async def wait(client: AsyncClient) -> None:
    add_sub = await AsyncAddSub.open(client)
    total: np.typing.NDArray[np.int32] = (await add_sub(np.ones(1, np.int32), total)).SUM
    async with (await AsyncSteps.open(client)).sequence(id="one") as steps:
        async for step in steps.end_stream(total):
            total = step.TOTAL
"""
# A line of wrong code, and the kind of error that mypy has for it.
WRONG = {
    "add_sub(floats, good)": "arg-type",
    "add_sub(good)": "call-arg",
    "add_sub(good, INPUT2=good)": "call-arg",
    "add_sub(good, good).TOTAL": "attr-defined",
    "Repeat.open(client)(good)": "operator",
    "text: str = add_sub(good, good).SUM": "assignment",
}


def test_mypy_takes_right_code_and_refuses_wrong_code(module_path: Path, tmp_path: Path) -> None:
    shutil.copy(module_path, tmp_path)
    (tmp_path / "right.py").write_text(USE)
    head = USE.partition("    total")[0]
    wrong = head + "".join(f"    {line}\n" for line in WRONG)
    (tmp_path / "wrong.py").write_text(wrong)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--hide-error-context", "right.py", "wrong.py",
         "triton_models.py"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = [line for line in done.stdout.splitlines() if ": error:" in line]
    first = head.count("\n") + 1
    where = {int(line.split(":")[1]): line for line in found if line.startswith("wrong.py")}
    assert sorted(where) == [*range(first, first + len(WRONG))], done.stdout
    for number, kind in zip(sorted(where), WRONG.values(), strict=True):
        assert f"[{kind}]" in where[number]
    assert len(found) == len(WRONG), done.stdout


def test_the_module_is_formatted_and_lints_clean(module_path: Path) -> None:
    for arguments in (["format", "--check"], ["check", "--select", "E,F,I,UP,B,SIM,N999"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--isolated", "--line-length", "100"]
        done = subprocess.run(
            [*command, str(module_path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_names_that_python_does_not_take(tmp_path: Path) -> None:
    """Class, argument and attribute names; what goes over the wire is in the declaration."""
    tensors = ("input.1", "input_1", "class", "self", "2x", '"quoted\\', "inputs")
    for name in ("resnet-50", "resnet.50", "resnet_50_outputs", "1st", "none", "x", "AsyncX"):
        folder = tmp_path / "repo" / name
        (folder / "1").mkdir(parents=True)
        sides = "".join(
            f"{side} {{ name: {_quoted(t)} data_type: TYPE_FP32 dims: [1] }}\n"
            for side in ("input", "output")
            for t in tensors
        )
        (folder / "config.pbtxt").write_text(CONFIG.format(name=name) + sides)
    path = tmp_path / "odd.py"
    command = [sys.executable, "-m", "tritonsmith_generator", "stubs", str(tmp_path / "repo")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    path.write_text(done.stdout)
    module = _imported(path)
    assert set(module.__all__) == {
        prefix + name + suffix
        for name in (
            "Model1st",
            "None_",
            "Resnet50",
            "Resnet50_2",
            "Resnet50Outputs_2",
            "AsyncX",
            "X_2",
        )
        for prefix, suffix in (("", ""), ("", "Outputs"), ("Async", ""))
    }
    declared = module.Resnet50._declared
    assert tuple(declared.inputs) == tensors
    arguments = module.Resnet50.__call__.__annotations__
    assert [*arguments][:-1] == [
        "input_1", "input_1_2", "class_", "self_2", "tensor_2x", "quoted", "inputs_2",
    ]  # fmt: skip


class TestMessages:
    def test_no_such_model(self, monkeypatch: pytest.MonkeyPatch,
                           capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
        outcome = run_gen_repo(monkeypatch, capsys, "stubs", MODELS, "--model", "nope")
        assert outcome.code == 1
        assert "has no model 'nope'; it has: accumulate, add_sub" in _flat(outcome.err)

    def test_a_config_that_triton_completes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "auto").mkdir()
        (tmp_path / "auto" / "config.pbtxt").write_text(CONFIG.format(name="auto"))
        outcome = run_gen_repo(monkeypatch, capsys, "stubs", tmp_path)
        assert outcome.code == 1
        assert "names no inputs or no outputs" in _flat(outcome.err)

    def test_a_file_of_somebody_else_is_left_alone(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "models.py"
        path.write_text("class User: ...\n")
        outcome = run_gen_repo(monkeypatch, capsys, "stubs", MODELS, "-o", path)
        assert outcome.code == 1
        assert "was not written by gen-repo stubs" in _flat(outcome.err)
        assert path.read_text() == "class User: ...\n"
        assert run_gen_repo(monkeypatch, capsys, "stubs", MODELS, "-o", path, "--force").code == 0
        assert "class AddSub(" in path.read_text()

    def test_verify_says_whether_the_module_is_out_of_date(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = tmp_path / "models.py"
        missing = run_gen_repo(monkeypatch, capsys, "stubs", MODELS, "-o", path, "--verify")
        assert missing.code == 1
        assert not path.exists()
        run_gen_repo(monkeypatch, capsys, "stubs", MODELS, "-o", path)
        assert run_gen_repo(monkeypatch, capsys, "stubs", MODELS, "-o", path, "--verify").code == 0
        path.write_text(path.read_text().replace("INT32", "INT64"))
        stale = run_gen_repo(monkeypatch, capsys, "stubs", MODELS, "-o", path, "--verify")
        assert stale.code == 1
        assert "is out of date: run gen-repo stubs" in _flat(stale.err)


def _imported(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _flat(text: str) -> str:
    return " ".join(text.split())
