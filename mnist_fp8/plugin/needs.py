"""What a test can need, by the name of its mark, and why it is not met here: "needs X; found Y"."""

import functools
import gc
import inspect
import warnings
from collections.abc import Callable, Collection

import jax
import pytest
from packaging.version import Version

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.model import load
from mnist_fp8.model.agreement import why_never_at_rest
from mnist_fp8.model.checkpoints import through_orbax
from mnist_fp8.model.numerics import layers_without_oracle
from mnist_fp8.model.options import WITH_OPTIONS
from mnist_fp8.model.run import MODES, case_of, why_no_case
from mnist_fp8.programs import kernels
from mnist_fp8.subjects import asked_subjects, find_subject
from mnist_fp8.subjects.attention_backends import is_fused
from mnist_fp8.subjects.layer import why_not
from mnist_fp8.subjects.making import name_of_te
from mnist_fp8.subjects.subject import NotInReleaseError
from mnist_fp8.te import xla_products


def first_unmet(item: pytest.Item) -> str | None:
    """Why a test cannot run here; ``None`` if it can."""
    reasons = (unmet(*mark.args) for name, unmet in NEEDS.items() for mark in item.iter_markers(name))
    return next(filter(None, reasons), None)


def _unmet_gpu() -> str | None:
    kind = te.engine().kind
    return None if kind is RunKind.KERNEL else f"needs a kernel run on a GPU; found a {kind.value} run"


def _unmet_host() -> str | None:
    return None if _unmet_gpu() else "needs a host run; found a kernel run"


def _unmet_devices(count: int) -> str | None:
    found = len(jax.devices())
    return None if found >= count else f"needs {count} devices; found {found} ({jax.devices()[0].device_kind})"


def _unmet_profiler() -> str | None:
    reason = kernels.why_no_trace()
    return f"needs a trace of the kernels that run; found: {reason}" if reason else None


def _unmet_recipe(name: str) -> str | None:
    names = te.recipe_names()
    if name not in names:
        return f"needs recipe {name}; found {', '.join(names)}"
    support = te.support(te.make_recipe(RecipeConfig(name)))
    return None if support.ok else f"needs recipe {name}; found: {support.reason}"


def _unmet_jax(least: str) -> str | None:
    return None if Version(jax.__version__) >= Version(least) else f"needs JAX {least}; found {jax.__version__}"


def _unmet_te_name(*path: str) -> str | None:
    try:
        name_of_te(*path)
    except NotInReleaseError as error:
        return str(error)
    return None


def _unmet_te_parameters(path: tuple[str, ...], known: Collection[str]) -> str | None:
    try:
        function = name_of_te(*path)
    except NotInReleaseError as error:
        return str(error)
    others = [name for name in inspect.signature(function).parameters if name not in known]
    return f"needs {'.'.join(path)} of parameters that the suite knows; found {', '.join(others)}" if others else None


def _unmet_subject(name: str, case: str) -> str | None:
    asked = [subject.name for subject in asked_subjects()]
    if name not in asked:
        return f"needs subject {name} among those asked for; found {', '.join(asked)}"
    subject = find_subject(name)
    return why_not(subject, subject.case(case)) or None


def _unmet_fused_attention(name: str, case: str) -> str | None:
    if reason := _unmet_gpu() or _unmet_subject(name, case):
        return reason
    return None if is_fused(find_subject(name).case(case)) else f"needs fused attention for {case}; found none"


def _unmet_xla_sums_in_float32() -> str | None:
    if te.engine().kind is RunKind.KERNEL:
        return None  # what multiplies there is TE's
    found = xla_products.sums()
    return None if found.are_float32 else f"needs an XLA that sums BF16 products in float32; found them {found}"


def _unmet_shardy() -> str | None:
    if getattr(jax.config, "jax_use_shardy_partitioner", True):  # a JAX without the option has no other
        return None
    return "needs Shardy, JAX's partitioner by default; found GSPMD (JAX_USE_SHARDY_PARTITIONER)"


@functools.cache
def _unmet_orbax() -> str | None:
    """One round trip without Transformer Engine decides: not each release of Orbax fits each JAX."""
    problem = None
    with warnings.catch_warnings(action="ignore"):
        try:
            through_orbax({"array": jax.numpy.zeros(1)})
        except Exception as error:  # noqa: BLE001 - whatever it is, no test can use it
            problem = f"{type(error).__name__}: {error}".splitlines()[0]
        gc.collect()  # coroutines that nobody awaits any more warn when they go: now, and not in a test
    return f"needs an Orbax that restores an array of JAX; found: {problem}" if problem else None


def _unmet_model(mode: str) -> str | None:
    reason = why_no_case(load(), MODES[mode])
    return f"needs a case of the model for {mode}; found {reason}" if reason else None


def _unmet_model_options(mode: str) -> str | None:
    if reason := _unmet_model(mode):
        return reason
    reason = why_no_case(load(), WITH_OPTIONS[mode])
    return f"needs a case of the model for {mode} with all of its options; found {reason}" if reason else None


def _unmet_train_step(mode: str) -> str | None:
    if reason := _unmet_model(mode):
        return reason
    found = case_of(load(), MODES[mode]).train_step
    return None if found else "needs a train step of the model; found a case without one"


def _unmet_oracle_of_each_layer(mode: str) -> str | None:
    if reason := _unmet_model(mode):
        return reason
    layers = sorted(layers_without_oracle(load(), MODES[mode]))
    return f"needs an oracle of each layer of the model; found none of {', '.join(layers)}" if layers else None


def _unmet_rest(mode: str) -> str | None:
    if reason := _unmet_model(mode):
        return reason
    reason = why_never_at_rest(load())
    return f"needs a model that comes to rest in delayed scaling; found {reason}" if reason else None


NEEDS: dict[str, Callable[..., str | None]] = {
    "gpu": _unmet_gpu,
    "host": _unmet_host,
    "devices": _unmet_devices,
    "profiler": _unmet_profiler,
    "recipe": _unmet_recipe,
    "subject": _unmet_subject,
    "fused_attention": _unmet_fused_attention,
    "te_name": _unmet_te_name,
    "te_parameters": _unmet_te_parameters,
    "jax": _unmet_jax,
    "orbax": _unmet_orbax,
    "xla_sums_in_float32": _unmet_xla_sums_in_float32,
    "shardy": _unmet_shardy,
    "model": _unmet_model,
    "model_options": _unmet_model_options,
    "train_step": _unmet_train_step,
    "oracle_of_each_layer": _unmet_oracle_of_each_layer,
    "rest": _unmet_rest,
}
"""By the name of a mark: a function of the mark's arguments that says what is needed and found if it is not met."""
