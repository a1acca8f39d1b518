"""The environment of the embedded server: what of it is there, fits, is broken or cannot be."""

from __future__ import annotations

import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.harness.soak import soaked
from support.programs.servers import BriefServer, added

from tritonsmith_generator.errors import HostError
from tritonsmith_generator.host.cache_dir import cache_folder
from tritonsmith_generator.serve import Server

pytestmark = pytest.mark.usefixtures("nothing_left")


def test_an_environment_with_numpy_2_is_refused(repository: Any) -> None:
    """The environment of these tests is one."""
    repository.add_add_sub("add_sub")
    assert np.__version__.startswith("2.")
    with pytest.raises(HostError, match=rf"it has numpy {np.__version__}.*'numpy<2'"):
        Server(repository.path, server_env=sys.prefix).start()
    with pytest.raises(HostError, match="no such folder"):
        Server(repository.path, server_env="/nowhere").start()


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, repository: Any) -> Path:
    """A cache folder of this test's own, filled from the user's without copying."""
    repository.add_add_sub("add_sub")
    with BriefServer(repository.path):
        pass  # makes the user's cache, if this is the first test ever
    folder = tmp_path / "cache"
    shutil.copytree(cache_folder("server"), folder / "tritonsmith/server", copy_function=os.link)
    monkeypatch.setenv("PIP_CACHE_DIR", str(Path.home() / ".cache/pip"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder


def test_a_folder_of_packages_can_be_the_environment(repository: Any, own_cache: Path) -> None:
    version = "{}.{}".format(*sys.version_info[:2])
    packages = next(own_cache.glob(f"tritonsmith/server/python{version}-*"))
    with BriefServer(repository.path, server_env=packages) as server:
        assert added(server) == [4.0] * 4


@pytest.mark.parametrize("shortened", soaked([False, True], keep=bool))
def test_a_broken_environment_is_repaired_once(
    repository: Any, own_cache: Path, shortened: bool
) -> None:
    library = next(own_cache.glob("tritonsmith/server/*/nvidia_pytriton.libs/libtritonserver*"))
    library.unlink()  # a link to the user's own: it must not be written to
    if shortened:
        library.write_bytes(b"the disk was full")
    reports: list[str] = []
    servers = [
        BriefServer(repository.path, on_progress=lambda text, done: reports.append(text))
        for _ in range(2)
    ]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(Server.start, servers))
    for server in servers:
        server.wait_ready()
        assert added(server) == [4.0] * 4
        server.stop()
    assert library.stat().st_size > 1 << 20
    assert reports.count("unpacking tritonserver") == 1


def test_an_environment_that_cannot_be_fetched_leaves_nothing(
    repository: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.add_add_sub("add_sub")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name in list(os.environ):
        if name.startswith("PIP_") and name != "PIP_CONFIG_FILE":
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(HostError, match=r"pip could not fetch numpy.*No matching distribution"):
        Server(repository.path).start()
    made = [path.name for path in (tmp_path / "cache/tritonsmith/server").iterdir()]
    assert [name for name in made if not name.endswith(".lock")] == []


@pytest.mark.parametrize(
    ("replaced", "value", "reason"),
    [
        ("platform.machine", "aarch64", "this is Linux aarch64.*--docker"),
        ("platform.system", "Darwin", "this is Darwin x86_64.*--docker"),
        ("platform.libc_ver", ("glibc", "2.31"), "needs glibc 2.35.*has glibc 2.31"),
        ("platform.libc_ver", ("", ""), "another C library"),
    ],
)
def test_a_machine_that_cannot_run_it(
    repository: Any, monkeypatch: pytest.MonkeyPatch, replaced: str, value: Any, reason: str
) -> None:
    repository.add_add_sub("add_sub")
    monkeypatch.setattr(
        f"tritonsmith_generator.serve.embedded.interpreter.{replaced}", lambda: value
    )
    with pytest.raises(HostError, match=reason):
        Server(repository.path).start()


def test_a_machine_without_a_fitting_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tritonsmith_generator.serve.embedded import interpreter

    old = tmp_path / "python3.9"
    old.write_text('#!/bin/sh\necho \'{"version": "3.9", "executable": "x"}\'\n')
    static = tmp_path / "python3.12"
    static.write_text(
        '#!/bin/sh\necho \'{"version": "3.12", "executable": "x", "folders": ["/lost"]}\'\n'
    )
    for script in (old, static):
        script.chmod(0o755)
    monkeypatch.setattr(interpreter, "_candidates", lambda: map(str, (old, static)))
    interpreter.find_interpreter.cache_clear()
    with pytest.raises(HostError) as caught:
        interpreter.find_interpreter()
    interpreter.find_interpreter.cache_clear()
    assert "is Python 3.9; the embedded server needs 3.10 to 3.12" in str(caught.value)
    assert "no libpython3.12.so.1.0 (looked in /lost)" in str(caught.value)
    assert "apt-get install libpython3.12" in str(caught.value)
