"""Faults of the engine itself, on engines of our own: each is one message, and nothing is left."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import pytest
from support.programs.docker_engine import own_engine
from support.programs.program_image import import_program
from support.wire.http_calls import free_port, get, until

from tritonsmith_generator.containers.engine import connect, ensure_image
from tritonsmith_generator.deploy.image_digests import pin
from tritonsmith_generator.errors import HostError, ServerError
from tritonsmith_generator.serve.docker_server import DockerServer

pytestmark = pytest.mark.docker

SmallDisk = Callable[[Path, str], None]
_STUB = "tritonsmith-test-stub:1"


@pytest.fixture
def models(repository: Any) -> Path:
    repository.add_add_sub("add_sub")
    path: Path = repository.path
    return path


def _import_stub(client: docker.DockerClient) -> None:
    """An image whose ``tritonserver`` starts, and never becomes ready."""
    bash, sleep = shutil.which("bash"), shutil.which("sleep")
    assert bash is not None
    assert sleep is not None
    waits = f"#!{bash}\ntrap 'exit 0' TERM\necho started\n{sleep} 600 &\nwait\n"
    scripts = {"/usr/bin/tritonserver": waits}
    import_program(client, [bash, sleep], _STUB, user=1000, command=[], scripts=scripts)


def _fill(folder: Path) -> None:
    with (folder / "filler").open("wb", buffering=0) as file:
        while True:
            try:
                file.write(bytes(4096))
            except OSError as exc:
                assert exc.errno == errno.ENOSPC
                return


def test_dockers_disk_is_full(models: Path, tmp_path: Path, small_disk: SmallDisk) -> None:
    small_disk(tmp_path / "data", "24m")
    with own_engine(tmp_path / "data") as (client, _):
        _import_stub(client)
        _fill(tmp_path / "data")
        server = DockerServer(models, image=_STUB, network="host", gpus="none")
        with pytest.raises(HostError, match=rf"Docker could not run {_STUB}: .*no space left"):
            server.start()
        assert client.containers.list(all=True) == []


def test_the_engine_ends_while_the_server_runs(models: Path) -> None:
    with own_engine() as (client, daemon):
        _import_stub(client)
        server = DockerServer(models, image=_STUB, network="host", gpus="none").start()
        until(lambda: server.log)  # before, docker's client would forget the answer with the log
        daemon.terminate()
        daemon.wait(timeout=60)
        with pytest.raises(ServerError, match=r"the container tritonsmith-\S+ (is gone|ended)"):
            server.wait()


def test_no_permission(models: Path) -> None:
    """As a user who may not open the engine's socket."""
    script = (
        "import os, sys\n"
        "from tritonsmith_generator.serve.docker_server import DockerServer\n"
        "server = DockerServer(sys.argv[1], release='26.10')\n"
        "os.environ['HOME'] = '/tmp'\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "try: server.start()\n"
        "except Exception as exc: print(type(exc).__name__, exc)\n"
    )
    with own_engine():
        for folder in (models, *models.parents):
            with contextlib.suppress(PermissionError):
                folder.chmod(folder.stat().st_mode | 0o055)
        done = subprocess.run(
            [sys.executable, "-c", script, models], capture_output=True, text=True, check=False
        )
    assert re.match(
        r"HostError No Docker Engine at unix:\S+: this user may not use it\. Add the user to the "
        r"group 'docker'",
        done.stdout,
    ), done


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A registry on this machine: "127.0.0.1:PORT"."""
    program = shutil.which("docker-registry") or shutil.which("registry")
    if program is None:
        pytest.skip("docker-registry is not installed")
    port = free_port()
    config = tmp_path / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n"
        f"storage: {{filesystem: {{rootdirectory: {tmp_path / 'registry'}}}}}\n"
    )
    process = subprocess.Popen(
        [program, "serve", config],
        stderr=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"]},
    )
    until(lambda: get(port, "/v2/")[0] == 200)
    yield f"127.0.0.1:{port}"
    process.terminate()
    process.wait(timeout=30)


def test_an_image_is_pulled_with_progress_and_named_by_its_digest(
    registry: str, models: Path
) -> None:
    name = f"{registry}/server:26.10"
    told: list[tuple[str, float]] = []
    with own_engine() as (client, _):
        _import_stub(client)
        client.images.get(_STUB).tag(name)
        client.images.push(name)
        client.images.remove(name)
        client.images.remove(_STUB)
        with contextlib.closing(connect()) as ours:
            image = ensure_image(ours, name, lambda text, done: told.append((text, done)))
        assert told[0] == (f"pulling {name}", 0.0)
        assert told[-1] == (f"pulled {name}", 1.0)
        digest = image.digest
        assert digest is not None
        assert re.fullmatch(rf"{registry}/server@sha256:[0-9a-f]{{64}}", digest)
        pinned = pin([name, "elsewhere:1"], models)
        assert pinned == {name: f"{name}@{digest.partition('@')[2]}", "elsewhere:1": "elsewhere:1"}
        with contextlib.closing(connect()) as ours:
            assert ensure_image(ours, pinned[name], None).id == image.id


def test_an_image_that_does_not_fit(
    registry: str, models: Path, tmp_path: Path, small_disk: SmallDisk
) -> None:
    name = f"{registry}/server:26.10"
    with own_engine() as (client, _):
        _import_stub(client)
        client.images.get(_STUB).tag(name)
        client.images.push(name)
    small_disk(tmp_path / "data", "3m")
    with own_engine(tmp_path / "data"):
        server = DockerServer(models, image=name, network="host", gpus="none")
        with pytest.raises(HostError, match=rf"could not get the image {name}.*no space left"):
            server.start()
