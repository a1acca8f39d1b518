"""The ``gen-repo`` command: turns a missing extra into one sentence."""

from __future__ import annotations

import gc
import os
import sys

from tritonsmith_generator.engine.prestart import early_build


def main() -> None:
    """Run the command line; exits with the codes listed in ``errors``."""
    # Pydantic would look for its plugins in each package that is installed.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    with early_build(sys.argv[1:]):
        try:
            from tritonsmith_generator.cli import run
        except ModuleNotFoundError as exc:
            if exc.name is None or exc.name.startswith("tritonsmith"):
                raise  # our own bug, not a missing extra
            sys.exit(
                f"gen-repo: '{exc.name}' is not installed. "
                "The generator needs: pip install 'tritonsmith[generator]'"
            )
        try:
            run()
        finally:
            gc.freeze()  # the system takes it all back: no need to search it for garbage


if __name__ == "__main__":
    main()
