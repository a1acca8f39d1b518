"""What becomes of the regions of clients that were killed, or that nobody closed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support.wire.regions import BIG, regions

from tritonsmith_client import (
    Client,
)
from tritonsmith_client._shared_memory.region_names import is_abandoned, region_name
from tritonsmith_generator.serve import Server


def test_a_killed_client_leaves_no_name(server: Server) -> None:
    code = f"""
import os, numpy as np
from tritonsmith_client import Client
client = Client({server.http_url!r}, shared_memory="auto")
model = client.model("identity")
for n in range(3):
    model(IN_FP32=np.zeros((300, 400), np.float32))
print(os.getpid(), flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == -9
    assert not list(Path("/dev/shm").glob(f"tritonsmith_client_{done.stdout.strip()}_*"))


USE = """
import asyncio, os, sys, numpy as np
from tritonsmith_client import AsyncClient, Client
url, how = sys.argv[1:]
array = np.zeros((300, 400), np.float32)
async def main():
    model = await AsyncClient(url).model("identity")
    for _ in range(3):
        await model(IN_FP32=array)
if how == "asyncio":
    asyncio.run(main())
else:
    client = Client(url)
    model = client.model("identity")
    for _ in range(3):
        kept = model(IN_FP32=array)
print(os.getpid(), flush=True)
if how == "killed":
    os.kill(os.getpid(), 9)
if how == "thrown away":
    del client, model
    second = Client(url)
    model = second.model("identity")
    for _ in range(2):
        model(IN_FP32=array)
    names = {s.name for s in second.memory_status()}
    assert len([n for n in names if n.startswith(f"tritonsmith_client_{os.getpid()}_")]) == 1, names
"""


def use(url: str, how: str) -> str:
    """Runs a program that never closes its client; the start of its regions' names."""
    command = [sys.executable, "-c", USE, url, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == (-9 if how == "killed" else 0), done.stderr
    return f"tritonsmith_client_{done.stdout.strip()}_"


@pytest.mark.parametrize("how", ["ended", "asyncio", "thrown away"])
def test_a_client_that_nobody_closed(url: str, server: Server, how: str) -> None:
    before = regions(server)
    owner = use(url, how)
    assert not [name for name in regions(server) - before if name.startswith(owner)]


def test_the_next_client_clears_up_after_a_killed_one(
    url: str, server: Server, shared: Client
) -> None:
    owner = use(url, "killed")
    assert [name for name in regions(server) if name.startswith(owner)], "it left a region"
    file = Path("/dev/shm", region_name().replace(f"_{os.getpid()}_", f"_{owner.split('_')[2]}_"))
    file.touch()  # as if it had been killed a moment earlier
    model = shared.model("identity")
    for number in range(2):
        array = np.full(BIG, number, np.float32)
        assert np.array_equal(model(IN_FP32=array)["OUT_FP32"], array)
    assert not [name for name in regions(server) if name.startswith(owner)]
    assert not file.exists()


def test_whose_a_region_is() -> None:
    mine = region_name()
    prefix, pid, started, namespace, secret = mine.rsplit("_", 4)
    assert not is_abandoned(mine)
    for other, abandoned in (
        ((pid, str(int(started) - 1), namespace), True),  # the number belongs to another one now
        (("4194305", started, namespace), True),  # above the largest number of a process
        (("4194305", started, "1"), False),  # in another container, as far as we know
        ((pid, started, "1"), False),
    ):
        assert is_abandoned("_".join((prefix, *other, secret))) is abandoned
    assert not is_abandoned("somebody_elses") and not is_abandoned("tritonsmith_client_1_2_3")
