"""Which regions of shared memory were left by processes that have ended, and what becomes of them:
with real processes, killed, not waited for, hidden and with names that are no text."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.wire.callers import WAYS, Caller, caller

from tritonsmith_client import SystemRegion
from tritonsmith_client._shared_memory.orphans import refuses_while_in_use
from tritonsmith_client._shared_memory.region_names import is_abandoned
from tritonsmith_generator.serve import Server

NAME = """
import sys
from tritonsmith_client._shared_memory.region_names import region_name
print(region_name())"""
WAIT = f"{NAME}; sys.stdout.flush(); sys.stdin.read()"
JUDGE = """
import os, sys
from tritonsmith_client._shared_memory.orphans import refuses_while_in_use
from tritonsmith_client._shared_memory.region_names import is_abandoned
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
print(is_abandoned(sys.argv[1]))
"""


@pytest.fixture
def other() -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A process that waits, and a name for a region of its."""
    command = [sys.executable, "-c", WAIT]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
        process.kill()


def test_a_process_that_nobody_waits_for(other: tuple[subprocess.Popen[str], str]) -> None:
    process, name = other
    assert not is_abandoned(name)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert f"{process.pid} " in Path(f"/proc/{process.pid}/stat").read_text(), "it is no zombie"
    assert is_abandoned(name)
    process.wait()
    assert is_abandoned(name)


def test_a_process_that_is_hidden(other: tuple[subprocess.Popen[str], str]) -> None:
    """As on hosts whose users do not see each other's processes."""
    process, name = other
    judge = f'exec "$0" -c "$1" {name}'
    hidden = ["unshare", "--mount", "sh", "-c", f"mount -t proc -o hidepid=2 proc /proc && {judge}"]
    if os.getuid() or subprocess.run([*hidden[:-1], "mount -t proc none /proc"]).returncode:
        pytest.skip("only root may mount a /proc that hides processes")

    def abandoned() -> str:
        done = subprocess.run([*hidden, sys.executable, JUDGE], capture_output=True, text=True)
        assert not done.stderr
        return done.stdout.strip()

    assert abandoned() == "False"
    process.kill()
    process.wait()
    assert abandoned() == "True"


def test_a_process_on_another_machine(other: tuple[subprocess.Popen[str], str]) -> None:
    """A port may be forwarded to it, and its numbers say nothing here."""
    process, name = other
    process.kill()
    process.wait()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert boot in name and is_abandoned(name)
    assert not is_abandoned(name.replace(boot, str(uuid.uuid4())))


def test_a_program_whose_name_is_no_text() -> None:
    code = f"open('/proc/self/comm', 'wb').write(b'gr\\xc3'); {NAME}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert not done.stderr and done.stdout.startswith("tritonsmith_client_")


def region_of_a_killed_program() -> Path:
    code = """
import os
from pathlib import Path
from tritonsmith_client import SystemRegion
region = SystemRegion(64)
assert Path("/dev/shm", region.name).exists()
print(region.name, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    file = Path("/dev/shm", done.stdout.strip())
    assert done.returncode == -9  # whoever makes a region next clears it up: another test, perhaps
    return file


def test_the_next_region_clears_up_after_a_killed_program() -> None:
    file = region_of_a_killed_program()
    region = SystemRegion(64)
    assert not file.exists() and Path("/dev/shm", region.name).exists()
    SystemRegion(64).close()
    assert Path("/dev/shm", region.name).exists(), "its process is there"


def test_what_cannot_be_cleared_up_does_not_keep_the_rest() -> None:
    """Another user's file; root's hands are tied by a folder."""
    owner = region_of_a_killed_program()
    names = [owner.with_name(owner.name.replace(owner.name[-16:], 16 * digit)) for digit in "012"]
    try:
        names[0].mkdir()
        names[1].touch()
        names[2].mkdir()
        assert all(is_abandoned(path.name) for path in names)
        SystemRegion(64).close()
        assert [path.exists() for path in (owner, *names)] == [False, True, False, True]
    finally:
        for path in names[::2]:
            path.rmdir()


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_the_server_lets_go_of_what_a_killed_program_registered(
    server: Server, kind: str, way: str
) -> None:
    code = f"""
import os
from tritonsmith_client import Client, SystemRegion
region = SystemRegion(64)
Client({server.http_url!r}).register(region)
print(region.name, flush=True)
os.kill(os.getpid(), 9)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    left = done.stdout.strip()

    def known(client: Caller) -> set[str]:
        return {status.name for status in client.memory_status()}

    with caller(kind, way, server.http_url if way == "http" else server.grpc_url) as client:
        assert done.returncode == -9 and left in known(client)
        regions = [SystemRegion(64) for _ in range(2)]
        for region in regions:
            client.register(region)
        assert left not in known(client)
        assert {region.name for region in regions} <= known(client)


def test_older_servers_are_not_asked_to_let_go() -> None:
    """They would do so while a model still writes."""
    for version in ("2.51.0", "2.73", "3.0.0"):
        assert refuses_while_in_use(version)
    for version in ("2.50.0", "2.9.0", "1.60", "", "dev"):
        assert not refuses_while_in_use(version)
