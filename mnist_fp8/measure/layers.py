"""What each layer is and computes: variables, products, errors and metadata, from one step in each mode.

Keys read ``layers/LayerNormMLP/silu x linear/DelayedScaling/numerics/…``: after subject, case and mode comes the area
whose entries are of the same kind.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.modes import RECIPES, TENSOR_SCALED
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.measure.common import modes, repeated
from mnist_fp8.measure.programs import counted, formats
from mnist_fp8.measure.variables import leaves
from mnist_fp8.oracle import arithmetic, dense
from mnist_fp8.oracle.arithmetic import Passes
from mnist_fp8.oracle.dense import FORMATS, FP8_MAX, TENSORS
from mnist_fp8.oracle.tolerances import scale_tolerance
from mnist_fp8.programs import jaxprs
from mnist_fp8.record.entries import (
    UNFUSED,
    Agreement,
    Quantity,
    Support,
    Text,
    Value,
)
from mnist_fp8.record.keys import BF16
from mnist_fp8.subjects import asked_subjects, attention, attention_backends
from mnist_fp8.subjects.layer import Layer, Step, next_variables, read_metas, step, why_not
from mnist_fp8.subjects.prediction import amax_tolerance, distance, expected, pairs, scales_of, tolerance_of
from mnist_fp8.subjects.subject import Case, NotInReleaseError, Subject

STEPS = 3
"""With metadata: so many steps leave no scale as it was at first."""
_ATTENTION = (attention.SUBJECT, attention.PACKED)


class _Taken(NamedTuple):
    """A step: what went in and came out, the variables of the next one, and what was expected."""

    given: tuple[Any, Any, Any]
    found: Step
    following: dict[str, Any]
    wanted: Passes


def probes() -> Mapping[str, Callable[[], Mapping[str, Value]]]:
    """Measurements by the beginning of their keys."""
    found: dict[str, Callable[[], Mapping[str, Value]]] = {}
    for subject in asked_subjects():
        for case in subject.recorded_cases:
            key = f"layers/{subject.name}/{case.name}"
            found[f"{key}/support"] = functools.partial(_support, subject, case, key)
            # What a block-scaled recipe changes of a layer, its first case shows.
            known = RECIPES if case is subject.cases[0] else TENSOR_SCALED
            recipes = [name for name in known if name in modes()] if subject.products(case) else []
            for name in (BF16, *recipes):
                found[f"{key}/{name}"] = functools.partial(_layer, subject, case, name, key)
        if subject in _ATTENTION and te.engine().kind is RunKind.KERNEL:
            for case in subject.cases:
                key = f"layers/{subject.name}/{case.name}/backend"
                found[key] = functools.partial(_backend, case, key)
    return found


def _support(subject: Subject, case: Case, key: str) -> dict[str, Value]:
    reason = why_not(subject, case)
    return {f"{key}/support": _absent(reason) if reason else Support(ok=True)}


def _absent(reason: str) -> Support:
    """That a release lacks something, in words that are the same for another one that lacks it."""
    return Support(ok=False, reason=reason.replace(te.version(), "this release"))


def _backend(case: Case, key: str) -> dict[str, Value]:
    """Whether a kernel computes a case of attention."""
    try:
        return {key: Text("fused" if attention_backends.is_fused(case) else UNFUSED)}
    except NotInReleaseError as error:
        return {key: _absent(str(error))}


def _layer(subject: Subject, case: Case, name: str, key: str) -> dict[str, Value]:
    """All of a case in a mode; nothing where it is not there."""
    if why_not(subject, case):
        return {}
    layer = Layer(subject, case, modes()[name])
    entries: dict[str, Value] = {f"variables/{path}": Text(leaf) for path, leaf in leaves(layer.boxed_shapes).items()}
    steps = _steps(layer)
    entries |= _program(layer, steps[-1]) | _errors(layer, steps[-1]) | _metadata(layer, steps)
    return {f"{key}/{name}/{rest}": value for rest, value in entries.items()}


def _steps(layer: Layer) -> list[_Taken]:
    """Steps on the same parameters; the last one on the tensors of the only one where there are no metadata."""
    variables: dict[str, Any] = layer.variables()
    taken = []
    for seed in reversed(range(STEPS if layer.collection in variables else 1)):
        given = variables, layer.inputs(seed), layer.grads(STEPS + seed)
        found = step(layer, *given)
        following = next_variables(layer, variables, found.grads)
        scales = scales_of(layer, variables, following) if layer.collection in variables else None
        taken.append(_Taken(given, found, following, expected(layer, *given, found, scales)))
        variables = following
    return taken


def _program(layer: Layer, taken: _Taken) -> dict[str, Value]:
    jaxpr = jax.make_jaxpr(step, static_argnums=0)(layer, *taken.given)
    gemms = jaxprs.gemms(jaxpr)
    return {
        "float8/forward: products": counted(gemm for gemm in gemms if not gemm.backward),
        "float8/backward: products": counted(gemm for gemm in gemms if gemm.backward),
        "float8/quantized types": formats(jaxpr),
    }


def _errors(layer: Layer, taken: _Taken) -> dict[str, Value]:
    """How accurate the step is as a whole, and whether each result is right.

    The error of a small gradient against float64 is chance: a rounding in another place may change it by half. Each
    result is held to its prediction, therefore, and only all of them together to float64.
    """
    variables, inputs, grads = taken.given
    exact = arithmetic.exact(layer.reference, variables["params"], inputs, grads)
    again = step(layer, *taken.given)
    accuracy = ({"all results": _error_of_all(found, exact)} for found in (taken.found, again))
    rightness = (
        {name: distance(*pair) / tolerance_of(layer, name) for name, *pair in pairs(found, taken.wanted)}
        for found in (taken.found, again)
    )
    return {
        "numerics/error against float64": repeated(Quantity.ERROR, *accuracy),
        "numerics/errors in tolerances": repeated(Quantity.IN_TOLERANCES, *rightness),
    }


def _error_of_all(found: Step, exact: Passes) -> float:
    """The root mean square of all errors, each relative to the size of its tensor."""
    weighed = [(np.size(right), distance(actual, right)) for _, actual, right in pairs(found, exact)]
    return float(np.sqrt(sum(size * error**2 for size, error in weighed) / sum(size for size, _ in weighed)))


def _metadata(layer: Layer, steps: list[_Taken]) -> dict[str, Value]:
    """Whether amaxes and scales of the tensors inside are the oracle's, which keeps metadata as TE does since 2.3."""
    if layer.collection not in steps[0].given[0]:
        return {}
    newest = -1 if te.metadata_dialect().stores_next_scale else 0
    stored = [read_metas(layer, each.following) for each in steps]
    used = [scales_of(layer, each.given[0], each.following) for each in steps]
    entries: dict[str, Value] = {}
    for product in steps[0].wanted.amaxes:
        for tensor in TENSORS:
            amaxes = [float(each.wanted.amaxes[product][tensor]) for each in steps]
            meta, scales = dense.initial_meta(STEPS + 1), []
            for amax in amaxes:
                scales.append(float(meta.scale))
                meta = dense.next_meta(meta, amax, fp8_max=FP8_MAX[FORMATS["HYBRID"][tensor]])
            key = f"metadata/{product} {tensor}"
            rtol = amax_tolerance(layer, tensor, 1.0)
            found = [float(metas[product][tensor].history[newest]) for metas in stored]
            entries[f"{key} amax against the oracle"] = _agreement(found, amaxes, rtol)
            found = [float(each[product][tensor]) for each in used]
            rtol += scale_tolerance(1.0, te.engine().kind)
            entries[f"{key} scale used against the oracle"] = _agreement(found, scales, rtol)
    return entries


def _agreement(found: list[float], wanted: list[float], rtol: float) -> Agreement:
    pairs = enumerate(zip(found, wanted, strict=True))
    wrong = (Agreement(step, *pair) for step, pair in pairs if not np.isclose(*pair, rtol=rtol, atol=0))
    return next(wrong, Agreement())
