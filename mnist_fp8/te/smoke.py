"""One step of a dense layer in FP8: whether Transformer Engine runs at all, for the doctor and the search for a JAX."""

import json
from pathlib import Path

from mnist_fp8.core.errors import TeUnavailableError
from mnist_fp8.core.run_kind import RunKind

_FORMATS = {"float8_e4m3fn", "float8_e5m2"}


def report_step(file: Path) -> None:
    """What the doctor's new interpreter does: run the step, and write how it went as JSON."""
    try:
        answer = {"error": "", **_attempt()}
    except Exception as error:  # noqa: BLE001 - whatever a broken installation raises is the answer
        name = "" if isinstance(error, TeUnavailableError) else f"{type(error).__name__}: "
        answer = {"error": " ".join(f"{name}{error}".split()), "kind": RunKind.HOST.value, "recipes": {}}
    file.write_text(json.dumps(answer))


def _attempt() -> dict[str, object]:
    from mnist_fp8.te import loading, supports  # noqa: PLC0415 - TE goes before JAX's backend

    kind = loading.engine().kind
    fp8_step()
    recipes = {name: support.reason for name, support in supports.support_by_recipe().items()}
    return {"kind": kind.value, "recipes": recipes}


def fp8_step() -> None:
    """Run a dense layer forward and backward under delayed scaling.

    Releases before 2.5 leave FP8 products to XLA, so what is quantized counts and not the products' operands.

    Raises:
        ArithmeticError: a float8 format is missing in the program, or a number is not finite.
    """
    import jax  # noqa: PLC0415 - importing JAX takes half a second
    import jax.numpy as jnp  # noqa: PLC0415

    from mnist_fp8.programs import jaxprs  # noqa: PLC0415
    from mnist_fp8.te import dense_step  # noqa: PLC0415

    x = jnp.ones((32, 32), jnp.bfloat16)
    layer, mode = dense_step.dense_layer(features=32), dense_step.fp8()
    arguments = layer, mode, dense_step.init(layer, mode, x), x, x
    quantized = jaxprs.quantized_dtypes(jax.make_jaxpr(dense_step.dense_step, static_argnums=(0, 1))(*arguments))
    if missing := _FORMATS - quantized:
        raise ArithmeticError(f"the program has no {' and no '.join(sorted(missing))}")
    step = dense_step.dense_step(*arguments)
    if not all(bool(jnp.isfinite(leaf.astype(jnp.float32)).all()) for leaf in jax.tree.leaves(step)):
        raise ArithmeticError("the result is not finite")
