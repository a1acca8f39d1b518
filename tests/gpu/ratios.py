"""Prints plans against PyTorch and ONNX Runtime, as ratios, from what run.sh measured.

python3 tests/gpu/ratios.py RESULTS_FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    folder = Path(sys.argv[1])
    figures = json.loads((folder / "figures.json").read_text())
    peers = json.loads((folder / "peers.json").read_text())
    plans = {(row["model"], row["precision"]): row for row in figures["rows"] if "model" in row}
    lines = [f"{figures['gpu']}, driver {figures['driver']}, {figures['library']}"]
    for peer in peers:
        if "missing" in peer:
            lines.append(f"{peer['peer']}: not run, {peer['missing']}")
            continue
        plan = plans.get((peer["model"], peer["precision"]))
        if plan is not None:
            ours = plan[f"batch{peer['batch']}_ms"]
            lines.append(
                f"{peer['model']} {peer['precision']} batch {peer['batch']:2}: plan {ours:.3f} ms, "
                f"{peer['peer']} {peer['ms']:.3f} ms, {peer['ms'] / ours:.2f} times as fast"
            )
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
