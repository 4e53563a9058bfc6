"""Adapters of a frozen Haiku model in the style of AlphaGenome's. Written for Transformer Engine 2.9 and later."""

import jax.numpy as jnp


def _require_transformer_engine(precision):
    try:
        import transformer_engine.jax as te_jax
    except Exception as error:
        raise ImportError(f"{precision.upper()} adapters need transformer_engine[jax]") from error
    return te_jax


def _pad(value, axis, multiple):
    width = [(0, 0)] * value.ndim
    width[axis] = (0, -value.shape[axis] % multiple)
    return jnp.pad(value, width)


def dense(lhs, rhs, precision):
    """A projection in FP8 or FP4, padded to what kernels take."""
    if precision not in {"fp8", "fp4"}:
        return jnp.dot(lhs, rhs)
    rows, columns = lhs.shape[0], rhs.shape[-1]
    lhs = _pad(_pad(lhs, 0, 16), 1, 32)
    rhs = _pad(_pad(rhs, 0, 32), 1, 16)

    te_jax = _require_transformer_engine(precision)
    from transformer_engine.jax import dense as te_dense
    from transformer_engine.jax.quantize import QuantizerFactory

    autocast = getattr(te_jax, "autocast", None)
    if autocast is None:
        raise RuntimeError("this transformer_engine.jax has no autocast")
    recipe = None
    if precision == "fp4":
        from transformer_engine.common.recipe import NVFP4BlockScaling

        recipe = NVFP4BlockScaling()

    with autocast(enabled=True, recipe=recipe):
        out = te_dense.dense(
            lhs,
            rhs,
            contracting_dims=((1,), (0,)),
            quantizer_set=QuantizerFactory.create_set(),
        )
    return out[:rows, :columns]
