"""Record what `make demo` prints, as a picture: python docs/record_demo.py"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).parents[1]
COLUMNS = 92
COMMANDS = (
    "gen-repo build model_repository/models.yaml -o model_repository",
    "gen-repo check --live model_repository",
    "gen-repo build model_repository/models.yaml -o model_repository",
)


def run(command: str, folder: Path) -> str:
    """What the command prints, with its colors."""
    environment = os.environ | {"FORCE_COLOR": "1", "COLUMNS": str(COLUMNS)}
    program, *arguments = shlex.split(command)
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def main() -> None:
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True)
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(folder) / "model_repository"
        sources.mkdir()
        for path in (ROOT / "model_repository").iterdir():
            if path.is_file() and path.suffix in (".onnx", ".yaml"):
                shutil.copy2(path, sources)
        for command in COMMANDS:
            console.print(f"[bold green]$[/] [bold]{command}[/]")
            console.print(Text.from_ansi(run(command, Path(folder))))
    picture = console.export_svg(title="tritonsmith", unique_id="demo")
    # A picture may not fetch fonts: the viewer's own monospaced one is used.
    picture = re.sub(r"@font-face \{.*?\}\s*", "", picture, flags=re.DOTALL)
    (ROOT / "docs" / "demo.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
