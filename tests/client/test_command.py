"""The ``tritonsmith`` command against the real server."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from support.soak import by_turns, soaked

from tritonsmith_client._cli.load_test import Report
from tritonsmith_client._cli.main import main
from tritonsmith_generator.serve import Server

Capture = pytest.CaptureFixture[str]


def test_infer(url: str, capsys: Capture, tmp_path: Path) -> None:
    np.save(tmp_path / "left.npy", np.full((2, 16), 5, np.int32))
    left = f"INPUT0={tmp_path}/left.npy"
    arguments = ["infer", "add_sub", "--url", url, "--input", left, "--input", "INPUT1=random:2x16"]
    assert main([*arguments, "--output", str(tmp_path / "out"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert {o["name"] for o in said["outputs"]} == {"SUM", "DIFF"}
    total = np.load(tmp_path / "out" / "SUM.npy") + np.load(tmp_path / "out" / "DIFF.npy")
    assert (total == 10).all()
    assert main(arguments) == 0
    assert "add_sub version 1" in capsys.readouterr().out


def test_models_and_health(url: str, server: Server, capsys: Capture) -> None:
    assert main(["models", "--url", url, "--json"]) == 0
    assert {m["name"] for m in json.loads(capsys.readouterr().out)} == set(server.models)
    assert main(["models", "--url", url]) == 0
    assert "READY" in capsys.readouterr().out
    assert main(["health", "--url", url, "text", "--wait", "5"]) == 0
    assert main(["health", "--url", url, "nope", "--json"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["nope"] is False


def bench(arguments: list[str], capsys: Capture, answered: Callable[[str], bool]) -> str:
    """What it prints; anew if the machine stood still for most of the half second."""
    for _ in range(4):
        assert main(["bench", "plain", *arguments, "--seconds", "0.5"]) == 0
        told = capsys.readouterr().out
        if answered(told):
            break
    return told


PROTOCOLS = ("grpc", "own", "http")
MORE: list[list[str]] = [[], ["--processes", "2"], ["--rate", "50"]]


@pytest.mark.parametrize(
    ("url", "more"),
    by_turns([(name,) for name in PROTOCOLS], [(more,) for more in MORE]),
    indirect=["url"],
)
def test_bench(url: str, capsys: Capture, tmp_path: Path, more: list[str]) -> None:
    plot = tmp_path / "plot.svg"
    arguments = ["--url", url, "--concurrency", "2", *more]
    asked = [*arguments, "--json", "--plot", str(plot)]
    said = json.loads(bench(asked, capsys, lambda told: json.loads(told)["answers"] >= 10))
    assert said["answers"] >= 10 and said["errors"] == {}
    assert 0 < said["p50_ms"] <= said["p90_ms"] <= said["p99_ms"]
    assert said["per_second"] == pytest.approx(said["answers"] / said["seconds"], rel=0.2)
    if "--rate" in more:
        assert said["per_second"] < 60
    assert ElementTree.fromstring(plot.read_text()).tag.endswith("svg")
    told = bench(arguments, capsys, lambda told: "#" in told)
    assert "#" in told
    assert ("rate  unlimited" in told) == ("--rate" not in more)


@pytest.mark.parametrize("url", soaked(PROTOCOLS, keep=lambda name: name == "own"), indirect=True)
def test_bench_over_several_loads(url: str, capsys: Capture, tmp_path: Path) -> None:
    plot = tmp_path / "plot.svg"
    arguments = ["--url", url, "--concurrency", "1,3", "--rate", "20,40"]
    asked = [*arguments, "--json", "--plot", str(plot)]
    rows = json.loads(
        bench(asked, capsys, lambda told: all(row["answers"] for row in json.loads(told)))
    )
    loads = [(row["concurrency"], row["rate"]) for row in rows]
    assert loads == [(1, 20.0), (1, 40.0), (3, 20.0), (3, 40.0)]
    assert all(row["answers"] and not row["errors"] for row in rows)
    picture = ElementTree.fromstring(plot.read_text())
    shapes = Counter(element.tag.rpartition("}")[2] for element in picture)
    assert (shapes["polyline"], shapes["circle"]) == (3, 12)
    lines = bench(arguments, capsys, lambda told: True).splitlines()
    assert lines[0].split()[:3] == ["concurrency", "rate", "per_second"] and len(lines) == 5
    with pytest.raises(SystemExit, match="2"):
        main(["bench", "plain", "--concurrency", "many"])


def test_watch(url: str, capsys: Capture) -> None:
    assert main(["watch", "--url", url, "--every", "0.1", "--times", "2", "--json"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert "text" in [row["model"] for row in json.loads(lines[0])]


MISTAKES = {
    "an unknown model": (["infer", "nope"], 4, "to see what is ready: tritonsmith models --url"),
    "a misspelt model": (["bench", "add_sup"], 4, "(did you mean 'add_sub'?)"),
    "an unknown version": (
        ["infer", "text", "--version", "9"],
        4,
        "its ready versions are: 1; to see",
    ),
    "a decoupled model": (["infer", "repeat"], 4, "which this command cannot call"),
    "a model of sequences": (
        ["infer", "accumulate", "--input", "VALUE=random:1x1"],
        4,
        "which this command cannot send",
    ),
    "too little time": (["infer", "text", "--timeout", "1e-4"], 4, "a larger --timeout gives it"),
    "a model that does not come": (["health", "nope", "--wait", "0.2"], 4, "(health: --wait)"),
    "an unknown input": (["infer", "text", "--input", "x=random"], 2, "no input 'x'"),
    "no server": (["models", "--url", "http://127.0.0.1:9"], 4, "no connection"),
    "no gRPC server": (["models", "--url", "127.0.0.1:9"], 4, "check --url, or wait with: triton"),
    "no concurrency": (["bench", "plain", "--concurrency", "0"], 2, "at least 1"),
    "no place for the plot": (
        ["bench", "plain", "--seconds", "3600", "--plot", "missing/plot.svg"],
        2,
        "the plot cannot be written to missing/plot.svg: name a folder that is there",
    ),
    "no pause": (["watch", "--every", "0"], 2, "above 0"),
}


@pytest.mark.parametrize(("arguments", "code", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes(url: str, capsys: Capture, arguments: list[str], code: int, message: str) -> None:
    with_url = arguments if "--url" in arguments else [*arguments, "--url", url]
    assert main(with_url) == code
    told = capsys.readouterr().err
    assert message in told
    if code == 4:
        assert "client." not in told, "it is no API that they use"


def test_percentiles() -> None:
    report = Report(tuple(float(n) for n in range(1, 101)), {}, 10.0)
    assert [report.percentile(s) for s in (0, 50, 90, 99, 100)] == [1, 50, 90, 99, 100]
    assert report.throughput == 10
    assert sum(count for _, count in report.histogram(7)) == 99
    assert Report((), {}, 1.0).histogram(5) == []
