"""Releases of NVIDIA's tritonserver with published vulnerabilities.

From NVIDIA's security bulletins, where a bulletin's page could not be read with the first release
that came out after it; and what clients can do to a server without one, from its issues.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["advice_on"]


@dataclass(frozen=True)
class _Advisory:
    fixed: str  # the first release without them
    what: str


_ADVISORIES = (
    _Advisory("26.06", "authentication bypass, CVE-2026-24206 and CVE-2026-24207 (CVSS 9.8)"),
    _Advisory("25.07", "code execution through the Python backend, CVE-2025-23319 (CVSS 8.1)"),
    _Advisory(
        "25.04",
        "a crash when a gRPC call is cancelled, or exceeds its deadline, as its answer is ready, "
        "triton-inference-server/server#8034, which HTTP does not have",
    ),
)


def advice_on(image: str) -> str | None:
    """Return what is known of the release in the image's name; None if nothing is."""
    found = re.search(r"tritonserver:(\d\d\.\d\d)\b", image)
    known = [a for a in _ADVISORIES if found and found[1] < a.fixed]
    if not found or not known:
        return None
    worst = "; ".join(advisory.what for advisory in known)
    return f"release {found[1]} has known vulnerabilities ({worst}): take {known[0].fixed} or newer"
