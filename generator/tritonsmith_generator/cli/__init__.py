"""The command line: parse, call, print. Only this package prints."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from tritonsmith_generator.cli.debug import DEBUG
from tritonsmith_generator.errors import TritonsmithError
from tritonsmith_generator.layout import SOURCES

__all__ = ["COMMANDS", "command_line", "run"]

# Each is a function in the module of its name.
COMMANDS = ("build", "check", "deploy", "export", "inspect", "merge", "serve", "stubs")


def command_line(names: Iterable[str] = COMMANDS) -> typer.Typer:
    """``gen-repo`` with these commands; those that are not named are not imported."""
    app = typer.Typer(
        name="gen-repo",
        help="Turn ONNX models into a Triton model repository that is proven before it is "
        "deployed. 'gen-repo models.yaml' and 'gen-repo model.onnx' mean 'gen-repo build'. "
        "With --debug, anywhere, an error shows its traceback.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
    )
    app.callback()(_options)
    for name in names:
        app.command()(getattr(import_module(f"{__name__}.{name}"), name))
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"gen-repo {version('tritonsmith')}")
        raise typer.Exit


def _options(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Take what may stand before a command; ``run`` takes --debug, which may stand anywhere."""


# What a shell reports for a program ended by Ctrl-C: 128 + SIGINT.
_INTERRUPTED = 130


def run() -> None:
    """Run the command line; errors become one message and the exit code of ``errors``."""
    arguments = sys.argv[1:]
    DEBUG.set("--debug" in arguments)
    arguments = [argument for argument in arguments if argument != "--debug"]
    if arguments and Path(arguments[0]).suffix in SOURCES:
        arguments.insert(0, "build")
    wanted = [name for name in arguments[:1] if name in COMMANDS]
    try:
        command_line(wanted or COMMANDS)(args=arguments)
    except TritonsmithError as exc:
        if DEBUG.get():
            raise
        _say(f"[bold red]gen-repo:[/] {_plain(str(exc))}")
        sys.exit(exc.exit_code)
    except SystemExit as exc:  # typer makes it of KeyboardInterrupt, too
        if exc.code == _INTERRUPTED:
            _say("gen-repo: stopped by Ctrl-C; nothing is half-written")
        raise


def _say(text: str) -> None:
    from rich.console import Console  # not before there is something to say

    Console(stderr=True, highlight=False).print(text, soft_wrap=True)


def _plain(text: str) -> str:
    """Names in a message may hold what rich takes for markup."""
    return text.replace("[", r"\[")
