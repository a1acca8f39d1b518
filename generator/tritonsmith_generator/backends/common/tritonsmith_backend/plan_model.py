"""A TensorRT plan for Triton: its config has to be the plan's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

from tritonsmith_backend.batching import Arrays, Parts
from tritonsmith_backend.cuda import Device
from tritonsmith_backend.model_config import boolean, check_shapes, plugin_paths, read_config
from tritonsmith_backend.plan_engine import Plan
from tritonsmith_backend.plan_runner import PlanRunner

__all__ = ["PlanModel"]


class PlanModel:
    """A plan with its contexts and buffers, for one instance. Raises where config and plan differ.

    Args:
        trt: the module ``tensorrt`` or ``tensorrt_rtx``.
        args: what Triton gives to ``initialize``.
        warn: called with TensorRT's warnings.
    """

    def __init__(
        self, trt: ModuleType, args: Mapping[str, str], warn: Callable[[str], None]
    ) -> None:
        if args["model_instance_kind"] != "GPU":
            raise ValueError(
                f"model '{args['model_name']}': a TensorRT plan runs on a GPU; "
                "write instance_group { kind: KIND_GPU } into its config"
            )
        self._device = Device(int(args["model_instance_device_id"]))
        self.config = read_config(args, "model.plan", self._device.compute_capability)
        self._plan = Plan(
            trt,
            self.config.path,
            warn,
            plugin_paths(self.config),
            boolean("version-compatible", self.config.parameters.get("version-compatible", "0")),
        )
        self._check()
        self._runner = PlanRunner(trt, self._plan, self._device, self.config.profiles or (0,))
        self._runner.reserve()

    def run(self, inputs: Parts, outputs: Sequence[str]) -> Arrays:
        """Return the named outputs. Raises ValueError for shapes that no profile allows."""
        return self._runner.run(inputs, outputs)

    def close(self) -> None:
        """Give the GPU's memory back."""
        self._runner.close()

    def _check(self) -> None:
        shapes, name = self._plan.shapes(), self.config.name
        check_shapes(name, self.config.inputs, {n: shapes[n] for n in self._plan.inputs}, "input")
        outputs = {n: shapes[n] for n in self._plan.outputs}
        check_shapes(name, self.config.outputs, outputs, "output")
        missing = sorted(self._plan.inputs.keys() - {t.name for t in self.config.inputs})
        if missing:
            raise ValueError(f"model '{name}': the config lacks the input(s) {', '.join(missing)}")
        if self._plan.on_host and self.config.max_batch_size:
            raise ValueError(
                f"model '{name}': {', '.join(sorted(self._plan.on_host))} are shape tensors; the "
                "embedded server serves them with max_batch_size: 0 only"
            )
