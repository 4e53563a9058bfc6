"""Models and train steps in the styles of real users, and the same with one thing wrong, as it was in real ones."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from flax import nnx

from mnist_fp8.model import Case, Factory
from models import accumulating, branches, bridged, faults, functional, scanned, transformer

_MODELS: Mapping[str, Any] = {
    "transformer": transformer.transformer,
    "scanned": scanned.scanned,
    "bridged": bridged.bridged,
    "accumulating": accumulating.accumulating,
    "branches": branches.branches,
    "functional": functional.functional,
}
CORRECT: Mapping[str, Callable[..., Case]] = _MODELS
"""Factories with nothing wrong, by the name of their model. Each takes a ``seed`` besides, of parameters and inputs."""

_OWN_RECIPE = ("scanned", "bridged", "accumulating")
"""The models that take their recipe from no autocast around."""
_IN_BF16 = "bfloat16 by bfloat16|calls no layer of Transformer Engine"
"""Until 2.4, a dense layer in BF16 is no call of Transformer Engine's function."""
BUGS: Mapping[str, tuple[Factory, str]] = {
    **{
        f"{model}: {bug}": (functools.partial(factory, carry=carry), said)
        for model, factory in _MODELS.items()
        for bug, (carry, said) in faults.CARRIES.items()
    },
    **{
        f"{model}: {bug}": (faults.with_options(_MODELS[model], **options), said)
        for model in _OWN_RECIPE
        for bug, (options, said) in faults.ENTERED.items()
    },
    "transformer: donated": (
        faults.donated(transformer.transformer, lambda old, new: new.replace(fp8_metas=old.fp8_metas)),
        "cannot be read",
    ),
    "scanned: donated": (
        faults.donated(
            scanned.scanned, lambda old, new: new.replace(params=old.params | {"params": new.params["params"]})
        ),
        "cannot be read",
    ),
    "scanned: shadowed": (faults.shadowed(scanned.scanned), _IN_BF16),
    "bridged: shadowed": (faults.shadowed(bridged.bridged), _IN_BF16),
    "bridged: nnx_default_gradient": (
        functools.partial(bridged.bridged, differentiated=nnx.Param),  # what nnx.grad differentiates by default
        "before the step",
    ),
    "accumulating: shadowed": (faults.shadowed(accumulating.accumulating), _IN_BF16),
    "accumulating: last": (
        functools.partial(accumulating.accumulating, combine=lambda _, stacked: stacked[-1]),
        "of one microbatch alone",
    ),
    "accumulating: summed": (
        functools.partial(accumulating.accumulating, combine=lambda _, stacked: stacked.sum(0)),
        "sum of",
    ),
    "accumulating: mean": (
        functools.partial(accumulating.accumulating, combine=lambda _, stacked: stacked.mean(0)),
        "mean of",
    ),
    "functional: last": (
        functools.partial(functional.functional, combine=functional.last),
        "of one microbatch alone",
    ),
    "branches: zeroed": (functools.partial(branches.branches, keep=lambda _, new: new), "zero"),
}
"""Factories with one thing wrong, with a regular expression for what a finding says of it.

All show in DelayedScaling, the only recipe that keeps metadata; those that are shadowed, in each recipe.
"""

IGNORING: Mapping[str, tuple[Factory, str]] = {
    f"{model}: {option} ignored": (faults.with_options(_MODELS[model], **{option: None}), said)
    for model in _OWN_RECIPE
    for option, said in faults.IGNORED.items()
}
"""Factories that ignore an option of DelayedScaling, likewise: it shows where the option is asked for."""
