"""pip, run as a program, so that the user's own index, proxy and certificates apply."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tritonsmith_generator.errors import HostError

__all__ = ["download", "install", "install_for"]

_NO_QUESTIONS = {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
_MANYLINUX = ("manylinux_2_28", "manylinux_2_17", "manylinux2014")  # what NVIDIA's images can load
_OTHERWISE = ", or name an environment that is already there: --server-env PATH"


def download(requirement: str, folder: Path) -> Path:
    """Return the wheel of ``requirement`` itself, without what it depends on."""
    flags = ["--no-deps", "--only-binary=:all:", "--dest", str(folder)]
    _run([sys.executable, "-m", "pip", "download", *flags, requirement], requirement, _OTHERWISE)
    return next(folder.glob("*.whl"))


def install(requirements: Sequence[str], target: Path, python: Path, version: str) -> None:
    """Install wheels, and what they depend on, into a plain folder.

    They fit the interpreter ``python`` of ``version``, such as "3.12".
    """
    running = "{}.{}".format(*sys.version_info[:2])
    other = [] if version == running else ["--python", str(python)]
    flags = ["--only-binary=:all:", "--target", str(target)]
    command = [sys.executable, "-m", "pip", *other, "install", *flags, *requirements]
    _run(command, " ".join(requirements), _OTHERWISE)


def install_for(requirements: Sequence[str], target: Path, python: str, machine: str) -> None:
    """Install wheels for another Python, such as "3.12" on "x86_64", into a plain folder."""
    flags = ["--no-deps", "--only-binary=:all:", "--target", str(target), "--python-version"]
    platforms = [f"--platform={tag}_{machine}" for tag in _MANYLINUX]
    command = [sys.executable, "-m", "pip", "install", *flags, python, *platforms, *requirements]
    _run(command, f"{' '.join(requirements)} for Python {python} ({machine})")


def _run(command: Sequence[str], what: str, otherwise: str = "") -> None:
    if importlib.util.find_spec("pip") is None:
        raise HostError(
            f"pip is not installed for {sys.executable}, and {what} is fetched with it. "
            f"Install it: {sys.executable} -m ensurepip --upgrade   (uv: uv pip install pip)"
        )
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | _NO_QUESTIONS, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or done.stdout.strip().splitlines()
        reason = next((line for line in reversed(lines) if "ERROR" in line), "".join(lines[-1:]))
        raise HostError(
            f"pip could not fetch {what}: {reason}\n"
            f"Check the network and pip's index settings (pip config list){otherwise}"
        )
