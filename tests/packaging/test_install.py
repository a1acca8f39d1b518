"""``pip install`` into environments that hold nothing else."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

import pytest

MODEL = Path("model_repository") / "simplenet.onnx"


class Environment:
    """A fresh virtual environment with the project installed, apart from the checkout."""

    def __init__(self, folder: Path, root: Path, extra: str) -> None:
        self.folder = folder
        venv.create(folder, with_pip=False, symlinks=True)
        self._bin = folder / ("Scripts" if sys.platform == "win32" else "bin")
        pip = [sys.executable, "-m", "pip", "--python", str(self._bin / "python"), "install"]
        options = ["--quiet", "--no-compile", "--disable-pip-version-check"]
        done = self._call([*pip, *options, "-c", str(root / "constraints.txt"), f"{root}{extra}"])
        assert done.returncode == 0, done.stdout + done.stderr

    def __call__(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run one of its programs, outside the checkout."""
        return self._call([str(self._bin / program), *arguments])

    def _call(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True)


@pytest.fixture(scope="module")
def thin(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """``pip install .``"""
    return Environment(tmp_path_factory.mktemp("thin"), root, "")


@pytest.fixture(scope="module")
def whole(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """``pip install '.[generator]'``"""
    return Environment(tmp_path_factory.mktemp("whole"), root, "[generator]")


def test_the_base_install_is_a_client_that_works(thin: Environment) -> None:
    program = "from tritonsmith_client import Client; print(Client.__module__)"
    done = thin("python", "-c", program)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("tritonsmith_client")


def test_the_base_install_brings_nothing_of_the_generator(thin: Environment) -> None:
    program = "import importlib.metadata as m; print(*(d.name.lower() for d in m.distributions()))"
    installed = set(thin("python", "-c", program).stdout.split())
    assert {"tritonsmith", "tritonclient", "grpcio", "numpy"} <= installed
    assert installed & {"onnx", "onnxruntime", "jinja2", "pydantic", "typer", "rich"} == set()


def test_without_the_extra_the_command_says_how_to_get_it(thin: Environment) -> None:
    done = thin("gen-repo", "--help")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.endswith(
        "is not installed. The generator needs: pip install 'tritonsmith[generator]'\n"
    )
    assert done.stderr.count("\n") == 1


@pytest.mark.soak  # make setup is much the same
def test_with_the_extra_the_command_reads_a_model(whole: Environment, root: Path) -> None:
    done = whole("gen-repo", "inspect", str(root / MODEL))
    assert done.returncode == 0, done.stderr
    assert "784" in done.stdout
