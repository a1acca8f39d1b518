"""What tests of every part share: real servers, and a look at what they leave behind."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import pytest
from support.harness.crashes import SharedServers
from support.harness.leftovers import Leftovers, start_notes
from support.programs.servers import BriefServer

from tritonsmith_generator.serve import Server
from tritonsmith_generator.serve.server_base import ServerBase

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every
# process that they start: tests that send it would wait for ever.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["support.harness.skips", "support.onnx.small_models", "support.harness.soak"]

_CLIENT = Path(__file__).parent / "client"
_DOCKER = pytest.mark.docker

# Servers that tests share.
_SHARED: list[ServerBase] = []

_MOST_PROCESSES = 4  # each has servers of its own, of some gigabytes
_LEFTOVERS = pytest.StashKey[Leftovers]()

_Made = TypeVar("_Made", bound=ServerBase)

StartServer = Callable[..., Server]
StartAnyServer = Callable[..., ServerBase]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--image", help="docker tests: an image instead of one that is built here")
    parser.addoption("--gpus", default="none", help="docker tests: all, none, or numbers")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Where tests run side by side: a file's in one process, and in one those of the engine."""
    item.add_marker(pytest.mark.xdist_group(_group(item)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two for each core: for half of their time tests wait, for the most part for servers."""
    return min(2 * len(os.sched_getaffinity(0)), _MOST_PROCESSES)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Groups are handed out in this order: those that take long come first, so that no process is
    left alone with one in the end. Of the client's tests each is short."""
    sizes = Counter(map(_group, items))
    items.sort(
        key=lambda item: (
            _group(item) != "docker",
            _CLIENT in item.path.parents,
            -sizes[_group(item)],
        )
    )


def _group(item: pytest.Item) -> str:
    return "docker" if item.get_closest_marker("docker") else item.path.stem


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(SharedServers(_SHARED))
    if hasattr(config, "workerinput"):  # pytest-xdist's: one process of a run
        notes, process = Path(config.workerinput["notes"]), config.workerinput["workerid"]
    else:
        notes, process = _start_notes(config), "only"
    config.stash[_LEFTOVERS] = Leftovers(notes, process)


def _start_notes(config: pytest.Config) -> Path:
    notes, program = start_notes()

    def stop() -> None:
        with program:  # which closes its input
            pass

    config.add_cleanup(stop)
    return notes


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Called by pytest-xdist before it starts a process."""
    node.workerinput["notes"] = str(node.config.stash[_LEFTOVERS].notes)


@pytest.fixture(scope="session")
def leftovers(request: pytest.FixtureRequest) -> Leftovers:
    return request.config.stash[_LEFTOVERS]


@pytest.fixture(scope="session", autouse=True)
def leave_nothing(leftovers: Leftovers) -> Iterator[None]:
    """Fails the run if a process or shared memory of the embedded server outlives it."""
    yield
    leftovers.wait_until_gone()


@pytest.fixture
def wait_until_gone(leftovers: Leftovers) -> Callable[[], None]:
    """Call it to fail if what began in this test, of a server, does not go away.

    Servers that other tests share may go on running.
    """
    before = leftovers.found()
    return lambda: leftovers.wait_until_gone(before)


@pytest.fixture
def nothing_left(wait_until_gone: Callable[[], None]) -> Iterator[None]:
    """Fails the test whose server leaves anything behind."""
    yield
    wait_until_gone()


@pytest.fixture(scope="session")
def start_server() -> Iterator[StartServer]:
    """``start_server(repository, **options)``: a ready ``Server`` that ends with the test run."""
    yield from _starting(BriefServer, {})


@pytest.fixture(scope="session")
def docker_options(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """Arguments of ``DockerServer`` that fit this machine. Skips where there is no engine."""
    from support.programs.docker_engine import build_stand_in, network_for, running_engine

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
    make: Callable[..., ServerBase] = BriefServer
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
