"""Regions of shared memory that a program makes itself, with the real server; those on a GPU as far
as a machine without one goes (tests/gpu has the rest)."""

from __future__ import annotations

import asyncio
import ctypes
import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.wire.refusals import refused
from support.wire.regions import own_regions

from tritonsmith_client import (
    AlreadyExistsError,
    AsyncClient,
    Client,
    CudaRegion,
    InputError,
    InvalidArgumentError,
    NotFoundError,
    RegionStatus,
    StatusError,
    SystemRegion,
)
from tritonsmith_client.cuda_driver import Driver
from tritonsmith_client.errors import CudaError
from tritonsmith_client.testing import FakeServer

X = np.arange(12, dtype=np.float32).reshape(3, 4)
Y = np.arange(6, dtype=np.int64).reshape(2, 3)


def known(client: Client) -> set[str]:
    return {status.name for status in client.memory_status()}


def test_tensors_in_a_region(client: Client) -> None:
    region = SystemRegion(4096)
    client.register(region)
    given = region.tensor("FP32", X.shape)
    given.write(X)
    taken = region.tensor("FP32", X.shape, given.end)
    assert (given.end, taken.offset % 64) == (64, 0)
    model = client.model("identity").using(out={"OUT_FP32": taken})
    result: Any = model(IN_FP32=given)
    assert list(result) == ["OUT_FP32"] and result["OUT_FP32"] is taken
    assert np.array_equal(taken.numpy(), X)
    given.numpy()[...] = 7  # the memory itself: nothing is copied or sent
    model(IN_FP32=given)
    assert (taken.numpy() == 7).all()
    status = next(s for s in client.memory_status() if s.name == region.name)
    assert status == RegionStatus(region.name, "system", 4096, region.key, 0)
    client.unregister(region)
    assert region.name not in known(client)
    with pytest.raises((InvalidArgumentError, NotFoundError), match="[Uu]nable to find"):
        model(IN_FP32=given)
    view = taken.numpy()
    region.close()
    assert not Path("/dev/shm", region.name).exists()
    assert (view == 7).all(), "the memory goes with the last array"


def test_regions_and_arrays_in_one_call(client: Client) -> None:
    region = SystemRegion(1 << 16)
    client.register(region)
    given, taken = region.tensor("FP32", X.shape), region.tensor("INT64", Y.shape, 1024)
    given.write(X)
    identity = client.model("identity")
    words = np.array([["a", "bc"]], object)
    result = identity.using(
        out={"OUT_INT64": taken}, outputs=["OUT_FP32", "OUT_INT64", "OUT_BYTES"]
    )({"IN_BYTES": words, "IN_FP32": given, "IN_INT64": Y})
    assert result["OUT_BYTES"].tolist() == [[b"a", b"bc"]]
    assert np.array_equal(result["OUT_FP32"], X) and np.array_equal(taken.numpy(), Y)
    assert np.array_equal(identity(IN_FP32=given)["OUT_FP32"], X), "input there, output here"
    again: Any = identity.using(out={"OUT_INT64": taken})(IN_INT64=Y * 2)
    assert again["OUT_INT64"] is taken and np.array_equal(taken.numpy(), Y * 2)
    client.unregister(region)


def test_the_client_unregisters_what_is_left(client: Client, url: str) -> None:
    with Client(url) as other:
        region = SystemRegion(64)
        other.register(region)
        assert region.name in known(client)
        with pytest.raises((AlreadyExistsError, InvalidArgumentError), match="already in manager"):
            other.register(region)
    assert region.name not in known(client)


def test_a_region_is_this_users_and_its_name_goes_with_it() -> None:
    region = SystemRegion(100)
    file = Path("/dev/shm", region.name)
    assert file.stat().st_mode & 0o777 == 0o600
    del region
    gc.collect()
    assert not file.exists()


def test_what_does_not_fit(client: Client) -> None:
    region = SystemRegion(64)
    with pytest.raises(InputError, match=r"FP32 \[17\] at byte 0 does not fit into the region '"):
        region.tensor("FP32", (17,))
    with pytest.raises(InputError, match=r"at byte 61 does not fit"):
        region.tensor("FP32", (1,), 61)
    with pytest.raises(InputError, match="BYTES have no fixed size"):
        region.tensor("BYTES", (1,))
    with pytest.raises(InputError, match="'float' is no data type; write e.g. 'FP32'"):
        region.tensor("float", (1,))
    with pytest.raises(InputError, match=r"takes float32\[2\] and was given int64\[2\]"):
        region.tensor("FP32", (2,)).write([1, 2])
    identity = client.model("identity")
    with pytest.raises(
        InputError, match="'IN_FP32' of model 'identity' takes FP32 and was given int32"
    ):
        identity(IN_FP32=region.tensor("INT32", (2, 2)))
    with pytest.raises(InputError, match=r"'IN_FP32' of .* takes shape \[-1, -1\] .* given \[4\]"):
        identity(IN_FP32=region.tensor("FP32", (4,)))
    with pytest.raises(InputError, match="has no output 'OUT'"):
        identity.using(out={"OUT": region.tensor("FP32", (1, 1))})(IN_FP32=np.ones((1, 1), "f4"))
    with pytest.raises(InputError, match="cannot be placed in a region"):
        client.model("scores").using(
            outputs=["PROBABILITY"], classes=1, out={"PROBABILITY": region.tensor("FP32", (1, 4))}
        )(np.ones((1, 4), np.float32))
    client.register(region)
    with pytest.raises(StatusError):  # too small for what the model says
        identity.using(out={"OUT_FP32": region.tensor("FP32", (1, 1))})(IN_FP32=X)
    client.unregister(region)


