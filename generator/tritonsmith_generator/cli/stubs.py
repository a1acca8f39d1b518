"""``gen-repo stubs``: typed Python classes for the models of a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from tritonsmith_generator.errors import HostError, InputError, UsageError


def stubs(
    repository: Annotated[Path, typer.Argument(help="The model repository")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The module to write; else it is printed")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", help="Only this model; may be repeated")
    ] = None,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Write nothing; exit with 1 if the module is out of date"),
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Replace a file that gen-repo did not write")
    ] = False,
) -> None:
    """Write a Python module with a class for each model, for mypy and for editors.

    resnet = Resnet50.open(client); logits = resnet(image=image).logits
    """
    from tritonsmith_generator.repository.stubs import MARK, render_stubs

    if verify and output is None:
        raise UsageError("--verify needs --output, the module to compare with")
    text = render_stubs(repository, model or ())
    if output is None:
        print(text, end="")
        return
    if output.suffix != ".py":
        raise UsageError(f"--output {output} is no Python module: its name must end in .py")
    console = Console(highlight=False)
    try:
        found = output.read_text(encoding="utf-8") if output.exists() else None
        if found == text:
            console.print(f"{output} is up to date", soft_wrap=True, markup=False)
            return
        if verify:
            raise InputError(
                f"{output} {'is missing' if found is None else 'is out of date'}: "
                f"run gen-repo stubs {repository} -o {output}"
            )
        if found is not None and not found.startswith(MARK) and not force:
            raise InputError(
                f"{output} was not written by gen-repo stubs: name another file, or replace it "
                "with --force"
            )
        temporary = output.with_name(f".{output.name}.unfinished")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(output)
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
        raise HostError(f"cannot write {output}: {reason}") from exc
    classes = text.count("(_typed.TypedModel[")
    console.print(
        f"{output}: classes for {classes} model{'s' * (classes != 1)}", soft_wrap=True, markup=False
    )
