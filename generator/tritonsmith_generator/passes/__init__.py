"""Passes: steps from one ONNX file to another, each with what it needs, ensures and reports.

recipe = for_precision("fp16", "tensorrt_rtx", "1.7.1.116")
result = run(recipe.passes, Path("model.onnx"), Path("work"))
"""

from tritonsmith_generator.passes.base import Condition, Pass, PassReport, PassResult
from tritonsmith_generator.passes.manager import PassesReport, PassProgress, run
from tritonsmith_generator.passes.recipe import Options, Recipe, for_precision
from tritonsmith_generator.passes.samples import Samples

__all__ = [
    "Condition",
    "Options",
    "Pass",
    "PassProgress",
    "PassReport",
    "PassResult",
    "PassesReport",
    "Recipe",
    "Samples",
    "for_precision",
    "run",
]
