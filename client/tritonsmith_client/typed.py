"""What the modules that ``gen-repo stubs`` writes are made of: models whose calls have types.

from triton_models import TextEncoder  # written by: gen-repo stubs model_repository

with Client("localhost:8001") as client:
    encode = TextEncoder.open(client)
    vectors = encode(input_ids=ids, attention_mask=mask).embedding
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from tritonsmith_client._sync.client import Client
from tritonsmith_client._sync.model import Model, Sequence
from tritonsmith_client._values.metadata import ModelMetadata
from tritonsmith_client._values.result import Result
from tritonsmith_client.errors import InputError

if TYPE_CHECKING:
    from tritonsmith_client._async.client import AsyncClient
    from tritonsmith_client._async.model import AsyncModel, AsyncSequence

__all__ = [
    "AsyncTypedModel",
    "AsyncTypedSequence",
    "Declared",
    "TypedModel",
    "TypedSequence",
]

Outputs = TypeVar("Outputs")
Self = TypeVar("Self", bound="TypedModel[Any]")
AsyncSelf = TypeVar("AsyncSelf", bound="AsyncTypedModel[Any]")
SequenceSelf = TypeVar("SequenceSelf", bound="TypedSequence[Any]")
AsyncSequenceSelf = TypeVar("AsyncSequenceSelf", bound="AsyncTypedSequence[Any]")


@dataclass(frozen=True)
class Declared(Generic[Outputs]):
    """A model as it was when its class was written.

    Attributes:
        name: the model's name on the server.
        made: takes the outputs in the order of ``outputs``.
        inputs: the data type on the wire ("FP32") of each input, by the model's own name for it.
        outputs: the same of each output.
        optional: the inputs that may be left out.
    """

    name: str
    made: type[Outputs]
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    optional: frozenset[str] = frozenset()

    def given(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the inputs without the optional ones that are None."""
        return {n: v for n, v in inputs.items() if v is not None or n not in self.optional}

    def outputs_of(self, result: Result) -> Outputs:
        return self.made(*(result[name] for name in self.outputs))

    def check(self, metadata: ModelMetadata) -> None:
        """Raise InputError if the server's model has other tensors than the class says."""
        for kind, declared, tensors in (
            ("input", self.inputs, metadata.inputs),
            ("output", self.outputs, metadata.outputs),
        ):
            served = {tensor.name: tensor.dtype.wire for tensor in tensors}
            if served == dict(declared):
                continue
            raise InputError(
                f"model '{self.name}' has changed since its class was written: its {kind}s are "
                f"{_shown(served)} on the server and {_shown(declared)} in the class; "
                "write the module again with gen-repo stubs"
            )


class TypedModel(Generic[Outputs]):
    """A `Model` behind a class of its own; subclasses are written by ``gen-repo stubs``."""

    _declared: ClassVar[Declared[Any]]

    def __init__(self, model: Model) -> None:
        """Args: model: the untyped one, with options perhaps: ``model.using(timeout=2)``.

        Raises:
            InputError: the server's model has other inputs or outputs than this class.
        """
        self._declared.check(model.metadata)
        self.model = model

    @classmethod
    def open(cls: type[Self], client: Client, version: str | int = "") -> Self:
        """Return the model of this client.

        Raises what `Client.model` raises, and InputError as above.
        """
        return cls(client.model(cls._declared.name, version))

    def _call(self, inputs: Mapping[str, Any]) -> Outputs:
        result = self.model(self._declared.given(inputs))
        return self._declared.outputs_of(result)  # type: ignore[no-any-return]  # Declared[Any]

    def _submit(self, inputs: Mapping[str, Any]) -> Future[Outputs]:
        return _then(self.model.submit(self._declared.given(inputs)), self._declared)

    def _stream(self, inputs: Mapping[str, Any]) -> Iterator[Outputs]:
        parts = self.model.stream(self._declared.given(inputs))
        return (self._declared.outputs_of(part) for part in parts)


