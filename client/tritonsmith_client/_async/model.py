"""A model of the asynchronous client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from functools import partial
from types import EllipsisType, TracebackType
from typing import Any

from tritonsmith_client._async.concurrent_calls import AsyncConcurrentCalls
from tritonsmith_client._async.driver import AsyncDriver
from tritonsmith_client._core.call_plan import SharedExchange
from tritonsmith_client._core.client import ClientCore
from tritonsmith_client._core.model import ModelCore
from tritonsmith_client._core.sequences import SequenceState, sequence_id
from tritonsmith_client._exchange.exchange import HookError
from tritonsmith_client._protocol.options import Options, changed
from tritonsmith_client._values.buffers import Array
from tritonsmith_client._values.metadata import ModelConfig, ModelMetadata, Parameter
from tritonsmith_client._values.regions import RegionTensor
from tritonsmith_client._values.result import Result
from tritonsmith_client.errors import TritonError

__all__ = ["AsyncModel", "AsyncSequence"]


class AsyncModel(AsyncConcurrentCalls):
    """A model on a server. Call it with numpy arrays; tasks of one event loop may share it.

    await model(image)                        by position
    await model(input_ids=ids, mask=mask)     by name
    await model({"input.1": image})           by name, where the name is no identifier
    await model.using(outputs=["logits"], timeout=2.0)(image)
    """

    def __init__(
        self, client: ClientCore, driver: AsyncDriver, core: ModelCore, options: Options
    ) -> None:
        self._client = client
        self._driver = driver
        self._core = core
        self._options = options

    @property
    def name(self) -> str:
        return self._core.name

    @property
    def version(self) -> str:
        """The version that was asked for; empty for the newest."""
        return self._core.version

    @property
    def metadata(self) -> ModelMetadata:
        """Inputs and outputs, as the server described them last."""
        return self._core.info.metadata

    @property
    def config(self) -> ModelConfig:
        """The configuration, as the server described it last."""
        return self._core.info.config

    async def __call__(self, *args: Any, **named: Any) -> Result:
        """Run the model. Cancelling the task ends the call.

        Args:
            args: arrays in the order of `metadata.inputs`, or one mapping from name to array.
            named: arrays by name.

        Raises:
            InputError: a name, data type, shape or batch size does not fit; nothing was sent.
            DeadlineExceededError: there was no result in time.
            StatusError: the server refused or failed; its subclasses say how.
        """
        core, options, driver = self._core, self._options, self._driver
        deadline = self._client.deadline(options.timeout)
        exchange = core.builder.direct(args, named, options)
        if exchange is None:
            return await driver.run(core.infer(args, named, options, deadline), deadline)
        try:
            result = await driver.transport.send(exchange, deadline)
        except TritonError as error:
            flow = core.recover(exchange, [error], args, named, options, deadline)
            return await driver.run(flow, deadline)
        except HookError as failure:
            raise failure.error from failure.error.__cause__
        if isinstance(exchange, SharedExchange):
            exchange.collect(result)
        return result

    def stream(self, *args: Any, **named: Any) -> AsyncIterator[Result]:
        """Run a decoupled model: yields its responses as they come, any number of them.

        The timeout counts for each response. Leave the loop early, or aclose() the iterator, and
        the server is told to stop. Of a model that is not decoupled it yields the one response.

        Over HTTP (Triton's generate extension, JSON) each input of a decoupled model is one row of
        numbers or text, and outputs have the shapes that the metadata let expect; gRPC has no such
        limits.
        """
        return self._stream(args, named, self._options)

    def _stream(
        self, args: tuple[Any, ...], named: Mapping[str, Any], options: Options
    ) -> AsyncIterator[Result]:
        core = self._core
        start = partial(core.stream, args, named, options)
        recover = partial(core.recover_stream, args, named, options)
        return self._driver.stream(start, recover, self._client.budget(options.timeout))

    def sequence(self, id: int | str | None = None) -> AsyncSequence:
        """Return a sequence of requests to a model that keeps state between them.

            async with model.sequence() as track:
                for frame in frames:
                    boxes = await track(frame)

        Args:
            id: an int from 1 to 2**63 - 1, or a text of at most 128 bytes; a random number if
                left out.

        Raises:
            InputError: it is neither, or means "no sequence" to the server.
        """
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
        """Return the same model with other options; what is left out stays as it is.

        Args:
            outputs: names of the wanted outputs; all if empty.
            timeout: seconds for the whole call, None for no deadline.
            id: comes back in the result.
            parameters: reach the model; bool, int of 64 bits, float or str.
            priority: 1 is the highest, 0 the model's default.
            queue_timeout: seconds that a request may wait in the server's queue, counted in
                microseconds; 0 for the model's default.
            headers: HTTP headers or gRPC metadata, besides the client's; ASCII.
            classes: asks for so many classes of each output; see `Result.classes`.
            convert: whether numbers of another data type are converted (False at first).
            split: whether a batch over max_batch_size is sent in parts (True at first).
            hedge: seconds after which a request without an answer is sent once more, to the next
                server where there are several; the first answer counts and the other attempt is
                cancelled. For models that may run twice; never within sequences. 0 (at first)
                for never.
            out: arrays that take the outputs of these names, or tensors in regions of shared
                memory, into which the server then writes them.

        Raises:
            InputError: one of them has no meaning, or could not be sent as it is.
        """
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
        return AsyncModel(self._client, self._driver, self._core, options)

    def __repr__(self) -> str:
        return f"AsyncModel({self._core.describe()})"


class AsyncSequence:
    """A running sequence; made by `AsyncModel.sequence`. Its calls are made one after the other."""

    def __init__(self, model: AsyncModel, state: SequenceState) -> None:
        self._model = model
        self._state = state
        self._lock = asyncio.Lock()

    @property
    def id(self) -> int | str:
        return self._state.id

    async def __call__(self, *args: Any, **named: Any) -> Result:
        """Return the next request.

        Never repeated after a failure. Arguments as for `AsyncModel`.
        """
        return await self._send(args, named, end=False)

    async def end(self, *args: Any, **named: Any) -> Result:
        """Return the last request. Without it the last one is sent again to end the sequence."""
        return await self._send(args, named, end=True)

    def stream(self, *args: Any, **named: Any) -> AsyncIterator[Result]:
        """Give the next request to a decoupled model, over gRPC: yields its responses as they come.

        It is sent when the first of them is asked for; see `AsyncModel.stream`. The next request
        has to wait until this one's responses are read, or the iterator is closed.
        """
        return self._stream(args, named, end=False)

    def end_stream(self, *args: Any, **named: Any) -> AsyncIterator[Result]:
        """As `stream`, for the last request; see `end`."""
        return self._stream(args, named, end=True)

    async def _stream(
        self, args: tuple[Any, ...], named: Mapping[str, Any], end: bool
    ) -> AsyncIterator[Result]:
        model, state = self._model, self._state
        async with self._lock:
            step = state.step(end)
            state.streaming = True
        try:
            parts: Any = model._stream(args, named, replace(model._options, sequence=step))
            async with contextlib.aclosing(parts):
                async for part in parts:
                    state.done(step, args, named)
                    yield part
            state.done(step, args, named)
        finally:
            state.streaming = False

    async def _send(self, args: tuple[Any, ...], named: Mapping[str, Any], end: bool) -> Result:
        model = self._model
        async with self._lock:
            step = self._state.step(end)
            options = replace(model._options, sequence=step)
            deadline = model._client.deadline(options.timeout)
            flow = model._core.infer(args, named, options, deadline)
            result = await model._driver.run(flow, deadline)
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
        # Only frees the server's slot: whatever goes wrong here, its idle timeout does too.
        with contextlib.suppress(TritonError):
            if self._model.config.decoupled:
                async for _ in self._stream(*farewell, end=True):
                    pass
            else:
                await self._send(*farewell, end=True)
