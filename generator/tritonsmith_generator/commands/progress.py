"""What a build shows while it runs, on stderr: a row for each model at work, one for all."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from tritonsmith_generator.events import Event

__all__ = ["Display"]

_WIDEST = 60


class Display:
    """Shows events as they come.

    Where stderr is no terminal, a line is printed when something long begins, and, where there
    are several models, when one of them is done.
    """

    def __init__(self, models: int) -> None:
        console = Console(stderr=True)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.fields[model]}"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._models, self._done = models, 0
        self._rows: dict[str, TaskID] = {}
        self._images = set[str]()
        self._said = set[str]()
        self._all = self._progress.add_task(
            self._count(), model="", total=models, visible=models > 1
        )

    def __enter__(self) -> Display:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        """Show where a model is."""
        if event.stage == "done":
            self._done += 1
        if self._progress.disable:
            self._print(event)
        elif event.stage == "done":
            self._take_away(event.model)
        else:
            self._update(event)

    def _update(self, event: Event) -> None:
        for image in self._images - {event.model}:  # it is there now, or no model would be at work
            self._take_away(image)
        self._images = {event.model} if event.stage == "image" else set()
        row = self._rows.get(event.model)
        if row is None:
            row = self._progress.add_task("", model=escape(event.model))
            self._rows[event.model] = row
        self._progress.update(
            row,
            description=escape(str(event)[:_WIDEST]),
            completed=event.fraction or 0,
            total=None if event.fraction is None else 1.0,
        )

    def _take_away(self, model: str) -> None:
        if model in self._rows:
            self._progress.remove_task(self._rows.pop(model))
        self._progress.update(self._all, completed=self._done, description=self._count())

    def _print(self, event: Event) -> None:
        line = f"{event.model}: {self._words(event)}"
        if self._words(event) and line not in self._said:
            self._said.add(line)
            print(line, file=sys.stderr)

    def _words(self, event: Event) -> str:
        if event.stage == "plan":
            return "compiling the plan"
        if event.stage == "waiting":
            return str(event)
        if event.stage == "done" and event.detail != "unchanged" and self._models > 1:
            return f"{event.detail} ({self._count()})"
        return ""

    def _count(self) -> str:
        return f"{self._done} of {self._models} models done"
