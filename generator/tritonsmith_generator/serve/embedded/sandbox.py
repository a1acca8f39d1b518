"""The temporary folder that one server runs from: symlinks to its models, backends and Python.

Triton starts a model's Python through a shell and without quotes, so every path that it
sees lies in this folder, whose name needs none; the real ones may hold spaces.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tritonsmith_generator import layout
from tritonsmith_generator.serve.embedded.environment import Environment

__all__ = ["BACKENDS", "Sandbox", "make_sandbox"]

BACKENDS = layout.PACKAGE / "backends"


@dataclass(frozen=True)
class Sandbox:
    """Where the server finds things.

    Attributes:
        folder: the whole, to be removed at the end.
        repository: holds a symlink per model.
        backends: holds a symlink per backend.
        bin: to be first in PATH: the Python backend's stub looks for ``python3`` there, and so
            finds its packages.
        lib: to be first in LD_LIBRARY_PATH, holds libpython.
    """

    folder: Path
    repository: Path
    backends: Path
    bin: Path
    lib: Path


def make_sandbox(models: Iterable[Path], environment: Environment) -> Sandbox:
    """Make the folder for these models; the caller removes it."""
    usual = tempfile.gettempdir()
    place = usual if re.fullmatch(r"[\w/.-]+", usual) else "/tmp"
    folder = Path(tempfile.mkdtemp(prefix="tritonsmith-", dir=place))
    sandbox = Sandbox(
        folder,
        folder / "repository",
        folder / "backends",
        folder / "python" / "bin",
        folder / "lib",
    )
    for new in (sandbox.repository, sandbox.backends, sandbox.bin, sandbox.lib):
        new.mkdir(parents=True)
    for model in models:
        (sandbox.repository / model.name).symlink_to(model.absolute())
    for backend in BACKENDS.iterdir():
        if backend.is_dir() and not backend.name.startswith("_"):
            (sandbox.backends / backend.name).symlink_to(backend)
    (sandbox.backends / "python").symlink_to(environment.python_backend)
    _make_python(sandbox, environment)
    return sandbox


def _make_python(sandbox: Sandbox, environment: Environment) -> None:
    """Make a virtual environment, whose one entry names the folders of packages."""
    interpreter = environment.interpreter
    (sandbox.lib / interpreter.libpython.name).symlink_to(interpreter.libpython)
    (sandbox.bin / "python3").symlink_to(interpreter.executable)
    (sandbox.bin.parent / "pyvenv.cfg").write_text(
        f"home = {interpreter.executable.parent}\ninclude-system-site-packages = false\n"
    )
    site = sandbox.bin.parent / "lib" / f"python{interpreter.version}" / "site-packages"
    site.mkdir(parents=True)
    (site / "tritonsmith.pth").write_text("\n".join(environment.packages) + "\n")
