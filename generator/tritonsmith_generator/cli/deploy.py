"""``gen-repo deploy``: files that put a model repository into service."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from tritonsmith_generator.errors import InputError

_COLORS = {"create": "green", "identical": "dim", "overwrite": "yellow", "conflict": "red"}
_DEFAULT_FOLDERS = {"docker": Path("docker"), "compose": Path("compose")}


class What(str, Enum):
    """What is written."""

    docker = "docker"
    compose = "compose"


def deploy(
    what: Annotated[What, typer.Argument(help="docker: images; compose: server, front, metrics")],
    repository: Annotated[Path, typer.Argument(help="The model repository")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The folder to write to (docker, compose)")
    ] = None,
    release: Annotated[
        str | None, typer.Option(help="NVIDIA's release, such as 26.10 \\[default: the spec's]")
    ] = None,
    image: Annotated[str | None, typer.Option(help="Another server image instead")] = None,
    gpus: Annotated[str, typer.Option(help="compose: all, none, or numbers such as 0,1")] = "none",
    wheels: Annotated[
        bool,
        typer.Option(
            "--wheels",
            help="docker: download the packages of Dockerfile.embedded, for a build "
            "without an index",
        ),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace files that were changed by hand")
    ] = False,
) -> None:
    """Write a Dockerfile, or a compose file with TLS, a token, metrics and alerts.

    Files that were changed by hand are left alone, and named.
    """
    from tritonsmith_generator.check.compose import check_compose
    from tritonsmith_generator.cli.check import print_findings
    from tritonsmith_generator.deploy.files import (
        Deployment,
        compose_files,
        docker_files,
        fetch_wheels,
        pinned,
        write_files,
    )
    from tritonsmith_generator.repository.release import choose_image

    chosen = choose_image(repository, release, image)
    deployment = pinned(Deployment(repository, chosen.name, gpus))
    folder = output or _DEFAULT_FOLDERS[what.value]
    render: dict[What, Callable[[Deployment], dict[str, str]]]
    render = {What.docker: docker_files, What.compose: partial(compose_files, folder=folder)}
    files = render[what](deployment)
    console = Console(highlight=False)
    console.print(f"{chosen.name}, {chosen.reason}", style="dim", soft_wrap=True, markup=False)
    for name, reason in deployment.left_out.items():
        console.print(f"{name} is left out: {reason}", style="yellow", soft_wrap=True, markup=False)
    changes = write_files(files, folder, force)
    for change in changes:
        color = _COLORS[change.action]
        console.print(f"[{color}]{change.action:>9}[/]  {escape(str(change.path))}", soft_wrap=True)
    if wheels:
        fetch_wheels(folder / "wheels", lambda text: console.print(escape(text), style="dim"))
    if what is What.compose:
        print_findings(check_compose(folder / "compose.yaml"), console)
    for line in _next(what, deployment.name, folder, repository):
        console.print(line, style="bold", soft_wrap=True, markup=False)
    if any(change.action == "conflict" for change in changes):
        raise InputError("Some files were changed by hand and left alone; --force replaces them")


def _next(what: What, name: str, folder: Path, repository: Path) -> list[str]:
    """Return the commands that use what was written."""
    if what is What.compose:
        return [
            f"Make the secrets ({folder}/SECRETS.md), then:  cd {folder} && docker compose up -d"
        ]
    return [
        f"docker build -t {name} -f {folder}/Dockerfile {repository}",
        f"docker build -t tritonsmith-embedded -f {folder}/Dockerfile.embedded {folder}",
    ]
