"""The cache folder: processes that use it at once don't disturb each other."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from tritonsmith_generator.host.cache_dir import cache_folder, make_once, prune


@pytest.mark.parametrize("given", ["", "cache", "./cache", None])
def test_a_relative_cache_is_none(monkeypatch: pytest.MonkeyPatch, given: str | None) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    if given is not None:
        monkeypatch.setenv("XDG_CACHE_HOME", given)
    assert cache_folder("stages") == Path("/home/somebody/.cache/tritonsmith/stages")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert cache_folder("stages") == Path("/var/cache/tritonsmith/stages")


def test_pruning_while_others_make_and_remove(tmp_path: Path) -> None:
    stop = threading.Event()

    def work(name: str) -> None:
        while not stop.is_set():  # few folders at a time: each look goes through all of them
            make_once(tmp_path / "cases" / name, lambda new: (new / "x").touch())
            shutil.rmtree(tmp_path / "cases" / name)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2000):
            prune(tmp_path, 1 << 30)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not list(tmp_path.rglob("*.tmp-*"))
