"""What tests of every part share: real servers, and a look at what they leave behind."""

from __future__ import annotations

import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.crashes import SharedServers

from tritonsmith_generator.serve import Server
from tritonsmith_generator.serve.server_base import ServerBase

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every
# process that they start: tests that send it would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Inherited by every process that a test starts, however far down.
_MARK = f"TRITONSMITH_TEST_RUN={uuid.uuid4().hex}"

# Left by what ran before.
_OLD_REGIONS = {region.name for region in Path("/dev/shm").glob("tritonsmith_*")}

_DOCKER = pytest.mark.docker

# Servers that tests share.
_SHARED: list[ServerBase] = []

_Made = TypeVar("_Made", bound=ServerBase)

StartServer = Callable[..., Server]
StartAnyServer = Callable[..., ServerBase]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--image", help="docker tests: an image instead of one that is built here")
    parser.addoption("--gpus", default="none", help="docker tests: all, none, or numbers")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Where tests run side by side: a file's in one process, and in one those of the engine."""
    item.add_marker(pytest.mark.xdist_group(_group(item)))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups are handed out in this order: the one that takes by far the longest comes first, so
    that no process is left alone with it in the end."""
    sizes = Counter(map(_group, items))
    items.sort(key=lambda item: (_group(item) != "docker", -sizes[_group(item)]))


def _group(item: pytest.Item) -> str:
    return "docker" if item.get_closest_marker("docker") else item.path.stem


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(SharedServers(_SHARED))


@pytest.fixture(scope="session", autouse=True)
def leave_nothing() -> Iterator[None]:
    """Fails the run if a process or shared memory of the embedded server outlives it."""
    name, _, value = _MARK.partition("=")
    os.environ[name] = value
    yield
    _wait_until_gone()


@pytest.fixture
def wait_until_gone() -> Callable[[], None]:
    """Call it to fail if what began in this test, of a server, does not go away.

    Servers that other tests share may go on running.
    """
    before = _left()
    return lambda: _wait_until_gone(before)


@pytest.fixture(scope="session")
def start_server() -> Iterator[StartServer]:
    """``start_server(repository, **options)``: a ready ``Server`` that ends with the test run."""
    yield from _starting(Server, {})


@pytest.fixture(scope="session")
def docker_options(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """Arguments of ``DockerServer`` that fit this machine. Skips where there is no engine."""
    from support.docker_engine import build_stand_in, network_for, running_engine

    with running_engine() as client:
        folder = tmp_path_factory.mktemp("docker")
        model = folder / "models" / "none" / "1"
        model.mkdir(parents=True)
        image = request.config.getoption("--image")
        yield {
            "image": image or build_stand_in(client, folder / "models", folder / "context"),
            "gpus": request.config.getoption("--gpus"),
            "network": network_for(client),
        }


@pytest.fixture(scope="session", params=["embedded", pytest.param("docker", marks=_DOCKER)])
def start_any_server(request: pytest.FixtureRequest) -> Iterator[StartAnyServer]:
    """As ``start_server``, once for the embedded server and once for a container."""
    options: dict[str, Any] = {}
    make: Callable[..., ServerBase] = Server
    if request.param == "docker":
        from tritonsmith_generator.serve.docker_server import DockerServer

        make, options = DockerServer, request.getfixturevalue("docker_options")
    yield from _starting(make, options)


def _starting(
    make: Callable[..., _Made], options: dict[str, Any]
) -> Iterator[Callable[..., _Made]]:
    started: list[_Made] = []

    def start(repository: Path, **more: Any) -> _Made:
        server = make(repository, **options, **more)
        started.append(server)
        _SHARED.append(server)
        return server.start().wait_ready()

    yield start
    for server in started:
        _SHARED.remove(server)
    with ThreadPoolExecutor() as pool:  # each takes seconds to unload its models
        list(pool.map(lambda server: server.stop(), started))


def _left() -> frozenset[str]:
    return frozenset(_server_processes() + _shared_memory())


def _wait_until_gone(before: frozenset[str] = frozenset(), seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while left := _left() - before:
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.1)


def _server_processes() -> list[str]:
    """Processes of this test run that belong to an embedded server."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environ = (entry / "environ").read_bytes().decode(errors="replace")
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:  # it has just ended, or is another user's
            continue
        if _MARK in environ and ("tritonserver" in command or "/embedded/reaper.py" in command):
            found.append(f"{entry.name}: {command}")
    return found


def _shared_memory() -> list[str]:
    """Servers' regions whose owner, named in them, has ended or is this very process."""
    return [
        region.name
        for region in Path("/dev/shm").glob("tritonsmith_[0-9]*")
        if region.name not in _OLD_REGIONS
        if int(region.name.split("_")[1]) == os.getpid()
        or not Path("/proc", region.name.split("_")[1]).exists()
    ]
