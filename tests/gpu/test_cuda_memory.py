"""CUDA shared memory on a real GPU: tensors written there, a real server reads and writes them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.harness.paths import CLIENT_MODELS as MODELS

from tritonsmith_client import AsyncClient, Client, CudaError, CudaRegion, InputError, StatusError
from tritonsmith_generator import Server

_random = np.random.default_rng(0)
SAMPLES: dict[str, Any] = {
    "FP32": _random.standard_normal((64, 1000), np.float32),
    "FP16": _random.standard_normal((3, 5)).astype(np.float16),
    "INT64": _random.integers(-9, 9, (17, 33)),
    "BOOL": _random.random((8, 8)) > 0.5,
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    environment = os.environ.get("TRITONSMITH_SERVER_ENV")
    found = Path(environment) if environment else None
    with Server(MODELS, models=["identity"], server_env=found) as up:
        yield up


@pytest.fixture(params=["grpc", "http"])
def client(server: Server, request: pytest.FixtureRequest) -> Iterator[Client]:
    url = server.grpc_url if request.param == "grpc" else server.http_url
    with Client(url, timeout=30.0) as made:
        yield made


@pytest.mark.parametrize("wire", SAMPLES)
def test_through_a_region_on_the_gpu(client: Client, wire: str) -> None:
    array = SAMPLES[wire]
    region = CudaRegion(2 * array.nbytes + 256)
    given = region.tensor(wire, array.shape)
    taken = region.tensor(wire, array.shape, given.end)
    given.write(array)
    assert np.array_equal(given.numpy(), array), "to the GPU and back, without a server"
    client.register(region)
    status = next(s for s in client.memory_status() if s.name == region.name)
    assert (status.kind, status.size, status.device) == ("cuda", region.size, 0)
    model = client.model("identity").using(out={f"OUT_{wire}": taken})
    for factor in (1, 0):
        given.write((array * factor).astype(array.dtype))
        result: Any = model({f"IN_{wire}": given})
        assert result[f"OUT_{wire}"] is taken
        assert np.array_equal(taken.numpy(), array * factor)
    plain = client.model("identity")
    given.write(array)
    assert np.array_equal(plain({f"IN_{wire}": given})[f"OUT_{wire}"], array), "output in the reply"
    taken.write(np.zeros_like(array))
    model({f"IN_{wire}": array})
    assert np.array_equal(taken.numpy(), array), "input in the request"
    client.unregister(region)
    assert region.name not in {s.name for s in client.memory_status()}
    with pytest.raises(StatusError):
        model({f"IN_{wire}": given})
    region.close()


def test_memory_that_another_library_allocated(client: Client) -> None:
    """Found by its address: the region is the allocation, the tensor an offset in it."""
    array = SAMPLES["FP32"]
    block = CudaRegion(4 * array.nbytes)
    source = block.tensor("FP32", array.shape, 512)
    source.write(array)
    found = CudaRegion.of(source)  # as any library's array, by __cuda_array_interface__
    assert (found.offset, found.region.size >= block.size) == (512, True)
    client.register(found.region)
    assert np.array_equal(client.model("identity")(IN_FP32=found)["OUT_FP32"], array)
    client.unregister(found.region)
    found.region.close()
    copy = CudaRegion(array.nbytes).tensor("FP32", array.shape)
    copy.write(source)  # on the GPU
    assert np.array_equal(copy.numpy(), array)


def test_a_gpu_that_is_not_there_and_too_much_memory() -> None:
    with pytest.raises(CudaError, match="invalid device ordinal"):
        CudaRegion(64, device=99)
    with pytest.raises(CudaError, match="out of memory"):
        CudaRegion(1 << 50)
    with pytest.raises(InputError, match="not on a GPU"):
        CudaRegion.of(np.zeros(3))


def test_memory_comes_back(figure: Callable[..., None]) -> None:
    """A thousand regions of 1 GiB, one after the other: more than any GPU has at a time."""
    for _ in range(1000):
        CudaRegion(1 << 30).close()
    for _ in range(300):
        CudaRegion(1 << 30)  # freed with the object
    figure(regions=1300, gib=1300)


def test_asyncio(server: Server) -> None:
    async def main() -> Any:
        async with AsyncClient(server.grpc_url) as client:
            tensor = CudaRegion(1 << 20).tensor("FP32", (4, 4))
            tensor.write(np.full((4, 4), 5, np.float32))
            await client.register(tensor.region)
            return (await (await client.model("identity"))(IN_FP32=tensor))["OUT_FP32"]

    assert (asyncio.run(main()) == 5).all()


def test_torch(client: Client) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    if not torch.cuda.is_available():
        pytest.skip("this PyTorch has no CUDA")
    for dtype, wire in ((torch.float32, "FP32"), (torch.bfloat16, "BF16")):
        tensor = torch.rand(33, 7, device="cuda").to(dtype)
        found = CudaRegion.of(tensor)
        client.register(found.region)
        region = CudaRegion(1 << 16)
        client.register(region)
        taken = region.tensor(wire, tensor.shape)
        client.model("identity").using(out={f"OUT_{wire}": taken})({f"IN_{wire}": found})
        assert torch.equal(taken.torch(), tensor)
        tensor.add_(1)  # where it lies
        client.model("identity").using(out={f"OUT_{wire}": taken})({f"IN_{wire}": found})
        assert torch.equal(taken.torch(), tensor)
        taken.write(tensor * 2)
        assert torch.equal(taken.torch(), tensor * 2)
        for each in (found.region, region):
            client.unregister(each)
            each.close()
    with pytest.raises(InputError, match="not contiguous"):
        CudaRegion.of(torch.rand(4, 6, device="cuda").T)