class TypedSequence(Generic[Outputs]):
    """A running sequence of a typed model."""

    def __init__(self, sequence: Sequence, declared: Declared[Outputs]) -> None:
        self._sequence = sequence
        self._declared = declared

    @property
    def id(self) -> int | str:
        return self._sequence.id

    def _call(self, inputs: Mapping[str, Any], end: bool = False) -> Outputs:
        send = self._sequence.end if end else self._sequence
        return self._declared.outputs_of(send(self._declared.given(inputs)))

    def _stream(self, inputs: Mapping[str, Any], end: bool = False) -> Iterator[Outputs]:
        send = self._sequence.end_stream if end else self._sequence.stream
        return map(self._declared.outputs_of, send(self._declared.given(inputs)))

    def __enter__(self: SequenceSelf) -> SequenceSelf:
        self._sequence.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._sequence.__exit__(kind, error, trace)


class AsyncTypedModel(Generic[Outputs]):
    """An `AsyncModel` behind a class of its own; what `TypedModel` says holds with `await`."""

    _declared: ClassVar[Declared[Any]]

    def __init__(self, model: AsyncModel) -> None:
        self._declared.check(model.metadata)
        self.model = model

    @classmethod
    async def open(cls: type[AsyncSelf], client: AsyncClient, version: str | int = "") -> AsyncSelf:
        """See `TypedModel.open`."""
        return cls(await client.model(cls._declared.name, version))

    async def _call(self, inputs: Mapping[str, Any]) -> Outputs:
        result = await self.model(self._declared.given(inputs))
        return self._declared.outputs_of(result)  # type: ignore[no-any-return]  # Declared[Any]

    async def _stream(self, inputs: Mapping[str, Any]) -> AsyncIterator[Outputs]:
        parts = self.model.stream(self._declared.given(inputs))
        try:
            async for part in parts:
                yield self._declared.outputs_of(part)
        finally:
            await parts.aclose()  # type: ignore[attr-defined]  # an async generator


class AsyncTypedSequence(Generic[Outputs]):
    """See `TypedSequence`."""

    def __init__(self, sequence: AsyncSequence, declared: Declared[Outputs]) -> None:
        self._sequence = sequence
        self._declared = declared

    @property
    def id(self) -> int | str:
        return self._sequence.id

    async def _call(self, inputs: Mapping[str, Any], end: bool = False) -> Outputs:
        send = self._sequence.end if end else self._sequence
        return self._declared.outputs_of(await send(self._declared.given(inputs)))

    async def _stream(self, inputs: Mapping[str, Any], end: bool = False) -> AsyncIterator[Outputs]:
        send = self._sequence.end_stream if end else self._sequence.stream
        parts = send(self._declared.given(inputs))
        try:
            async for part in parts:
                yield self._declared.outputs_of(part)
        finally:
            await parts.aclose()  # type: ignore[attr-defined]  # an async generator

    async def __aenter__(self: AsyncSequenceSelf) -> AsyncSequenceSelf:
        await self._sequence.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._sequence.__aexit__(kind, error, trace)


class _Then(Future[Outputs]):
    """The future of a result, with the outputs taken out of it; cancels the call with itself."""

    def __init__(self, inner: Future[Result], declared: Declared[Outputs]) -> None:
        super().__init__()
        self._inner = inner
        self._declared = declared
        inner.add_done_callback(self._settle)

    def cancel(self) -> bool:
        return self._inner.cancel()

    def _settle(self, inner: Future[Result]) -> None:
        if inner.cancelled():
            super().cancel()
            self.set_running_or_notify_cancel()
            return
        try:
            self.set_result(self._declared.outputs_of(inner.result()))
        except BaseException as exc:
            self.set_exception(exc)


def _then(inner: Future[Result], declared: Declared[Outputs]) -> Future[Outputs]:
    return _Then(inner, declared)


def _shown(tensors: Mapping[str, str]) -> str:
    return ", ".join(f"'{name}' {dtype}" for name, dtype in tensors.items()) or "none"
