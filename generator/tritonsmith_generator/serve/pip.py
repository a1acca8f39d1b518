"""pip, run as a program, so that the user's own index, proxy and certificates apply."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tritonsmith_generator.errors import HostError
from tritonsmith_generator.serve.host import Interpreter

__all__ = ["download", "install"]

_NO_QUESTIONS = {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}


def download(requirement: str, folder: Path) -> Path:
    """The wheel of ``requirement`` itself, without what it depends on."""
    flags = ["--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    _run([sys.executable, "-m", "pip", "download", *flags, requirement], requirement)
    return next(folder.glob("*.whl"))


def install(requirements: Sequence[str], target: Path, interpreter: Interpreter) -> None:
    """Install wheels that fit ``interpreter``, and what they depend on, into a plain folder."""
    running = "{}.{}".format(*sys.version_info[:2])
    other = [] if interpreter.version == running else ["--python", str(interpreter.executable)]
    flags = ["--only-binary=:all:", "--target", str(target)]
    command = [sys.executable, "-m", "pip", *other, "install", *flags, *requirements]
    _run(command, " ".join(requirements))


def _run(command: Sequence[str], what: str) -> None:
    if importlib.util.find_spec("pip") is None:
        raise HostError(
            f"pip is not installed for {sys.executable}, and the embedded server is fetched with "
            f"it. Install it: {sys.executable} -m ensurepip --upgrade   (uv: uv pip install pip)"
        )
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | _NO_QUESTIONS, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or done.stdout.strip().splitlines()
        reason = next((line for line in reversed(lines) if "ERROR" in line), "".join(lines[-1:]))
        raise HostError(
            f"pip could not fetch {what} for the embedded server: {reason}\n"
            "Check the network and pip's index settings (pip config list), or name an "
            "environment that is already there: --server-env PATH"
        )
