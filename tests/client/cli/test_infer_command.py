"""``tritonsmith infer`` against the real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.programs.command import Outcome

from tritonsmith_client._cli.main import main

Infer = Callable[..., Outcome]


@pytest.fixture
def infer(
    url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Infer:
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Outcome:
        code = main(["infer", "--url", url, *arguments])  # a caller's own --url comes last and wins
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


def test_random_inputs_and_a_table(infer: Infer) -> None:
    outcome = infer("add_sub")
    assert outcome.code == 0, outcome.err
    for word in ("add_sub version 1", "SUM", "DIFF", "int32", "1x16", "min", "mean", "max"):
        assert word in outcome.out


def test_files_in_and_out(infer: Infer, tmp_path: Path) -> None:
    left, right = np.full((2, 16), 5, np.int32), np.full((2, 16), 3, np.int32)
    np.save("left.npy", left)
    np.save("right.npy", right)
    outcome = infer(
        "add_sub", "-i", "INPUT0=left.npy", "--input", "INPUT1=right.npy", "-o", "made", "--json"
    )
    assert outcome.code == 0, outcome.err
    said = json.loads(outcome.out)
    assert (said["model"], said["version"]) == ("add_sub", "1")
    of_sum = next(o for o in said["outputs"] if o["name"] == "SUM")
    assert (of_sum["min"], of_sum["mean"], of_sum["max"]) == (8, 8, 8)
    assert (of_sum["dtype"], of_sum["shape"], of_sum["first"]) == ("int32", [2, 16], [8, 8, 8, 8])
    assert np.array_equal(np.load(tmp_path / of_sum["file"]), left + right)
    assert np.array_equal(np.load("made/DIFF.npy"), left - right)


def test_a_shape_for_a_random_input(infer: Infer) -> None:
    outcome = infer("identity", "-i", "IN_FP32=random:2x128", "--json")
    assert outcome.code == 0, outcome.err
    outputs = {o["name"]: o for o in json.loads(outcome.out)["outputs"]}
    assert outputs["OUT_FP32"]["shape"] == [2, 128]
    assert outputs["OUT_INT64"]["shape"] == [1, 1]
    assert outputs["OUT_BYTES"]["dtype"] == "BYTES"


def test_strings_are_shown_and_written(infer: Infer) -> None:
    outcome = infer("text", "-i", "TEXT=random:1x3", "-o", ".", "--json")
    said = {o["name"]: o for o in json.loads(outcome.out)["outputs"]}
    assert all(word.isupper() for word in said["UPPER"]["first"])
    assert np.load("UPPER.npy").tolist() == [[w.encode() for w in said["UPPER"]["first"]]]


WRONG: dict[str, tuple[list[str], int, str]] = {
    "an unknown model": (["nope"], 4, "to see what is ready: tritonsmith models --url"),
    "an unknown input": (["text", "-i", "TXT=random"], 2, "no input 'TXT'; its inputs are: 'TEXT'"),
    "no value": (["text", "-i", "TEXT"], 2, "write NAME=FILE.npy or NAME=random"),
    "no file": (["text", "-i", "TEXT=none.npy"], 2, "cannot be read from none.npy"),
    "no shape": (["text", "-i", "TEXT=random:2xa"], 2, "'2xa' is no shape"),
    "a shape that does not fit": (["text", "-i", "TEXT=random:2"], 2, "takes shape [-1, -1]"),
    "no server": (["text", "--url", "http://127.0.0.1:9"], 4, "no connection"),
    "no URL": (["text", "--url", "ftp://x"], 2, "cannot be read"),
}


@pytest.mark.parametrize(("arguments", "code", "message"), WRONG.values(), ids=WRONG)
def test_mistakes_are_one_message(
    infer: Infer, arguments: list[str], code: int, message: str
) -> None:
    outcome = infer(*arguments)
    assert (outcome.code, message in outcome.err) == (code, True), outcome.err
    assert "Traceback" not in outcome.err


def test_pickled_files_are_not_opened(infer: Infer) -> None:
    np.save("evil.npy", np.array([{"a": 1}], object), allow_pickle=True)
    outcome = infer("add_sub", "-i", "INPUT0=evil.npy")
    assert outcome.code == 2 and "without pickled objects" in outcome.err
