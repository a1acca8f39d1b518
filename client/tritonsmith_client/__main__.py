"""The ``tritonsmith`` command: infer, bench, models, health and watch, with nothing but the client.

Exit codes: 1 not healthy, 2 the user's arguments or inputs, 4 the server.
"""

from __future__ import annotations

import sys

from tritonsmith_client._cli.main import main

__all__ = []


if __name__ == "__main__":
    sys.exit(main())