SIZES: list[Any] = [0, -1, 1.5, 64.0, "64", None, True, [64], b"@", 2**63, np.float64(64)]


@pytest.mark.parametrize("size", SIZES, ids=repr)
def test_a_size_that_is_none(gpu: Memory, size: Any) -> None:
    for kind in (SystemRegion, CudaRegion):
        said = refused(f"{kind.__name__}(): size is ", kind, size)
        assert "; it must be an int from 1 to 9223372036854775807 (bytes)" in said
    assert not own_regions() and not gpu.blocks, "something was allocated"


@pytest.mark.parametrize("device", [-1, 0.0, "0", "cuda:0", None, True, 2**31], ids=repr)
def test_a_gpu_that_is_none(gpu: Memory, device: Any) -> None:
    said = refused("CudaRegion(): device is ", CudaRegion, 64, device)
    assert "; it must be an int from 0 to 2147483647 (the number of a GPU)" in said
    assert not gpu.blocks


@pytest.mark.parametrize("kind", [SystemRegion, CudaRegion])
def test_a_tensor_that_is_none(gpu: Memory, kind: Any) -> None:
    region = kind(np.int64(64))
    for shape in (5, None, "22", b"22", {2, 3}, (1.5,), ("2",), (-1, 2), [True], (None,)):
        said = refused("region.tensor(): shape is ", region.tensor, "FP32", shape)
        assert "; it must be a list or tuple of ints from 0 on" in said
    for offset in (-1, 0.5, "0", None, True, 2**63):
        said = refused("region.tensor(): offset is ", region.tensor, "FP32", (1,), offset)
        assert "; it must be an int from 0 to 9223372036854775807 (bytes)" in said
    nothing: list[Any] = [5, None, np.float32, [], "fp32"]
    for dtype in nothing:
        refused("is no data type; write e.g. 'FP32'", region.tensor, dtype, (1,))
    tensor = region.tensor("FP32", np.array([2, 3]), np.int64(8))
    assert (tensor.shape, tensor.offset, tensor.nbytes) == ((2, 3), 8, 24)
    assert region.tensor("FP32", ()).shape == ()


def test_more_memory_than_there_is() -> None:
    for size in (1 << 50, 2**63 - 1):
        refused(f"no shared memory of {size} bytes: ", SystemRegion, size)
    assert not own_regions(), "the name is still there"


def test_a_stream_takes_no_regions(client: Client) -> None:
    region = SystemRegion(64)
    with pytest.raises(InputError, match="a stream takes no tensors in shared memory"):
        next(iter(client.model("repeat").stream(COUNT=region.tensor("INT32", (1,)))))


def test_several_servers_have_no_common_memory() -> None:
    with (
        Client(["localhost:1", "localhost:2"]) as client,
        pytest.raises(InputError, match="a region is registered with one server"),
    ):
        client.register(SystemRegion(64))


def test_asyncio(url: str) -> None:
    async def main() -> None:
        async with AsyncClient(url) as client:
            region = SystemRegion(4096)
            await client.register(region)
            given, taken = region.tensor("FP32", X.shape), region.tensor("FP32", X.shape, 2048)
            given.write(X)
            model = (await client.model("identity")).using(out={"OUT_FP32": taken})
            await model(IN_FP32=given)
            assert np.array_equal(taken.numpy(), X)
            assert region.name in {s.name for s in await client.memory_status()}
            await client.unregister(region)
            assert region.name not in {s.name for s in await client.memory_status()}

    asyncio.run(main())


def test_without_a_driver_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tritonsmith_client.cuda_driver._LIBRARIES", ("libno-such-cuda.so",))
    with pytest.raises(
        InputError, match=r"NVIDIA's driver, whose libcuda.so.1 was not found: inst"
    ):
        CudaRegion(64)


