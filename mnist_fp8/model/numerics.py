"""What each layer of TE in a model computed, held to the oracle on the tensors that it saw; and their metadata."""

from collections.abc import Iterable, Iterator

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.model import dense_calls, fused_calls
from mnist_fp8.model.case import Factory
from mnist_fp8.model.in_force import kept_problems, length_problems
from mnist_fp8.model.judgement import Error, Judgement
from mnist_fp8.model.metadata import positions
from mnist_fp8.model.problems import Problem
from mnist_fp8.model.run import passes
from mnist_fp8.te.calls import Call


def numerics_problems(factory: Factory, recipe: RecipeConfig | None) -> list[Problem]:
    """Outputs and gradients of layers that are not what their operands give in the recipe."""
    return [problem for call in passes(factory, recipe).calls for problem in call_problems(call, recipe)]


def metadata_problems(factory: Factory, recipe: RecipeConfig) -> list[Problem]:
    """Metadata that do not follow from what a layer saw, or that another recipe keeps."""
    return [problem for call in passes(factory, recipe).calls for problem in metadata_problems_of(call, recipe)]


def metadata_problems_of(call: Call, recipe: RecipeConfig | None) -> Iterator[Problem]:
    """The same of one call: that it keeps metadata if its recipe does, and what these are."""
    quantizes = any(product.quantized for product in call.site.products)
    keeps = any(True for _ in positions(call.inputs))
    if quantizes and recipe and keeps is not te.keeps_metadata(recipe):
        kind = "keeps FP8 metadata" if keeps else "keeps no FP8 metadata"
        yield Problem(
            str(call.site), f"{kind}, which {recipe.name} does{'' if not keeps else ' not'}: another recipe is in force"
        )
    if quantizes and recipe and keeps:
        yield from length_problems(call, recipe)
    judgement = _judged(call, recipe)
    if recipe and judgement is not None:
        yield from kept_problems(str(call.site), judgement.amaxes, recipe)


def layers_without_oracle(factory: Factory, recipe: RecipeConfig | None) -> set[str]:
    """The layers that are called in a model, and whose numbers nothing here predicts."""
    calls = passes(factory, recipe).calls
    return {str(call.site) for call in calls if not _errors(call, recipe)}


def errors_in_tolerances(calls: Iterable[Call], recipe: RecipeConfig | None) -> dict[str, float]:
    """The largest error of each tensor of each predicted layer, in units of what rounding explains."""
    largest = dict[str, float]()
    for call in calls:
        for error in _errors(call, recipe):
            name = f"{call.site} {error.tensor}"
            largest[name] = max(largest.get(name, 0.0), error.in_tolerances)
    return dict(sorted(largest.items()))


def _errors(call: Call, recipe: RecipeConfig | None) -> tuple[Error, ...]:
    """The errors of output and gradients; none where no oracle predicts them."""
    judgement = _judged(call, recipe)
    return judgement.errors if judgement else ()


def _judged(call: Call, recipe: RecipeConfig | None) -> Judgement | None:
    """What an oracle says of a call. A layer that is not to be quantized (`float8`) computes as without a recipe."""
    in_force = recipe if any(product.quantized for product in call.site.products) else None
    return dense_calls.judged(call, in_force) or fused_calls.judged(call, in_force)


def call_problems(call: Call, recipe: RecipeConfig | None) -> Iterator[Problem]:
    """The same of one call."""
    for error in _errors(call, recipe):
        if error.in_tolerances > 1:
            explained = f"rounding explains {error.allowed:.3g}, of a norm of {error.size:.3g}"
            yield Problem(str(call.site), f"{error.tensor} is off by a norm of {error.off:.3g}; {explained}")
