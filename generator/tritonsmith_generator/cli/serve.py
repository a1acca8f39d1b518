"""``gen-repo serve``: a tritonserver in the foreground, or detached for scripts."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from tritonsmith_generator.errors import HostError, InputError, ServerError, UsageError

if TYPE_CHECKING:
    from tritonsmith_generator.serve import LogLine
    from tritonsmith_generator.serve.docker_server import DockerServer
    from tritonsmith_generator.serve.server_base import ServerBase

_COLORS = {"warning": "yellow", "error": "red", "fatal": "bold red", "output": "dim"}
_ERRORS = {error.exit_code: error for error in (InputError, UsageError, HostError, ServerError)}


def serve(
    repository: Annotated[Path, typer.Argument(help="The model repository")],
    models: Annotated[
        list[str] | None, typer.Option("--model", help="Serve this model only (repeatable)")
    ] = None,
    http_port: Annotated[
        int | None, typer.Option(help="HTTP port (a free one if not given)")
    ] = None,
    grpc_port: Annotated[
        int | None, typer.Option(help="gRPC port (a free one if not given)")
    ] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="Metrics port (a free one if not given)")
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="The address to listen on; 0.0.0.0 lets other machines call models, and nothing "
            "but models"
        ),
    ] = "127.0.0.1",
    server_env: Annotated[
        Path | None,
        typer.Option(
            envvar="TRITONSMITH_SERVER_ENV",
            help="Environment (venv, or folder of packages) for the models' Python",
        ),
    ] = None,
    docker: Annotated[
        bool, typer.Option("--docker", help="Serve in a container instead, NVIDIA's by default")
    ] = False,
    release: Annotated[
        str | None,
        typer.Option(help="docker: NVIDIA's release, such as 26.10 \\[default: the spec's]"),
    ] = None,
    image: Annotated[str | None, typer.Option(help="docker: another image instead")] = None,
    gpus: Annotated[
        str | None,
        typer.Option(help="docker: all, none, or numbers such as 0,1 (all there are if not given)"),
    ] = None,
    network: Annotated[
        str, typer.Option(help="docker: bridge publishes the ports, host needs no docker network")
    ] = "bridge",
    shm_size: Annotated[
        str, typer.Option(help="docker: size of /dev/shm, where Python models keep their tensors")
    ] = "1g",
    client_shm: Annotated[
        bool,
        typer.Option("--client-shm", help="docker: let clients here register shared memory"),
    ] = False,
    ready_file: Annotated[
        Path | None,
        typer.Option(
            help="Written as JSON (addresses, pid, models) once ready, removed at the end"
        ),
    ] = None,
    detach: Annotated[
        bool,
        typer.Option(
            "--detach", help="Return once ready and print the JSON; 'kill PID' stops the server"
        ),
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show all of the server's output")
    ] = False,
) -> None:
    """Serve a model repository with the embedded tritonserver, or with docker.

    In a script: 'gen-repo serve REPO --detach > server.json', and later kill
    the pid in it.
    Ctrl-C and SIGTERM stop the server; the exit code is 4 if it ended by itself.
    """
    if detach:
        _detach(ready_file)
        return
    console = Console(stderr=True, highlight=False)
    with contextlib.ExitStack() as stack:
        interrupted = stack.enter_context(_signals_as_interrupts())
        common: dict[str, Any] = {
            "models": models or None,
            "http_port": http_port,
            "grpc_port": grpc_port,
            "metrics_port": metrics_port,
            "host": host,
            "on_log": lambda line: _show(console, line, verbose),
            "on_progress": stack.enter_context(_progress_bar(console)),
        }
        for_docker = {"release": release, "image": image, "gpus": gpus}
        server: ServerBase
        if docker:
            more = {"network": network, "shm_size": shm_size, "client_shm": client_shm}
            server = _docker_server(repository, common | for_docker | more)
            console.print(
                f"{server.chosen.name}, {server.chosen.reason}", style="dim", markup=False
            )
        else:
            given = [f"--{name}" for name, value in for_docker.items() if value is not None]
            if given:
                raise UsageError(f"{', '.join(given)}: only with --docker")
            from tritonsmith_generator.serve import Server

            server = Server(repository, server_env=server_env, **common)
        try:
            with server:
                _announce(server)
                if ready_file:
                    stack.callback(ready_file.unlink, missing_ok=True)
                    _write(ready_file, _facts(server))
                server.wait()
        except KeyboardInterrupt:
            console.print(f"Stopped ({interrupted()}); nothing is left running.")


def _docker_server(repository: Path, options: dict[str, Any]) -> DockerServer:
    try:
        from tritonsmith_generator.serve.docker_server import DockerServer
    except ModuleNotFoundError as exc:
        raise HostError(
            "--docker needs the Python package 'docker': pip install 'tritonsmith[docker]'"
        ) from exc
    return DockerServer(repository, **options)


def _facts(server: ServerBase) -> dict[str, Any]:
    return {
        "grpc": server.grpc_url,
        "http": server.http_url,
        "metrics": server.metrics_url,
        "pid": os.getpid(),
        "models": server.versions(),
        "left_out": server.skipped,
    }


def _announce(server: ServerBase) -> None:
    table = Table("model", "version", box=None, header_style="bold", pad_edge=False)
    for name, versions in server.versions().items():
        table.add_row(escape(name), ", ".join(versions))
    for name, reason in server.skipped.items():
        table.add_row(f"[dim]{escape(name)}[/]", f"[dim]left out: {escape(reason)}[/]")
    console = Console(highlight=False)
    console.print(f"[bold green]Ready[/] {server.grpc_url}  {server.http_url}  ")
    console.print(f"metrics {server.metrics_url}   Ctrl-C stops", style="dim")
    console.print(table)


def _show(console: Console, line: LogLine, verbose: bool) -> None:
    from tritonsmith_generator.serve.log import is_noise

    if verbose or not is_noise(line):
        color = _COLORS.get(line.level, "default")
        time_of_day = f"[dim]{line.time}[/] " if line.time else ""
        console.print(f"{time_of_day}[{color}]{escape(line.text)}[/]", soft_wrap=True)


@contextlib.contextmanager
def _progress_bar(console: Console) -> Iterator[Callable[[str, float], None]]:
    """Provide a progress bar that appears with the first report and goes with the last."""
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    task = bar.add_task("", total=1.0)

    def report(text: str, done: float) -> None:
        bar.start()
        bar.update(task, description=escape(text), completed=done)
        if done >= 1.0:
            bar.stop()

    try:
        yield report
    finally:
        if bar.live.is_started:
            bar.stop()


@contextlib.contextmanager
def _signals_as_interrupts() -> Iterator[Callable[[], str]]:
    """SIGTERM and Ctrl-C raise KeyboardInterrupt, once; while the server stops they do nothing.

    Yields a function that names the signal that came.
    """
    came: list[int] = []

    def handle(number: int, _frame: object) -> None:
        came.append(number)
        if len(came) == 1:
            raise KeyboardInterrupt

    before = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: signal.Signals(came[0]).name if came else "interrupted"
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write(path: Path, facts: dict[str, Any]) -> None:
    """Whole or not at all: a script may look at any moment."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(json.dumps(facts) + "\n")
    new.replace(path)


def _detach(ready_file: Path | None) -> None:
    """Run this very command again in the background, and return when its ready file is there."""
    folder = Path(tempfile.mkdtemp(prefix="tritonsmith-serve-"))
    ready, log = ready_file or folder / "ready.json", folder / "server.log"
    ready.unlink(missing_ok=True)
    arguments = [argument for argument in sys.argv[1:] if argument != "--detach"]
    command = [sys.executable, "-m", "tritonsmith_generator", *arguments]
    if ready_file is None:
        command += ["--ready-file", str(ready)]
    with log.open("w") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    while not ready.exists():
        if process.poll() is not None:
            said = log.read_text().strip().removeprefix("gen-repo: ")
            raise _ERRORS.get(process.returncode, ServerError)(said)
        time.sleep(0.05)
    print(json.dumps(json.loads(ready.read_text()) | {"log": str(log)}))
