"""The client costs its users grpc and numpy, and no more."""

from __future__ import annotations

import json
import subprocess
import sys

GENERATOR_ONLY = {
    "jinja2",
    "onnx",
    "onnxruntime",
    "onnxslim",
    "pydantic",
    "rich",
    "tensorrt",
    "tensorrt_rtx",
    "torch",
    "tritonsmith_generator",
    "typer",
    "yaml",
}


def loaded_by(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter has after the statement."""
    program = f"import sys, json\n{statement}\nprint(json.dumps(list(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


def test_importing_the_client_loads_nothing_of_the_generator() -> None:
    loaded = loaded_by("import tritonsmith_client")
    assert "tritonsmith_client" in loaded
    assert loaded & GENERATOR_ONLY == set()


def test_the_command_line_loads_no_library_it_may_not_need() -> None:
    loaded = loaded_by("from tritonsmith_generator.cli import run")
    assert loaded & {"onnxruntime", "onnxslim", "tensorrt", "tensorrt_rtx", "torch"} == set()


def test_a_command_does_not_load_the_others() -> None:
    script = (
        "import sys\n"
        "from tritonsmith_generator.cli import run\n"
        "sys.argv = ['gen-repo', 'merge', 'nothing-here', '-o', 'nowhere']\n"
        "try:\n    run()\nexcept SystemExit:\n    pass\n"
        "assert not [name for name in sys.modules if name.endswith(('.serve', '.deploy'))]\n"
    )
    assert "tritonsmith_generator" in loaded_by(script)
