"""A model as the client knows it: the flows behind every call, for both shells. No I/O."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

from tritonsmith_client._core.batching import batch_size, join, parts
from tritonsmith_client._core.call_plan import Ready, SharedExchange
from tritonsmith_client._core.input_checks import bind, check_outputs, check_tensors, converted
from tritonsmith_client._core.region_requests import collected, is_placed, region_request
from tritonsmith_client._core.request_builder import RequestBuilder
from tritonsmith_client._core.retries import Retry, attempts
from tritonsmith_client._exchange.exchange import Asked, Exchange, Flow, Gather, Hedge
from tritonsmith_client._exchange.status import E
from tritonsmith_client._net.deadline import Deadline
from tritonsmith_client._protocol.options import Options
from tritonsmith_client._protocol.protocol import WireProtocol
from tritonsmith_client._shared_memory.placement import fixed_sizes, learn, worth_sharing
from tritonsmith_client._shared_memory.transfer import Sharing
from tritonsmith_client._values.buffers import Array
from tritonsmith_client._values.metadata import ModelInfo
from tritonsmith_client._values.regions import RegionTensor
from tritonsmith_client._values.result import Result
from tritonsmith_client.errors import (
    InputError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    ResponseError,
    TritonError,
)

__all__ = ["ModelCore", "read_model_info"]

# What the server says when a region is not registered, or too small for an output.
_NOT_SHARED = (InvalidArgumentError, NotFoundError, InternalError)


def read_model_info(
    protocol: WireProtocol, name: str, version: str, retry: Retry, deadline: Deadline
) -> Flow[ModelInfo]:
    """Return what the server says about a model. A NotFoundError says what there is instead."""
    try:
        return (yield from _read_info(protocol, name, version, retry, deadline))
    except NotFoundError as error:
        raise (yield from _explained(error, protocol, name, version)) from error.__cause__


def _explained(
    error: NotFoundError, protocol: WireProtocol, name: str, version: str
) -> Flow[NotFoundError]:
    from tritonsmith_client._core.not_found import explained  # for calls that failed only

    if not error.server_message:  # it is not the server that does not find it
        return error
    return (yield from explained(error, protocol, name, version))


def _about(error: E, model: str) -> E:
    """Return the error with the model that it is about, for what knows of tensors only."""
    from tritonsmith_client._core.hints import restated  # for calls that failed only

    return restated(error, error.message, model=model, tensor=error.tensor, hint=error.hint)


def _read_info(
    protocol: WireProtocol, name: str, version: str, retry: Retry, deadline: Deadline
) -> Flow[ModelInfo]:
    metadata = yield from attempts(protocol.model_metadata(name, version), retry, deadline)
    config = yield from attempts(protocol.model_config(name, version), retry, deadline)
    return ModelInfo(metadata, config)


class ModelCore:
    """Checks, builds and retries requests to one version of one model.

    Threads may share it: its state is replaced as a whole.

    Attributes:
        builder: its ``direct`` gives the whole of a call for which `infer` would send one request,
            with no need to look; `recover` is for when that fails.
    """

    def __init__(
        self,
        protocol: WireProtocol,
        name: str,
        version: str,
        retry: Retry,
        info: ModelInfo,
        sharing: Sharing | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self._protocol = protocol
        self._retry = retry
        self._sharing = sharing
        self.builder = RequestBuilder(protocol, name, version, info, sharing)

    @property
    def info(self) -> ModelInfo:
        return self.builder.info

    def describe(self) -> str:
        """Return the model in one line, for a repr."""
        metadata = self.info.metadata
        inputs, outputs = (", ".join(map(str, t)) for t in (metadata.inputs, metadata.outputs))
        return f"'{self.name}': {inputs} -> {outputs}"

    def recover(
        self,
        exchange: Exchange[Result],
        failed: list[TritonError],
        args: tuple[Any, ...],
        named: Mapping[str, Any],
        options: Options,
        deadline: Deadline,
    ) -> Flow[Result]:
        """Return what `infer` would do after the first attempt at a direct request failed.

        Args:
            failed: as for `attempts`.
        """
        try:
            if not isinstance(exchange, SharedExchange):
                return (yield from attempts(exchange, self._retry, deadline, failed))
            shared = yield from self._through_memory(exchange, deadline, failed)
            if shared is not None:
                return shared
        except NotFoundError as error:
            raise (
                yield from _explained(error, self._protocol, self.name, self.version)
            ) from error.__cause__
        except InvalidArgumentError:
            if not (yield from self._refresh(deadline)):
                raise
        return (yield from self.infer(args, named, options, deadline))

    def infer(
        self, args: tuple[Any, ...], named: Mapping[str, Any], options: Options, deadline: Deadline
    ) -> Flow[Result]:
        """One request and its result; once more if the model turns out to have been reloaded."""
        try:
            try:
                result = yield from self._once(args, named, options, deadline)
            except (InputError, InvalidArgumentError):
                if options.sequence is not None or not (yield from self._refresh(deadline)):
                    raise
                result = yield from self._once(args, named, options, deadline)
            return into(result, options.out) if options.out else result
        except NotFoundError as error:
            raise (
                yield from _explained(error, self._protocol, self.name, self.version)
            ) from error.__cause__
        except (InputError, InvalidArgumentError, ResponseError) as error:
            if error.model:
                raise
            raise _about(error, self.name) from error.__cause__

    def stream(
        self, args: tuple[Any, ...], named: Mapping[str, Any], options: Options, deadline: Deadline
    ) -> Flow[Exchange[Result | None]]:
        """Give a request whose responses are read one by one; None for a response without content.

        Raises:
            InputError: something does not fit, or the protocol cannot carry it in a stream.
        """
        try:
            return self._streamed(args, named, options)
        except InputError:
            if not (yield from self._refresh(deadline)):
                raise
            return self._streamed(args, named, options)

    def recover_stream(
        self,
        args: tuple[Any, ...],
        named: Mapping[str, Any],
        options: Options,
        what: Asked,
        error: TritonError,
        final: bool,
        deadline: Deadline,
    ) -> Flow[Exchange[Result | None]]:
        """Give what to ask instead after a stream failed: raises the error where there is nothing.

        Args:
            what: was asked.
            final: a response had come, or this was asked instead: nothing is asked again.
        """
        from tritonsmith_client._core.hints import completed  # for calls that failed only

        try:
            raise completed(error, what) from error.__cause__
        except NotFoundError as absent:
            explained = yield from _explained(absent, self._protocol, self.name, self.version)
            raise explained from absent.__cause__
        except InvalidArgumentError:
            if final or not (yield from self._refresh(deadline)):
                raise
            return self._streamed(args, named, options)

    def _streamed(
        self, args: tuple[Any, ...], named: Mapping[str, Any], options: Options
    ) -> Exchange[Result | None]:
        """Ask a model that is not decoupled as ever.

        Over both protocols an ordinary inference takes every tensor, and its failures have a
        status.
        """
        builder = self.builder
        metadata = builder.info.metadata
        try:
            arrays = bind(metadata, args, named)
            if is_placed(arrays, options.out):
                raise InputError("a stream takes no tensors in shared memory: give arrays")
            arrays = converted(metadata, arrays) if options.convert else arrays
            exchange: Exchange[Any] = builder.inline(builder.ready(arrays, options), options)
            if not builder.info.config.decoupled:
                return exchange
            return self._protocol.streamed(self.version, builder.info, arrays, exchange, options)
        except InputError as error:
            if error.model:
                raise
            raise _about(error, self.name) from error.__cause__

    def _refresh(self, deadline: Deadline) -> Flow[bool]:
        """Read the signature again; True if it has changed, False too if that is not to be had."""
        try:
            now = yield from _read_info(
                self._protocol, self.name, self.version, self._retry, deadline
            )
        except TritonError:  # what the caller did wrong says more
            return False
        if now == self.info:
            return False
        self.builder = RequestBuilder(self._protocol, self.name, self.version, now, self._sharing)
        return True

    def _once(
        self, args: tuple[Any, ...], named: Mapping[str, Any], options: Options, deadline: Deadline
    ) -> Flow[Result]:
        builder = self.builder
        metadata, config = builder.info.metadata, builder.info.config
        arrays = bind(metadata, args, named)
        if options.out:
            check_outputs(metadata, options.out)
        if options.convert:
            arrays = converted(metadata, arrays)
        if is_placed(arrays, options.out):
            exchange = region_request(
                self._protocol, self.name, self.version, builder.info, arrays, options
            )
            result: Result = yield from attempts(exchange, self._retry, deadline)
            return collected(result, options.out)
        limit = config.max_batch_size
        if limit and options.split and options.sequence is None and batch_size(arrays) > limit:
            check_tensors(metadata, config, arrays, limit=sys.maxsize)
            pieces = parts(arrays, limit)
            flows = [self._send(builder, piece, options, deadline) for piece in pieces]
            results = yield Gather(flows)
            return join(results, [batch_size(piece) for piece in pieces])
        return (yield from self._send(builder, arrays, options, deadline))

    def _send(
        self,
        builder: RequestBuilder,
        arrays: dict[str, Array],
        options: Options,
        deadline: Deadline,
    ) -> Flow[Result]:
        """One request, through shared memory where that works."""
        ready = builder.ready(arrays, options)
        sharing, plan = self._sharing, ready.plan
        if options.hedge and options.sequence is None:
            exchange = builder.inline(ready, options)
            exchange.tried = set()
            hedge = Hedge(exchange, options.hedge)
            return (yield from attempts(hedge, self._retry, deadline))
        if sharing is None:
            return (yield from attempts(builder.inline(ready, options), self._retry, deadline))
        learning = not sharing.off and not plan.inline and options.may_share
        if learning and plan.outputs and worth_sharing(sum(ready.sizes), plan.outputs):
            shared = yield from self._share(builder, ready, options, deadline)
            if shared is not None:
                return shared
        exchange = builder.inline(ready, options)
        result: Result = yield from attempts(exchange, self._retry, deadline)
        if learning:
            plan.outputs, plan.layout = learn(result), None
            plan.small = not worth_sharing(sum(ready.sizes), plan.outputs)
        return result

    def _share(
        self, builder: RequestBuilder, ready: Ready, options: Options, deadline: Deadline
    ) -> Flow[Result | None]:
        """Send through shared memory; None where the request has to hold its bytes."""
        outputs = ready.plan.outputs
        assert self._sharing is not None and outputs is not None
        layout = builder.layout(ready, outputs)
        lease = yield from self._sharing.lease(layout.placement.size)
        if lease is None:
            return None
        exchange = builder.shared(layout, lease, ready.buffers, options)
        return (yield from self._through_memory(exchange, deadline))

    def _through_memory(
        self,
        exchange: SharedExchange,
        deadline: Deadline,
        failed: list[TritonError] | None = None,
    ) -> Flow[Result | None]:
        """As `_share`, for a request that is ready. Args: failed: as for `attempts`."""
        sharing, plan = self._sharing, exchange.layout.plan
        assert sharing is not None
        try:
            result = yield from attempts(exchange, self._retry, deadline, failed)
        except _NOT_SHARED:
            if (yield from sharing.knows(exchange.lease.region.name)):
                if plan.outputs is not None and fixed_sizes(self.info, plan.outputs):
                    raise  # the model's own answer: it is not executed again
                plan.outputs, plan.layout = None, None  # an output may have grown
                plan.failed, plan.inline = True, plan.failed
            else:  # a server that was started anew
                sharing.failed()
            return None
        plan.failed = False
        sharing.worked()
        exchange.collect(result)
        return result


def into(result: Result, out: Mapping[str, Array | RegionTensor]) -> Result:
    """Return the result with these arrays in place of its own, which are copied into them.

    Raises:
        InputError: an array has another shape or data type than the output, or there is none.
    """
    outputs = dict(result)
    for name, array in out.items():
        if isinstance(array, RegionTensor):
            continue  # the server has written it
        given = result[name]
        if (array.shape, array.dtype) != (given.shape, given.dtype) or not array.flags.writeable:
            raise InputError(
                f"out['{name}'] is {array.dtype}{list(array.shape)} and the output is "
                f"{given.dtype}{list(given.shape)}; give a writable array that is the same",
                name,
            )
        array[...] = given
        outputs[name] = array
    return result.holding(outputs)
