"""What the README shows is run: its commands build and check, its client gets an answer."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.harness.paths import ROOT

from tritonsmith_generator.serve import Server

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The README's code blocks in this language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README's two commands for "your model" make of SimpleNet."""
    folder = tmp_path_factory.mktemp("readme")
    shutil.copy(ROOT / "model_repository" / "simplenet.onnx", folder / "model.onnx")
    (commands,) = [block for block in blocks("sh") if "gen-repo build model.onnx" in block]
    run(commands.splitlines()[:2], folder)
    return folder / "model_repository"


def run(lines: list[str], folder: Path) -> None:
    for line in lines:
        command = line.partition("#")[0].split()
        assert command[0] == "gen-repo"
        command = [sys.executable, "-m", "tritonsmith_generator", *command[1:]]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_commands_for_several_gpus(tmp_path: Path) -> None:
    shutil.copy(ROOT / "model_repository" / "simplenet.onnx", tmp_path)
    (tmp_path / "models.yaml").write_text("models: {simplenet: {onnx: simplenet.onnx}}\n")
    (commands,) = [block for block in blocks("sh") if "gen-repo merge" in block]
    run(commands.splitlines(), tmp_path)
    assert (tmp_path / "model_repository/simplenet/config.pbtxt").exists()


@pytest.mark.parametrize("protocol", ["grpc", "http"])
def test_the_client_in_ten_lines_prints_eight_digits(
    repository: Path,
    start_server: Callable[..., Server],
    capsys: pytest.CaptureFixture[str],
    protocol: str,
) -> None:
    (program,) = blocks("python")
    assert len(program.splitlines()) <= 10
    server = start_server(repository)
    url = server.grpc_url if protocol == "grpc" else server.http_url
    program = program.replace("localhost:8001", url, 1).replace('"simplenet"', '"model"')

    exec(compile(program, "README.md", "exec"), {})
    assert re.fullmatch(r"\[\d( \d){7}\]\n", capsys.readouterr().out)


def test_the_client_calls_where_the_commands_serve() -> None:
    (program,) = blocks("python")
    ports = re.findall(r"gen-repo serve .* --grpc-port (\d+) --http-port (\d+)", README)
    assert re.findall(r"localhost:(\d+)", program) == [*ports[0]]


def test_every_make_target_and_file_that_the_documents_name_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for document in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        for target in re.findall(r"(?:^|`)make (?:\w+=\S+ )*([a-z]+)", text, re.MULTILINE):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{document}: make {target}"
        for path in re.findall(r"\]\(([\w./]+)\)|`((?:tests|docs|\.ci)/[\w./]+)`", text):
            assert (ROOT / (path[0] or path[1])).exists(), f"{document}: {path}"
