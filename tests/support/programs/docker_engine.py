"""A real Docker Engine for the tests, and an image of the embedded server to run on it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import docker
import pytest
from docker.transport.unixconn import UnixHTTPConnection

from tritonsmith_generator.containers.engine import connect
from tritonsmith_generator.deploy.files import Deployment, docker_files, fetch_wheels, write_files
from tritonsmith_generator.errors import HostError

STAND_IN = "tritonsmith-test-embedded"
_BASE = "debian:bookworm-slim"
_INSIDE_BASE = "python3,python3-venv,python3-pip,ca-certificates,libpython3.11"


@contextlib.contextmanager
def running_engine() -> Iterator[docker.DockerClient]:
    """The engine that is there; else one of our own, for as long as the context lasts.

    Skips the test, with the reason, where neither can be.
    """
    try:
        client = connect()
    except HostError as exc:
        if os.getuid() or not shutil.which("dockerd"):
            pytest.skip(f"{exc} (and the tests can't start one: that needs root and dockerd)")
    else:
        with contextlib.closing(client):
            yield client
        return
    with own_engine() as (client, _):
        yield client


@contextlib.contextmanager
def own_engine(
    data: Path | None = None,
) -> Iterator[tuple[docker.DockerClient, subprocess.Popen[bytes]]]:
    """An engine of our own, which DOCKER_HOST names meanwhile; ``data`` is where it has images."""
    if os.getuid() or not shutil.which("dockerd"):
        pytest.skip("only root can start an engine, where dockerd is installed")
    folder = Path(tempfile.mkdtemp(prefix="tritonsmith-docker-"))
    command = [
        "dockerd",
        "--iptables=false",
        "--ip6tables=false",
        "--bridge=none",
        f"--host=unix://{folder}/docker.sock",
        f"--data-root={data or folder / 'data'}",
        f"--exec-root={folder}/exec",
        f"--pidfile={folder}/pid",
    ]
    with (folder / "log").open("w") as log:
        daemon = subprocess.Popen(command, stdout=log, stderr=log)
    before = os.environ.get("DOCKER_HOST")
    os.environ["DOCKER_HOST"] = f"unix://{folder}/docker.sock"
    try:
        client = _wait_for(daemon, folder / "log")
        with mock.patch.object(UnixHTTPConnection, "connect", _connect), contextlib.closing(client):
            yield client, daemon
    finally:
        os.environ.pop("DOCKER_HOST")
        if before is not None:
            os.environ["DOCKER_HOST"] = before
        daemon.terminate()
        daemon.wait(timeout=60)
        for line in Path("/proc/mounts").read_text().splitlines():
            if line.split()[1].startswith(str(folder)):
                subprocess.run(["umount", "--lazy", line.split()[1]], check=False)
        shutil.rmtree(folder)


def _connect(self: Any) -> None:
    """Docker's own forgets its socket where it finds no engine, and whichever test comes next to
    collect garbage would be blamed. This one is urllib3's to close, as after any failure."""
    self.sock = socket.socket(socket.AF_UNIX)
    self.sock.settimeout(self.timeout)
    self.sock.connect(self.unix_socket)


def _wait_for(daemon: subprocess.Popen[bytes], log: Path) -> docker.DockerClient:
    deadline = time.monotonic() + 60
    while True:
        try:
            return connect()
        except HostError:
            if daemon.poll() is not None or time.monotonic() > deadline:
                daemon.kill()
                last = log.read_text().splitlines()[-1:]
                pytest.skip(f"dockerd does not start on this machine: {last}")
            time.sleep(0.2)


def build_stand_in(client: docker.DockerClient, repository: Path, folder: Path) -> str:
    """Build docker/Dockerfile.embedded; returns the image's name. Skips where it can't be."""
    write_files(docker_files(Deployment(repository, "unused")), folder)
    fetch_wheels(folder / "wheels", lambda text: None)
    _ensure_base(client, folder.parent / "bookworm")
    client.images.build(
        path=str(folder),
        dockerfile="Dockerfile.embedded",
        tag=STAND_IN,
        buildargs={"PIP_NO_INDEX": "1"},
        network_mode="host",
        rm=True,
    )
    return STAND_IN


def _ensure_base(client: docker.DockerClient, folder: Path) -> None:
    """Debian's slim image: here already, from the registry, or made by debootstrap."""
    with contextlib.suppress(docker.errors.ImageNotFound):
        client.images.get(_BASE)
        return
    with contextlib.suppress(docker.errors.APIError):
        client.images.pull(_BASE)
        return
    if not shutil.which("debootstrap"):
        pytest.skip(f"{_BASE} can't be pulled here, and debootstrap is not installed")
    mirror = _mirror()
    if mirror is None:
        pytest.skip(f"{_BASE} can't be pulled here, and this machine's apt names no Debian mirror")
    command = ["debootstrap", "--variant=minbase", f"--include={_INSIDE_BASE}", "bookworm"]
    made = subprocess.run(
        [*command, str(folder), mirror], capture_output=True, text=True, check=False
    )
    if made.returncode:
        pytest.skip(f"debootstrap failed: {made.stdout.splitlines()[-1:]}")
    archive = folder.with_suffix(".tar")
    subprocess.run(["tar", "-C", folder, "-cf", archive, "."], check=True)
    name, tag = _BASE.split(":")
    client.api.import_image_from_file(str(archive), repository=name, tag=tag)
    archive.unlink()
    shutil.rmtree(folder, ignore_errors=True)


def _mirror() -> str | None:
    """Debian's mirror in this machine's own package sources."""
    sources = [*Path("/etc/apt").glob("sources.list*"), *Path("/etc/apt").glob("sources.list.d/*")]
    text = "\n".join(path.read_text() for path in sources if path.is_file())
    found = re.search(r"https?://[^\s\]]+/debian/?(?=\s)", text + "\n")
    return found[0] if found else None


@contextlib.contextmanager
def tagged(client: docker.DockerClient, image: Any, name: str) -> Iterator[bool]:
    """The image under another name as well; False if that name is another image's already."""
    if any(name in other.tags for other in client.images.list()):
        yield False
        return
    image.tag(name)
    try:
        yield True
    finally:
        client.images.remove(name, noprune=True)


def compose_command() -> list[str]:
    """docker compose, in either of its versions. Skips where it is not installed."""
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    asked = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if asked.returncode:
        pytest.skip("docker compose is not installed here")
    return ["docker", "compose"]


def network_for(client: Any) -> str:
    """Docker's own network where the engine has one, the machine's where not."""
    return "bridge" if any(n.name == "bridge" for n in client.networks.list()) else "host"
