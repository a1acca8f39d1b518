"""Writes the synchronous client from the asynchronous one.

    python client/generate_sync.py            writes what is generated
    python client/generate_sync.py --check    fails, and shows the difference, where that is not so

Both clients do the same, so it is said once, in `_async`. What differs on purpose is written by
hand, in files of the same names: transports, connections, drivers, and calls side by side.
"""

from __future__ import annotations

import argparse
import difflib
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

HERE = Path(__file__).resolve().parent
PACKAGE = HERE / "tritonsmith_client"
GENERATED = ("client.py", "model.py")
HEADER = "# Generated from {source}: edit that one, and run `make fmt`.\n"
DROPPED = ("async", "await")
NAMES = {
    "_async": "_sync",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "aclose": "close",
    "aclosing": "closing",
    "async_balanced": "balanced",
    "async_transport": "transport",
    "asyncio": "threading",
}
PREFIX = "Async"  # of classes
# In docstrings and comments: what is said of tasks, and what is said of threads.
SAID = {
    r"The asynchronous client\.": "The synchronous client.",
    r"of the asynchronous client": "of the synchronous client",
    r", for asyncio\.": ".",
    r"Tasks of one event loop may": "Threads may",
    r"tasks of one event loop may": "threads may",
    r" They may be coroutine functions\.": "",
    r" Cancelling the task ends the call\.": "",
    r"\n *It may be used in one event loop after another, and in one at a time\.\n": "",
    r"workers: has no meaning here, as calls are tasks\.": (
        "workers: threads for ``submit`` and ``map``, started as they are needed."
    ),
    r"\(await ([^()]+\([^()]*\))\)": r"\1",
    r"\b(async|await) ": "",
}


def translated(source: str) -> str:
    """Return the synchronous twin of a module, not yet formatted."""
    lines = source.splitlines(keepends=True)
    out, row, column = [], 1, 0
    dropped = False
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.ENDMARKER, tokenize.INDENT, tokenize.DEDENT):
            continue
        between = _between(lines, (row, column), token.start)
        out.append(between.lstrip(" ") if dropped else between)
        dropped = token.type == tokenize.NAME and token.string in DROPPED
        if not dropped:
            out.append(_word(token))
        row, column = token.end
    return "".join(out)


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    """Return the spaces, and the ends of lines, between two tokens."""
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]]
    first, rest = lines[start[0] - 1][start[1] :], lines[start[0] : end[0] - 1]
    return "".join([first, *rest, lines[end[0] - 1][: end[1]]])


def _word(token: tokenize.TokenInfo) -> str:
    if token.type == tokenize.NAME:
        return _name(token.string)
    if token.type in (tokenize.STRING, tokenize.COMMENT):
        text = token.string
        for asynchronous, synchronous in SAID.items():
            text = re.sub(asynchronous, synchronous, text)
        return re.sub(r"\w+", lambda word: _name(word[0]), text)
    return token.string


def _name(name: str) -> str:
    return NAMES.get(name) or (name.removeprefix(PREFIX) if name != PREFIX else name)


def formatted(text: str, target: Path) -> str:
    """As ruff sorts the imports and formats the rest."""
    for command in (["check", "--quiet", "--select=I,F401,F811", "--fix"], ["format"]):
        ruff = [sys.executable, "-m", "ruff", *command, f"--stdin-filename={target}", "-"]
        text = subprocess.run(
            ruff, input=text, stdout=subprocess.PIPE, text=True, check=True
        ).stdout
    return text


def main() -> None:
    """Write the synchronous modules, or check that they are as they would be written."""
    parser = argparse.ArgumentParser(description="Writes the synchronous client.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if it would")
    check = parser.parse_args().check
    differences: list[str] = []
    for name in GENERATED:
        source, target = PACKAGE / "_async" / name, PACKAGE / "_sync" / name
        header = HEADER.format(source=source.relative_to(HERE.parent))
        text = formatted(header + translated(source.read_text("utf-8")), target)
        before = target.read_text("utf-8") if target.exists() else ""
        if not check:
            target.write_text(text, "utf-8")
        place = str(target.relative_to(HERE.parent))
        differences += difflib.unified_diff(
            before.splitlines(keepends=True), text.splitlines(keepends=True), place, "as generated"
        )
    if check and differences:
        sys.exit("".join(differences) + "not up to date: run `make fmt`")


if __name__ == "__main__":
    main()
