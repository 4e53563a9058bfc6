"""``grouped_dense`` and ``make_grouped_dense_cls``: one kernel for each group of rows, as for the experts of a mixture.

Both are computed by kernels only. Their only recipe is MXFP8, which no GPU before Blackwell has.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.oracle.arithmetic import Arithmetic, Params, Reference
from mnist_fp8.subjects.making import name_of_te
from mnist_fp8.subjects.subject import Case, NotInReleaseError, Parameter, RecipeFrom, Subject

FEATURES = 32
SIZES = {"even groups": (32, 32, 32, 32), "uneven groups": (16, 80, 0, 32)}


class _Experts(nn.Module):
    """A dense layer for each group of rows, computed by a function of rows, kernels and group sizes."""

    product: Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

    @nn.compact
    def __call__(self, x: jax.Array, group_sizes: Sequence[int]) -> jax.Array:
        shape = (len(group_sizes), x.shape[-1], FEATURES)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, jnp.float32)
        return self.product(x, kernel.astype(x.dtype), jnp.array(group_sizes, jnp.int32))


@functools.cache
def _demand_cublas() -> None:
    """Demand a cuBLAS that is new enough, found by one product.

    Raises:
        NotInReleaseError: with TE's own words.
    """
    product = name_of_te("dense", "grouped_dense")
    try:
        with jax.ensure_compile_time_eval():
            rows, kernel = jnp.ones((16, 16), jnp.bfloat16), jnp.ones((1, 16, 16), jnp.bfloat16)
            jax.block_until_ready(product(rows, kernel, jnp.array([16], jnp.int32)))
    except RuntimeError as error:
        needed = re.search(r"requires (cuBLAS [\d.]+)\S*, but run-time cuBLAS version is (\d+)", str(error))
        if not needed:
            raise
        raise NotInReleaseError(f"needs {needed[1]} for grouped products; found {needed[2]}") from error


def _make(_case: Case, _recipe: RecipeConfig | None) -> Any:  # noqa: ANN401
    _demand_cublas()
    return _Experts(name_of_te("dense", "grouped_dense"))


def _make_wrapped(_case: Case, _recipe: RecipeConfig | None) -> Any:  # noqa: ANN401
    _demand_cublas()
    return _Experts(name_of_te("flax", "make_grouped_dense_cls")(None))


def _reference(case: Case) -> Reference:
    ends = np.cumsum(case.arguments["group_sizes"])

    def reference(arithmetic: Arithmetic, params: Params, inputs: Mapping[str, jax.Array]) -> jax.Array:
        groups = enumerate(jnp.split(inputs["x"], ends[:-1]))
        kernel = arithmetic.parameter(params["kernel"])
        return jnp.concatenate([arithmetic.product(f"group {g}", rows, kernel[g]) for g, rows in groups if len(rows)])

    return reference


def _parameters(case: Case) -> dict[str, Parameter]:
    """A kernel for each group, as Flax begins it."""
    return {
        "kernel": Parameter((len(case.arguments["group_sizes"]), case.inputs["x"][-1], FEATURES), None, deviation=None)
    }


CASES = tuple(Case(name, {}, {"x": (sum(sizes), 48)}, {"group_sizes": sizes}) for name, sizes in SIZES.items())
SUBJECT = Subject(
    name="grouped_dense",
    cases=CASES,
    make=_make,
    reference=_reference,
    parameters=_parameters,
    recipe_from=RecipeFrom.NOWHERE,
    on_kernels_only=True,
)
WRAPPED = dataclasses.replace(SUBJECT, name="make_grouped_dense_cls", make=_make_wrapped)