class Memory:
    """A driver library whose GPU is the host's memory: what the calls do is real, but the place."""

    def __init__(self) -> None:
        self.blocks: dict[int, Any] = {}
        self.depth = 0

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> int:
            values = [getattr(a, "_obj", a) for a in arguments]
            return int(getattr(self, f"do_{name.removesuffix('_v2')}")(*values) or 0)

        return call

    def do_cuInit(self, flags: Any) -> None: ...  # noqa: N802  # CUDA's names
    def do_cuCtxSynchronize(self) -> None: ...  # noqa: N802

    def do_cuDeviceGet(self, number: Any, ordinal: Any) -> int:  # noqa: N802
        number.value = ordinal.value
        return 101 if ordinal.value else 0

    def do_cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> None:  # noqa: N802
        context.value = 1

    def do_cuCtxPushCurrent(self, context: Any) -> None:  # noqa: N802
        self.depth += 1

    def do_cuCtxPopCurrent(self, context: Any) -> None:  # noqa: N802
        self.depth -= 1

    def do_cuMemAlloc(self, address: Any, size: Any) -> int:  # noqa: N802
        if size.value > 1 << 30:
            return 2
        block = ctypes.create_string_buffer(size.value)
        address.value = ctypes.addressof(block)
        self.blocks[address.value] = block
        return 0

    def do_cuMemFree(self, address: Any) -> None:  # noqa: N802
        del self.blocks[address.value]

    def do_cuMemGetAddressRange(self, start: Any, size: Any, address: Any) -> None:  # noqa: N802
        start.value = next(
            at for at, block in self.blocks.items() if at <= address.value < at + len(block)
        )
        size.value = len(self.blocks[start.value])

    def do_cuPointerGetAttribute(self, number: Any, attribute: Any, address: Any) -> None:  # noqa: N802
        number.value = 0

    def do_cuIpcGetMemHandle(self, handle: Any, address: Any) -> int:  # noqa: N802
        handle.reserved[:8] = list(address.value.to_bytes(8, "little"))
        return 0 if address.value in self.blocks else 1

    def _copy(self, target: Any, source: Any, size: Any) -> None:
        ctypes.memmove(target.value, source.value, size.value)

    do_cuMemcpyHtoD = do_cuMemcpyDtoH = do_cuMemcpyDtoD = _copy  # noqa: N815

    def do_cuGetErrorString(self, status: Any, text: Any) -> None:  # noqa: N802
        text.value = {2: b"out of memory", 101: b"invalid device ordinal"}[status.value]


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Memory:
    library = Memory()
    driver = Driver(library)
    for module in ("_shared_memory.cuda", "_shared_memory.device_arrays", "cuda_driver"):
        monkeypatch.setattr(f"tritonsmith_client.{module}.driver", lambda: driver, raising=False)
    return library


def test_memory_of_a_gpu_is_written_read_and_freed(gpu: Memory) -> None:
    region = CudaRegion(4096)
    tensor = region.tensor("FP32", X.shape, 512)
    tensor.write(X.T.copy().T)  # in another order
    assert np.array_equal(tensor.numpy(), X)
    other = CudaRegion.of(tensor)
    assert (other.offset, other.region.size, other.shape) == (512, 2 << 20, (3, 4))
    assert (other.region.handle, len(other.region.handle)) == (region.handle, 64)
    assert other.region.name != region.name
    copy = CudaRegion(1024).tensor("FP32", X.shape)
    copy.write(tensor)
    assert np.array_equal(copy.numpy(), X)
    assert not hasattr(region.tensor("BF16", (2,)), "__cuda_array_interface__")
    assert region.tensor("FP32", (0, 3)).numpy().shape == (0, 3)
    other.region.close()
    assert len(gpu.blocks) == 2, "what is not its own is not freed"
    region.close()
    region.close()
    del copy
    gc.collect()
    assert not gpu.blocks and not gpu.depth


def test_what_the_gpu_refuses(gpu: Memory) -> None:
    with pytest.raises(CudaError, match=r"cuMemAlloc_v2 .* failed: out of memory \(CUDA error 2\)"):
        CudaRegion(1 << 31)
    with pytest.raises(CudaError, match="invalid device ordinal"):
        CudaRegion(64, device=1)
    with pytest.raises(InputError, match="a ndarray that is not on a GPU has no CUDA shared mem"):
        CudaRegion.of(X)

    class Strided:
        __cuda_array_interface__ = {"typestr": "<f4", "shape": (2, 2), "strides": (4, 8),
                                    "data": (0, False)}  # fmt: skip

    with pytest.raises(InputError, match="not contiguous"):
        CudaRegion.of(Strided())
    tensor = CudaRegion(64).tensor("FP32", (2,))
    with pytest.raises(InputError, match=r"was given float64\[2\]"):
        tensor.write(np.zeros(2))


def test_the_server_hears_of_memory_on_a_gpu(client: Client, gpu: Memory) -> None:
    """It has no GPU, so it says no; that it understood the request is what it says no to."""
    region = CudaRegion(64)
    with pytest.raises(InvalidArgumentError, match="failed to register shared memory region"):
        client.register(region)
    assert not [s for s in client.memory_status() if s.kind == "cuda"]
    client.unregister(region)


def test_the_fake_server_keeps_regions(gpu: Memory) -> None:
    server = FakeServer()
    with server.client() as client:
        cuda, system = CudaRegion(64), SystemRegion(128)
        client.register(cuda)
        client.register(system)
        assert set(client.memory_status()) == {
            RegionStatus(cuda.name, "cuda", 64, device=0),
            RegionStatus(system.name, "system", 128, system.key),
        }
        with pytest.raises(AlreadyExistsError):
            client.register(cuda)
        client.unregister(system)
        assert [s.name for s in client.memory_status()] == [cuda.name]
    with server.client() as client:
        assert client.memory_status() == (), "closing the client unregistered the rest"
