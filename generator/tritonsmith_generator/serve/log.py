"""Triton's log: each line parsed to a value, and what of it a reader wants to see."""

from __future__ import annotations

import collections
import json
import logging
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

__all__ = ["LogLine", "ServerLog", "failures", "is_noise", "parse"]

_KEPT_LINES = 4000
_log = logging.getLogger(__name__)

_LINE = re.compile(r"([IWEF])\d{4} (\d\d:\d\d:\d\d)\.\d+ \d+ ([\w./-]+:\d+)\] ?(.*)")
_LEVELS = {"I": "info", "W": "warning", "E": "error", "F": "fatal"}


@dataclass(frozen=True)
class LogLine:
    """One line of the server's output.

    Attributes:
        level: "info", "warning", "error", "fatal", or "output" for what has no level: the
            server's tables, and all that models print; "banner" for what an image says first.
        time: "hh:mm:ss", empty for "output".
        source: the server's file and line, empty for "output".
        text: the message; it may hold line breaks.
    """

    level: str
    time: str
    source: str
    text: str

    def __str__(self) -> str:
        return f"{self.time} {self.level}: {self.text}" if self.time else self.text


def parse(line: str) -> LogLine:
    """Return the value of one line of output."""
    found = _LINE.match(line)
    if not found:
        return LogLine("output", "", "", line)
    level, time, source, text = found.groups()
    return LogLine(_LEVELS[level], time, source, _unquoted(text))


class ServerLog:
    """The newest lines of one server's output, each told as it comes.

    ``banner`` says that an image speaks before the server in it does.
    """

    def __init__(self, on_log: Callable[[LogLine], None] | None, banner: bool) -> None:
        self.lines: collections.deque[LogLine] = collections.deque(maxlen=_KEPT_LINES)
        self._on_log, self._banner = on_log, banner

    def add(self, text: str) -> None:
        """Take the next line of output."""
        line = parse(text)
        self._banner = self._banner and line.level == "output"
        if self._banner:
            line = replace(line, level="banner")
        self.lines.append(line)
        if self._on_log:
            try:
                self._on_log(line)
            except Exception:
                # Reading goes on: a full pipe would stop the server.
                _log.exception("on_log failed; it is not called again")
                self._on_log = None


def _unquoted(text: str) -> str:
    if text.startswith('"'):
        try:
            return str(json.loads(text))
        except ValueError:
            pass
    return text


# Said on every machine without an NVIDIA GPU, of the folders that a build writes beside the
# versions, and on shutdown: of no use to anyone.
_USUAL = re.compile(
    r"Unable to allocate pinned system memory|CudaDriverHelper has not been initialized"
    r"|DCGM unable to start|Failed to initialize NVML|Unable to start DCGM"
    r"|Timeout \d+: Found 0 |^Signal \(\d+\) received"
    r"|ignore version directory '(cases|warmup)'"
)
_TOLD = re.compile(r"loading: |successfully loaded|successfully unloaded")


def is_noise(line: LogLine) -> bool:
    """Whether a reader who wants to know how the server fares can do without this line."""
    if _USUAL.search(line.text):
        return True
    if line.level == "banner":
        return True
    if line.level == "output":
        return not line.text.strip() or line.text[0] in "+|"
    return line.level == "info" and not _TOLD.match(line.text) and "pb_stub" not in line.source


_REASONS = (
    re.compile(r"failed to load '(?P<model>[^']+)' version \d+: (?P<why>.*)", re.S),
    re.compile(r"Poll failed for model directory '(?P<model>[^']+)': (?P<why>.*)", re.S),
)


def failures(lines: Iterable[LogLine]) -> dict[str, str]:
    """Why each model that did not load did not, by the model's name ("" for the server itself)."""
    found: dict[str, str] = {}
    for line in lines:
        if line.level in ("error", "fatal") and not is_noise(line):
            match = next((m for m in (r.search(line.text) for r in _REASONS) if m), None)
            if match:
                found[match["model"]] = match["why"].strip()
        elif line.level == "output" and line.text.startswith("error: "):
            found.setdefault("", line.text.removeprefix("error: "))
    if len(found) > 1:
        found.pop("", None)  # it only says that some model failed
    return found
