"""From bound arrays to requests: checked once for each set of shapes, then only filled in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tritonsmith_client._core.call_plan import Alike, Layout, PreparedCall, Ready, SharedExchange
from tritonsmith_client._core.input_checks import check_classes, check_outputs, check_tensors
from tritonsmith_client._exchange.exchange import Exchange, Repeat
from tritonsmith_client._protocol.infer_request import (
    InferCall,
    InputTensor,
    RequestedOutput,
    RequestTemplate,
    memory_parameters,
)
from tritonsmith_client._protocol.options import Options
from tritonsmith_client._protocol.protocol import WireProtocol
from tritonsmith_client._shared_memory.placement import OutputSizes, place
from tritonsmith_client._shared_memory.transfer import Sharing
from tritonsmith_client._values.buffers import Array, Buffer, is_plain, wire_buffer
from tritonsmith_client._values.metadata import ModelInfo
from tritonsmith_client._values.result import Result
from tritonsmith_client.dtypes import DataType

if TYPE_CHECKING:
    from tritonsmith_client._shared_memory.pool import Lease

__all__ = ["RequestBuilder"]

_PLANS = 256


class RequestBuilder:
    """Requests to one version of one model with one signature. Threads may share it."""

    def __init__(
        self,
        protocol: WireProtocol,
        name: str,
        version: str,
        info: ModelInfo,
        sharing: Sharing | None = None,
    ) -> None:
        """Args: sharing: for what may travel through shared memory."""
        self.info = info
        self._sharing = sharing
        self._protocol = protocol
        self._name = name
        self._version = version
        self._plans: dict[Any, PreparedCall] = {}
        self._last: Alike | None = None  # with arrays by position: the next call is often alike
        self._names = tuple(tensor.name for tensor in info.metadata.inputs)

    def direct(
        self, args: tuple[Any, ...], named: Mapping[str, Any], options: Options
    ) -> Exchange[Result] | None:
        """Return the request for arrays like those of an earlier one; None for all others.

        Nothing is left to check then: a call takes half the time this way.
        """
        last, buffers = self._last, None
        if last is not None and not named and last.options is options:
            buffers = last.buffers(args)
        if last is None or buffers is None:
            last = self._direct_plan(args, named, options)
            buffers = None if last is None else last.buffers((*args, *named.values()))
        if last is None or buffers is None:
            return None
        plan = last.plan
        assert plan.prepared is not None
        sharing = self._sharing
        if sharing is None or plan.inline or plan.small:
            return plan.prepared.exchange(buffers, options.headers)
        layout = plan.layout
        if layout is not None and not plan.failed:
            lease = sharing.idle(layout.placement.size)
            if lease is not None:
                return self.shared(layout, lease, buffers, options)
        return plan.prepared.exchange(buffers, options.headers) if sharing.off else None

    def _direct_plan(
        self, args: tuple[Any, ...], named: Mapping[str, Any], options: Options
    ) -> Alike | None:
        if not options.plain:
            return None
        pairs = [*zip(self._names, args, strict=False), *named.items()]
        if len(pairs) != len(args) + len(named):
            return None
        for _, value in pairs:
            if type(value) is not np.ndarray:
                return None
        described = tuple([(name, a.dtype, a.shape) for name, a in pairs])
        plan = self._plans.get((described, options.key))
        if plan is None or not plan.direct:
            return None
        last = Alike(options, [(array.dtype, array.shape) for _, array in pairs], plan)
        if not named:
            self._last = last
        return last

    def ready(self, arrays: dict[str, Array], options: Options) -> Ready:
        """Check arrays. Raises InputError for what does not fit."""
        plan = self._plan(arrays, options)
        tensors = plan.tensors
        wire = [wire_buffer(array, tensors[name][0], name) for name, array in arrays.items()]
        return Ready(plan, arrays, wire)

    def inline(self, ready: Ready, options: Options) -> Exchange[Result]:
        """Return the request with its tensors inside."""
        prepared = ready.plan.prepared
        if prepared is None:
            prepared = self._prepare(ready.plan.tensors, ready.sizes, options)
        affinity = None if options.sequence is None else options.sequence.id
        return prepared.exchange(ready.buffers, options.headers, affinity)

    def layout(self, ready: Ready, outputs: OutputSizes) -> Layout:
        """Where its tensors lie in a region, with outputs of these sizes."""
        plan = ready.plan
        if plan.layout is not None:
            return plan.layout
        layout = Layout(plan, place(ready.sizes, outputs), {})
        if plan.prepared is not None:  # the sizes of strings differ each time
            plan.layout = layout
        return layout

    def shared(
        self, layout: Layout, lease: Lease, buffers: list[Buffer], options: Options
    ) -> SharedExchange:
        """Copy the inputs to shared memory, and return the request whose tensors lie there."""
        region = lease.region.name
        prepared = layout.requests.get(region)
        if prepared is None:
            call = self._shared_call(layout, options, region)
            prepared = self._protocol.request_template(call, Repeat.UNEXECUTED)
            if len(layout.requests) >= _PLANS:
                layout.requests.clear()
            layout.requests[region] = prepared
        memory = lease.region.bytes
        for buffer, (start, end) in zip(buffers, layout.placement.inputs):  # noqa: B905  # quicker
            memory[start:end] = buffer
        return SharedExchange(
            prepared.what,
            prepared.route,
            prepared.framing,
            prepared.parse,
            prepared.repeat,
            options.headers,
            foreseen=prepared.next.reply,
            lease=lease,
            layout=layout,
        )

    def _plan(self, arrays: dict[str, Array], options: Options) -> PreparedCall:
        described = tuple([(name, a.dtype, a.shape) for name, a in arrays.items()])
        key = (described, options.key)
        once = options.sequence is not None or bool(options.id)  # never the same request again
        plan = None if once else self._plans.get(key)
        if plan is None:
            plan = self._new_plan(arrays, options)
            if not once:
                if len(self._plans) >= _PLANS:
                    self._plans.clear()
                self._plans[key] = plan
        return plan

    def _new_plan(self, arrays: Mapping[str, Array], options: Options) -> PreparedCall:
        metadata, config = self.info.metadata, self.info.config
        types = check_tensors(metadata, config, arrays)
        check_outputs(metadata, options.outputs)
        if options.classes:
            check_classes(metadata, options.outputs)
        tensors = {name: (types[name], array.shape) for name, array in arrays.items()}
        if any(dtype.wire == "BYTES" for dtype in types.values()):
            return PreparedCall(tensors, None)
        prepared = self._prepare(tensors, [array.nbytes for array in arrays.values()], options)
        return PreparedCall(tensors, prepared, direct=all(map(is_plain, arrays.values())))

    def _prepare(
        self,
        tensors: Mapping[str, tuple[DataType, tuple[int, ...]]],
        sizes: list[int],
        options: Options,
    ) -> RequestTemplate:
        inputs = tuple(
            InputTensor(name, dtype.wire, shape, size)
            for (name, (dtype, shape)), size in zip(tensors.items(), sizes, strict=True)
        )
        repeat = Repeat.UNEXECUTED if options.sequence is None else Repeat.NEVER
        return self._protocol.request_template(
            self._call(inputs, self._wanted(options), options), repeat
        )

    def _shared_call(self, layout: Layout, options: Options, region: str) -> InferCall:
        tensors, placement = layout.plan.tensors.items(), layout.placement
        inputs = tuple(
            InputTensor(
                name, dtype.wire, shape, end - start, memory_parameters(region, start, end - start)
            )
            for (name, (dtype, shape)), (start, end) in zip(tensors, placement.inputs, strict=True)
        )
        outputs = tuple(
            RequestedOutput(
                name,
                memory_parameters(region, *placement.outputs[name])
                if name in placement.outputs
                else {},
            )
            for name in options.outputs or [tensor.name for tensor in self.info.metadata.outputs]
        )
        return self._call(inputs, outputs, options)

    def _call(
        self,
        inputs: tuple[InputTensor, ...],
        outputs: tuple[RequestedOutput, ...],
        options: Options,
    ) -> InferCall:
        parameters = options.wire_parameters()
        return InferCall(self._name, self._version, inputs, outputs, options.id, parameters)

    def _wanted(self, options: Options) -> tuple[RequestedOutput, ...]:
        names = options.outputs
        if not options.classes:
            return tuple(RequestedOutput(name) for name in names)
        names = names or tuple(tensor.name for tensor in self.info.metadata.outputs)
        return tuple(RequestedOutput(name, {"classification": options.classes}) for name in names)
