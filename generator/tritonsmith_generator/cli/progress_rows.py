"""A build on a terminal: a row for each model at work, one for all."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from tritonsmith_generator.events import Event

__all__ = ["Rows"]

_WIDEST = 60


class Rows:
    """Shown on stderr until ``stop``, and gone then. ``done`` is how many models are."""

    def __init__(self, models: int, done: int) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.fields[model]}"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._models = models
        self._rows: dict[str, TaskID] = {}
        self._images = set[str]()
        self._all = self._progress.add_task(
            self._count(done), model="", total=models, completed=done, visible=models > 1
        )
        self._progress.start()

    def stop(self) -> None:
        self._progress.stop()

    def show(self, event: Event, done: int) -> None:
        """Show where a model is."""
        if event.stage == "done":
            self._take_away(event.model)
            self._progress.update(self._all, completed=done, description=self._count(done))
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

    def _count(self, done: int) -> str:
        return f"{done} of {self._models} models done"
