"""A model of the asynchronous client; what `model` says holds here with `await`."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from types import EllipsisType, TracebackType
from typing import Any

from tritonsmith_client._async.driver import AsyncRunner
from tritonsmith_client._core.arguments import CONCURRENCY, ITEMS, PROGRESS
from tritonsmith_client._core.client import ClientCore
from tritonsmith_client._core.model import ModelCore
from tritonsmith_client._core.sequences import SequenceState, sequence_id
from tritonsmith_client._exchange.exchange import Flow
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._protocol.options import Options, changed
from tritonsmith_client._shared_memory.transfer import collect
from tritonsmith_client._values.buffers import Array
from tritonsmith_client._values.metadata import ModelConfig, ModelMetadata, Parameter
from tritonsmith_client._values.regions import RegionTensor
from tritonsmith_client._values.result import Result
from tritonsmith_client.errors import TritonError

__all__ = ["AsyncModel", "AsyncSequence"]


class AsyncModel:
    """A model on a server: ``await model(image)``. Tasks of one event loop may share it."""

    def __init__(
        self, client: ClientCore, runner: AsyncRunner, core: ModelCore, options: Options
    ) -> None:
        self._client = client
        self._runner = runner
        self._core = core
        self._options = options

    @property
    def name(self) -> str:
        return self._core.name

    @property
    def version(self) -> str:
        """See `Model.version`."""
        return self._core.version

    @property
    def metadata(self) -> ModelMetadata:
        """See `Model.metadata`."""
        return self._core.signature.metadata

    @property
    def config(self) -> ModelConfig:
        """See `Model.config`."""
        return self._core.signature.config

    async def __call__(self, *args: Any, **named: Any) -> Result:
        """Runs the model; see `Model.__call__`. Cancelling the task ends the call."""
        core, options, runner = self._core, self._options, self._runner
        deadline = self._client.deadline(options.timeout)
        exchange = core.builder.direct(args, named, options)
        if exchange is None:
            return await runner.run(core.infer(args, named, options, deadline), deadline)
        try:
            result = await runner.transport.send(exchange, deadline)
        except TritonError as error:
            flow = core.recover(exchange, [error], args, named, options, deadline)
            return await runner.run(flow, deadline)
        if exchange.lease is not None:
            collect(exchange.lease, result)
        return result

    def submit(self, *args: Any, **named: Any) -> asyncio.Future[Result]:
        """Starts the call at once; await the future, or ``cancel()`` it."""

        def start(deadline: Deadline) -> Flow[Result]:
            return self._core.infer(args, named, self._options, deadline)

        return self._runner.submit(start, self._client.budget(self._options.timeout))

    def map(
        self,
        items: Iterable[Any] | AsyncIterable[Any],
        *,
        concurrency: int = 8,
        progress: Callable[[int], object] | None = None,
    ) -> AsyncIterator[Result]:
        """``async for result in model.map(items)``; see `Model.map`."""
        if not isinstance(items, AsyncIterable):
            ITEMS(items, model=self.name)
        concurrency = CONCURRENCY(concurrency, model=self.name)
        return self._map(_iterate(items), concurrency, PROGRESS(progress, model=self.name))

    async def _map(
        self,
        items: AsyncIterator[Any],
        concurrency: int,
        progress: Callable[[int], object] | None,
    ) -> AsyncIterator[Result]:
        waiting: deque[asyncio.Future[Result]] = deque()
        done = 0
        try:
            async for item in items:
                waiting.append(self.submit(*(item if isinstance(item, tuple) else (item,))))
                if len(waiting) < concurrency:
                    continue
                yield await waiting.popleft()
                done += 1
                if progress is not None:
                    progress(done)
            while waiting:
                yield await waiting.popleft()
                done += 1
                if progress is not None:
                    progress(done)
        finally:
            for future in waiting:
                future.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    def stream(self, *args: Any, **named: Any) -> AsyncIterator[Result]:
        """``async for result in model.stream(prompt)``; see `Model.stream`."""
        return self._stream(args, named, self._options)

    async def _stream(
        self, args: tuple[Any, ...], named: Mapping[str, Any], options: Options
    ) -> AsyncIterator[Result]:
        core = self._core
        timeout = self._client.budget(options.timeout)
        recover = partial(core.recover_stream, args, named, options)
        deadline = Deadline(timeout)
        exchange = await self._runner.run(core.stream(args, named, options, deadline), deadline)
        parts = self._runner.stream(exchange, recover, timeout)
        try:
            async for part in parts:
                yield part
        finally:
            await parts.aclose()  # type: ignore[attr-defined]  # an async generator

    def sequence(self, id: int | str | None = None) -> AsyncSequence:
        """``async with model.sequence() as track``; see `Model.sequence`."""
        return AsyncSequence(self, SequenceState(sequence_id(id, self.name)))

    def using(
        self,
        *,
        outputs: Iterable[str] | None = None,
        timeout: float | EllipsisType | None = ...,
        id: str | None = None,
        parameters: Mapping[str, Parameter] | None = None,
        priority: int | None = None,
        queue_timeout: float | None = None,
        headers: Mapping[str, str] | None = None,
        classes: int | None = None,
        convert: bool | None = None,
        split: bool | None = None,
        hedge: float | None = None,
        out: Mapping[str, Array | RegionTensor] | None = None,
    ) -> AsyncModel:
        """The same model with other options; see `Model.using`."""
        options = changed(
            self._options,
            self.name,
            outputs=outputs,
            timeout=timeout,
            id=id,
            parameters=parameters,
            priority=priority,
            queue_timeout=queue_timeout,
            headers=headers,
            classes=classes,
            convert=convert,
            split=split,
            hedge=hedge,
            out=out,
        )
        return AsyncModel(self._client, self._runner, self._core, options)

    def __repr__(self) -> str:
        return f"AsyncModel({self._core.describe()})"


class AsyncSequence:
    """A running sequence; made by `AsyncModel.sequence`."""

    def __init__(self, model: AsyncModel, state: SequenceState) -> None:
        self._model = model
        self._state = state
        self._lock = asyncio.Lock()

    @property
    def id(self) -> int | str:
        return self._state.id

    async def __call__(self, *args: Any, **named: Any) -> Result:
        """See `Sequence.__call__`."""
        return await self._send(args, named, end=False)

    async def end(self, *args: Any, **named: Any) -> Result:
        """See `Sequence.end`."""
        return await self._send(args, named, end=True)

    def stream(self, *args: Any, **named: Any) -> AsyncIterator[Result]:
        """``async for result in track.stream(frame)``; see `Sequence.stream`."""
        return self._stream(args, named, end=False)

    def end_stream(self, *args: Any, **named: Any) -> AsyncIterator[Result]:
        """See `Sequence.end_stream`."""
        return self._stream(args, named, end=True)

    async def _stream(
        self, args: tuple[Any, ...], named: Mapping[str, Any], end: bool
    ) -> AsyncIterator[Result]:
        model, state = self._model, self._state
        async with self._lock:
            step = state.step(end)
            state.streaming = True
        parts = model._stream(args, named, replace(model._options, sequence=step))
        try:
            async for part in parts:
                state.done(step, args, named)
                yield part
            state.done(step, args, named)
        finally:
            state.streaming = False
            await parts.aclose()  # type: ignore[attr-defined]  # an async generator

    async def _send(self, args: tuple[Any, ...], named: Mapping[str, Any], end: bool) -> Result:
        model = self._model
        async with self._lock:
            step = self._state.step(end)
            options = replace(model._options, sequence=step)
            deadline = model._client.deadline(options.timeout)
            flow = model._core.infer(args, named, options, deadline)
            result = await model._runner.run(flow, deadline)
            self._state.done(step, args, named)
            return result

    async def __aenter__(self) -> AsyncSequence:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        farewell = self._state.farewell()
        if farewell is None:
            return
        with contextlib.suppress(TritonError):
            if self._model.config.decoupled:
                async for _ in self._stream(*farewell, end=True):
                    pass
            else:
                await self._send(*farewell, end=True)


async def _iterate(items: Iterable[Any] | AsyncIterable[Any]) -> AsyncIterator[Any]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
