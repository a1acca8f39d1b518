"""The command line: parse, call, print. Only this package prints."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tritonsmith_generator.commands.build import build
from tritonsmith_generator.commands.check import check
from tritonsmith_generator.commands.debug import DEBUG
from tritonsmith_generator.commands.deploy import deploy
from tritonsmith_generator.commands.export import export
from tritonsmith_generator.commands.infer import infer
from tritonsmith_generator.commands.inspect import inspect
from tritonsmith_generator.commands.merge import merge
from tritonsmith_generator.commands.serve import serve
from tritonsmith_generator.commands.stubs import stubs
from tritonsmith_generator.errors import TritonsmithError

__all__ = ["app", "run"]

app = typer.Typer(
    name="gen-repo",
    help="Turn ONNX models into a Triton model repository that is proven before it is deployed. "
    "'gen-repo models.yaml' and 'gen-repo model.onnx' mean 'gen-repo build'. "
    "With --debug, anywhere, an error shows its traceback.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
_COMMANDS = (build, check, deploy, export, infer, inspect, merge, serve, stubs)
for _command in _COMMANDS:
    app.command()(_command)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"gen-repo {version('tritonsmith')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """What may stand before a command; ``run`` takes --debug, which may stand anywhere."""


_SOURCES = (".onnx", ".yaml", ".yml")
# What a shell reports for a program ended by Ctrl-C: 128 + SIGINT.
_INTERRUPTED = 130


def run() -> None:
    """Run the command line; errors become one message and the exit code of ``errors``."""
    arguments = sys.argv[1:]
    DEBUG.set("--debug" in arguments)
    arguments = [argument for argument in arguments if argument != "--debug"]
    if arguments and Path(arguments[0]).suffix in _SOURCES:
        arguments.insert(0, "build")
    try:
        app(args=arguments)
    except TritonsmithError as exc:
        if DEBUG.get():
            raise
        Console(stderr=True, highlight=False).print(
            f"[bold red]gen-repo:[/] {_plain(str(exc))}", soft_wrap=True
        )
        sys.exit(exc.exit_code)
    except SystemExit as exc:  # typer makes it of KeyboardInterrupt, too
        if exc.code == _INTERRUPTED:
            Console(stderr=True).print("gen-repo: stopped by Ctrl-C; nothing is half-written")
        raise


def _plain(text: str) -> str:
    """Names in a message may hold what rich takes for markup."""
    return text.replace("[", r"\[")
