"""What a build shows while it runs, on stderr: rows on a terminal, else a few lines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tritonsmith_generator.events import Event

if TYPE_CHECKING:
    from tritonsmith_generator.cli.progress_rows import Rows

__all__ = ["Display"]


class Display:
    """Shows events as they come: on a terminal as ``Rows``.

    Elsewhere a line is printed when something long begins, and, where there are several models,
    when one of them is done.
    """

    def __init__(self, models: int) -> None:
        self._models, self._done = models, 0
        self._rows: Rows | None = None
        self._said = set[str]()

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *_: object) -> None:
        if self._rows is not None:
            self._rows.stop()

    def show(self, event: Event) -> None:
        """Show where a model is."""
        # While models are built there is time for an import that the results need.
        import tritonsmith_generator.cli.results  # noqa: F401

        self._done += event.stage == "done"
        if not sys.stderr.isatty():
            self._print(event)
        elif self._rows is not None:
            self._rows.show(event, self._done)
        elif event.stage != "done":  # there is something to do, which takes longer than this import
            from tritonsmith_generator.cli.progress_rows import Rows

            self._rows = Rows(self._models, self._done)
            self._rows.show(event, self._done)

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
            return f"{event.detail} ({self._done} of {self._models} models done)"
        return ""
