"""What the embedded server needs of this machine: Linux on x86-64, and a Python to embed.

The server's Python stub is linked to libpythonX.Y.so and to numpy 1.x, which has wheels for
Python 3.10 to 3.12; so the Python that runs the models may differ from the one that runs us.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tritonsmith_generator.errors import HostError

__all__ = [
    "PYTHON_VERSIONS",
    "Interpreter",
    "check_platform",
    "find_interpreter",
    "probe",
]

PYTHON_VERSIONS = ("3.12", "3.11", "3.10")
_GLIBC = (2, 35)  # the wheel is built for manylinux_2_35
_DOCKER_INSTEAD = "Serve with docker instead: gen-repo serve REPO --docker"

_PROBE = """
import json, os, sys, sysconfig
get = sysconfig.get_config_var
base = os.path.join(sys.base_prefix, "bin", "python%d.%d" % sys.version_info[:2])
own = {"", sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}
print(json.dumps({
    "executable": base if os.path.exists(base) else sys.executable,
    "version": "%d.%d" % sys.version_info[:2],
    "folders": [get("LIBDIR"), sys.base_prefix + "/lib", get("LIBPL"),
                "/usr/lib/" + (get("MULTIARCH") or ""), "/usr/lib64", "/usr/lib"],
    "path": [p for p in sys.path if p not in own and not p.endswith((".zip", "lib-dynload"))],
}))
"""


@dataclass(frozen=True)
class Interpreter:
    """A Python whose models the server can run.

    Attributes:
        executable: the base interpreter, never one inside a virtual environment.
        version: such as "3.11".
        libpython: the shared library that the server's stub loads.
        path: the folders of installed packages on its ``sys.path``.
    """

    executable: Path
    version: str
    libpython: Path
    path: tuple[str, ...] = ()


def check_platform() -> None:
    """Raise HostError where the wheel's tritonserver cannot run at all."""
    system, machine = platform.system(), platform.machine()
    if (system, machine) != ("Linux", "x86_64"):
        raise HostError(
            f"The embedded tritonserver runs on Linux x86_64 only; this is {system} {machine}. "
            + _DOCKER_INSTEAD
        )
    name, version = platform.libc_ver()
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if name != "glibc" or numbers < _GLIBC:
        raise HostError(
            "The embedded tritonserver needs glibc 2.35 or newer (Ubuntu 22.04, Debian 12); "
            f"this system has {name or 'another C library'} {version}. " + _DOCKER_INSTEAD
        )


def probe(python: Path | str) -> Interpreter:
    """Return what this interpreter is. Raises HostError where the server can't use it, and why."""
    try:
        done = subprocess.run(
            [str(python), "-c", _PROBE], capture_output=True, text=True, timeout=30, check=True
        )
        facts = json.loads(done.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as exc:
        raise HostError(f"{python} does not run: {exc}") from exc
    version = facts["version"]
    if version not in PYTHON_VERSIONS:
        raise HostError(f"{python} is Python {version}; the embedded server needs 3.10 to 3.12")
    name = f"libpython{version}.so.1.0"
    folders = [Path(folder) for folder in facts["folders"] if folder]
    library = next((folder / name for folder in folders if (folder / name).is_file()), None)
    if library is None:
        raise HostError(
            f"{python} has no {name} (looked in {', '.join(map(str, folders))}). On Debian and "
            f"Ubuntu: apt-get install libpython{version}; with pyenv: "
            f"PYTHON_CONFIGURE_OPTS=--enable-shared pyenv install {version}"
        )
    return Interpreter(Path(facts["executable"]), version, library, tuple(facts["path"]))


@functools.cache
def find_interpreter() -> Interpreter:
    """Return the running Python if the server can use it, else the newest one on this machine."""
    reasons: list[str] = []
    for candidate in _candidates():
        try:
            return probe(candidate)
        except HostError as exc:
            reasons.append(str(exc))
    raise HostError(
        "The embedded tritonserver needs Python 3.10, 3.11 or 3.12 with its shared library:\n  "
        + "\n  ".join(reasons)
        + "\nInstall one (Debian 12: apt-get install python3.11 libpython3.11; or pyenv, uv), or "
        + "name an environment: gen-repo serve REPO --server-env PATH"
    )


def _candidates() -> Iterator[str]:
    """Interpreters to try, best first; each path once."""
    seen = {sys.executable}
    yield sys.executable
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    uv = Path(os.environ.get("XDG_DATA_HOME", Path.home() / ".local/share")) / "uv/python"
    for version in PYTHON_VERSIONS:
        name = f"python{version}"
        found = [shutil.which(name), f"/usr/bin/{name}", f"/usr/local/bin/{name}"]
        found += sorted(map(str, pyenv.glob(f"{version}.*/bin/{name}")), reverse=True)
        found += sorted(map(str, uv.glob(f"*/bin/{name}")), reverse=True)
        for path in found:
            if path and path not in seen and Path(path).exists():
                seen.add(path)
                yield path
