"""Files for docker and compose, rendered from templates with a repository's own names."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from tritonsmith_generator.deploy.image_digests import pin
from tritonsmith_generator.errors import HostError, InputError
from tritonsmith_generator.jinja_templates import template
from tritonsmith_generator.serve.embedded.environment import PACKAGES, WHEEL
from tritonsmith_generator.serve.embedded.sandbox import BACKENDS
from tritonsmith_generator.serve.plan_flags import plan_flags
from tritonsmith_generator.serve.served_models import (
    ServedModel,
    container_reason,
    leave_out,
    read_models,
)
from tritonsmith_generator.serve.server_base import RESTRICTED, SAFE_FLAGS

__all__ = [
    "Change",
    "Deployment",
    "compose_files",
    "docker_files",
    "fetch_wheels",
    "pinned",
    "write_files",
]

_MODELS = "/models"
SERVER_COMMAND = ("tritonserver", f"--model-repository={_MODELS}", *SAFE_FLAGS)
# The Python of Debian 12, the base of Dockerfile.embedded.
_PYTHON = "3.11"
_MAX_BODY_MB = 64  # tritonserver's own limit for HTTP requests
IMAGES: Mapping[str, str] = {
    "front": "nginxinc/nginx-unprivileged:1.29-alpine",
    "prometheus": "prom/prometheus:v3.5.0",
    "grafana": "grafana/grafana:12.1.0",
}
PORTS: Mapping[str, int] = {"front": 8443, "prometheus": 9090, "grafana": 3000}


@dataclass(frozen=True)
class Deployment:
    """What is deployed.

    Attributes:
        repository: the model repository.
        image: the server's image.
        images: those of the services around it, by service.
        gpus: "all", "none", or numbers such as "0,1".
    """

    repository: Path
    image: str
    gpus: str = "none"
    shm_size: str = "1g"
    images: Mapping[str, str] = field(default_factory=lambda: IMAGES)

    @property
    def name(self) -> str:
        """A name that docker, compose and Prometheus all take: from the repository's folder."""
        found = re.sub(r"[^a-z0-9]+", "-", self.repository.absolute().name.lower()).strip("-")
        return found or "models"

    @property
    def left_out(self) -> dict[str, str]:
        """The models that the server can't serve, each with the reason."""
        return leave_out(read_models(self.repository), self._reason)

    def _reason(self, model: ServedModel) -> str | None:
        if model.backend == "tensorrt" and self.gpus == "none":
            return "it is a TensorRT plan, which needs --gpus all (or numbers)"
        return container_reason(has_gpu=True)(model)

    @property
    def models(self) -> list[str]:
        """The names of the models that are served.

        Raises InputError if it is no repository, has none of them, or for a strange name.
        """
        names = sorted(set(read_models(self.repository)) - set(self.left_out))
        if not names:
            reasons = "; ".join(f"{name}: {why}" for name, why in self.left_out.items())
            raise InputError(f"{self.repository}: no model can be deployed. {reasons}")
        for name in names:
            if not re.fullmatch(r"[\w.-]+", name):
                raise InputError(
                    f"{self.repository}: the model name {name!r} can't be deployed; use letters, "
                    "digits, '_', '-' and '.'"
                )
        return names

    @property
    def command(self) -> list[str]:
        """The server's command line. Raises InputError for a plugin library that is missing."""
        models = read_models(self.repository, self.models)
        return [*SERVER_COMMAND, *plan_flags(models.values(), _MODELS)]


@dataclass(frozen=True)
class Change:
    """What became of one file: "create", "identical", "conflict" or "overwrite"."""

    path: Path
    action: str


def pinned(deployment: Deployment) -> Deployment:
    """With every image by its digest, where it is known."""
    names = [deployment.image, *deployment.images.values()]
    digests = pin(names, deployment.repository)
    images = {service: digests[name] for service, name in deployment.images.items()}
    return replace(deployment, image=digests[deployment.image], images=images)


def docker_files(deployment: Deployment) -> dict[str, str]:
    """Dockerfile (models in the image), Dockerfile.embedded and the backends that it copies."""
    values = {
        "name": deployment.name,
        "repository": str(deployment.repository),
        "models": deployment.models,
        "base": deployment.image,
        "command": deployment.command,
        "embedded_command": list(SERVER_COMMAND),
        "wheel": WHEEL,
        "python": _PYTHON,
        "packages": PACKAGES[_PYTHON],
    }
    files = {name: template(f"docker/{name}.j2").render(values) for name in _DOCKERFILES}
    for path in sorted(BACKENDS.rglob("*.py")):
        files[f"backends/{path.relative_to(BACKENDS)}"] = path.read_text()
    return files | {"wheels/.gitignore": "*.whl\n"}


_DOCKERFILES = ("Dockerfile", "Dockerfile.embedded")
_COMPOSE_FILES = {
    "compose.yaml": "compose.yaml",
    "SECRETS.md": "SECRETS.md",
    "nginx.conf": "nginx.conf",
    "prometheus.yml": "prometheus.yml",
    "alerts.yml": "alerts.yml",
    "grafana/datasources/prometheus.yaml": "datasource.yaml",
    "grafana/dashboards/models.yaml": "dashboards.yaml",
    "grafana/dashboards/models.json": "dashboard.json",
}


def compose_files(
    deployment: Deployment, folder: Path, changes: Mapping[str, object] | None = None
) -> dict[str, str]:
    """Return the compose file and what its services read, for this folder.

    ``changes`` replace values of the templates.
    """
    values = {
        "name": deployment.name,
        "mounts": _mounts(deployment, _seen_from(folder, deployment.repository)),
        "images": deployment.images,
        "ports": PORTS,
        "restricted": ",".join(RESTRICTED),
        "models": deployment.models,
        "image": deployment.image,
        "gpus": deployment.gpus,
        "shm_size": deployment.shm_size,
        "command": deployment.command,
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
    files = {
        to: template(f"compose/{name}.j2").render(values) for to, name in _COMPOSE_FILES.items()
    }
    return files | {".gitignore": "secrets/\n.env\n"}


def _mounts(deployment: Deployment, repository: str) -> dict[str, str]:
    """Return the whole repository, or just the models that are served if some are left out."""
    if not deployment.left_out:
        return {"/models": repository}
    return {f"/models/{name}": f"{repository}/{name}" for name in deployment.models}


def _seen_from(folder: Path, repository: Path) -> str:
    """Keep a repository's path relative where it was named so: both may be moved together."""
    if repository.is_absolute():
        return str(repository)
    seen = os.path.relpath(repository, folder)
    return seen if seen.startswith("..") else f"./{seen}"  # else it would be a volume's name


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
