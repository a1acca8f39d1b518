"""A builder config whose timing cache is a set of words, to test what happens around TensorRT's."""

from __future__ import annotations

import sys
from pathlib import Path

from tritonsmith_generator.trt.timing_cache import merge_timing_cache


class Cache:
    def __init__(self, words: set[str]) -> None:
        self.words = words

    def combine(self, other: Cache, ignore_mismatch: bool) -> bool:
        self.words |= other.words
        return True

    def serialize(self) -> bytes:
        return " ".join(sorted(self.words)).encode()


class Config:
    def __init__(self, *timed: str) -> None:
        self.cache = Cache(set(timed))

    def create_timing_cache(self, data: bytes) -> Cache | None:
        words = data.decode().split()
        return None if "foreign" in words else Cache(set(words))

    def set_timing_cache(self, cache: Cache, ignore_mismatch: bool) -> bool:
        self.cache.words |= cache.words
        return True

    def get_timing_cache(self) -> Cache:
        return self.cache


if __name__ == "__main__":
    for number in range(40):
        merge_timing_cache(Config(f"{sys.argv[2]}-{number}"), Path(sys.argv[1]))
