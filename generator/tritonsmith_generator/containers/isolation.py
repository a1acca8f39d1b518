"""What every container of ours is forbidden, and the GPUs that it is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from docker.types import DeviceRequest

from tritonsmith_generator.errors import UsageError

__all__ = ["PROTECTION", "gpu_requests"]

# No new rights, no root's rights, no writing but in /tmp.
PROTECTION: Mapping[str, Any] = {
    "read_only": True,
    "tmpfs": {"/tmp": "rw,nosuid,nodev,size=1g"},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
}


def gpu_requests(gpus: str) -> list[DeviceRequest]:
    """For "all", "none", or numbers such as "0,1". Raises UsageError for anything else."""
    if gpus == "none":
        return []
    if gpus == "all":
        return [DeviceRequest(count=-1, capabilities=[["gpu"]])]
    numbers = [number.strip() for number in gpus.split(",")]
    if not all(number.isdigit() for number in numbers):
        raise UsageError(f"--gpus {gpus}: write all, none, or numbers such as 0,1")
    return [DeviceRequest(device_ids=numbers, capabilities=[["gpu"]])]
