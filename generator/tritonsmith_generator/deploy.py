"""Files for docker and compose, rendered from templates with a repository's own names."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from tritonsmith_generator.errors import HostError, InputError
from tritonsmith_generator.serve.base import SAFE_FLAGS
from tritonsmith_generator.serve.environment import PACKAGES, WHEEL
from tritonsmith_generator.serve.selection import read_models
from tritonsmith_generator.serve.view import BACKENDS

__all__ = ["Change", "Deployment", "compose_files", "docker_files", "fetch_wheels", "write_files"]

SERVER_COMMAND = ("tritonserver", "--model-repository=/models", *SAFE_FLAGS)
# The Python of Debian 12, the base of Dockerfile.embedded.
_PYTHON = "3.11"
_MAX_BODY_MB = 64  # tritonserver's own limit for HTTP requests


@dataclass(frozen=True)
class Deployment:
    """What is deployed.

    Attributes:
        repository: the model repository.
        image: the server's image.
        gpus: "all", "none", or numbers such as "0,1".
    """

    repository: Path
    image: str
    gpus: str = "none"
    shm_size: str = "1g"

    @property
    def name(self) -> str:
        """A name that docker, compose and Prometheus all take: from the repository's folder."""
        found = re.sub(r"[^a-z0-9]+", "-", self.repository.absolute().name.lower()).strip("-")
        return found or "models"

    @property
    def models(self) -> list[str]:
        """The models, by name. Raises InputError if it is no repository, or for a strange name."""
        names = sorted(read_models(self.repository))
        for name in names:
            if not re.fullmatch(r"[\w.-]+", name):
                raise InputError(
                    f"{self.repository}: the model name {name!r} can't be deployed; use letters, "
                    "digits, '_', '-' and '.'"
                )
        return names


@dataclass(frozen=True)
class Change:
    """What became of one file: "create", "identical", "conflict" or "overwrite"."""

    path: Path
    action: str


def docker_files(deployment: Deployment) -> dict[str, str]:
    """Dockerfile (models in the image), Dockerfile.embedded and the backends that it copies."""
    values = {
        "name": deployment.name,
        "repository": str(deployment.repository),
        "models": deployment.models,
        "base": deployment.image,
        "command": list(SERVER_COMMAND),
        "wheel": WHEEL,
        "python": _PYTHON,
        "packages": PACKAGES[_PYTHON],
    }
    files = {name: _render(f"docker/{name}.j2", values) for name in _DOCKERFILES}
    for path in sorted(BACKENDS.rglob("*.py")):
        files[f"backends/{path.relative_to(BACKENDS)}"] = path.read_text()
    return files | {"wheels/.gitignore": "*.whl\n"}


_DOCKERFILES = ("Dockerfile", "Dockerfile.embedded")
_COMPOSE_FILES = {
    "compose.yaml": "compose.yaml",
    "README.md": "README.md",
    "nginx.conf": "nginx.conf",
    "prometheus.yml": "prometheus.yml",
    "alerts.yml": "alerts.yml",
    "grafana/datasources/prometheus.yaml": "datasource.yaml",
    "grafana/dashboards/models.yaml": "dashboards.yaml",
    "grafana/dashboards/models.json": "dashboard.json",
}


def compose_files(
    deployment: Deployment, changes: Mapping[str, object] | None = None
) -> dict[str, str]:
    """The compose file and what its services read. ``changes`` replace values of the templates."""
    values = {
        "name": deployment.name,
        "repository": str(deployment.repository.absolute()),
        "models": deployment.models,
        "image": deployment.image,
        "gpus": deployment.gpus,
        "shm_size": deployment.shm_size,
        "command": list(SERVER_COMMAND),
        "max_body_mb": _MAX_BODY_MB,
        "secrets": "/run/secrets",
        "scratch": "/tmp",
        "listen": 8443,
        "triton_http": "triton:8000",
        "triton_grpc": "triton:8001",
        "target": "triton:8002",
        "rules": "/etc/prometheus/alerts.yml",
        "patience": "1m",
    } | dict(changes or {})
    files = {to: _render(f"compose/{name}.j2", values) for to, name in _COMPOSE_FILES.items()}
    return files | {".gitignore": "secrets/\n"}


def write_files(files: Mapping[str, str], folder: Path, force: bool = False) -> list[Change]:
    """Write what is missing. A file that someone changed is left alone unless ``force``."""
    changes = []
    for name, text in files.items():
        path = folder / name
        if not path.exists():
            action = "create"
        elif path.read_text() == text:
            action = "identical"
        else:
            action = "overwrite" if force else "conflict"
        if action in ("create", "overwrite"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        changes.append(Change(path, action))
    return changes


def fetch_wheels(folder: Path, report: Callable[[str], None]) -> None:
    """Download what Dockerfile.embedded installs, for a build without an index."""
    fit = ["--python-version", _PYTHON, "--implementation", "cp", "--only-binary=:all:"]
    for platform in ("manylinux_2_35_x86_64", "manylinux_2_28_x86_64", "manylinux_2_17_x86_64",
                     "manylinux2014_x86_64"):  # fmt: skip
        fit += ["--platform", platform]
    for requirements in ([*PACKAGES[_PYTHON]], ["--no-deps", WHEEL]):
        report(f"downloading {requirements[-1]}")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--dest", str(folder)]
        done = subprocess.run(
            [*command, *fit, *requirements], capture_output=True, text=True, check=False
        )
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise HostError(f"pip could not download {requirements[-1]}: {reason}")


def _render(template: str, values: Mapping[str, object]) -> str:
    environment = Environment(
        loader=PackageLoader("tritonsmith_templates", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "ensure_ascii": False}
    return environment.get_template(template).render(values)
