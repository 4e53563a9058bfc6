"""What the parts of the probe share: the tensors that go in, and what comes of what raises; see `probe`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def values(shape: tuple[int, ...], dtype: str, seed: int, special: str = "") -> jax.Array:
    """Numbers of a size that the seed decides; all of them or one are special where that is asked for."""
    found = np.random.default_rng(seed).normal(0, 1 + seed, shape)
    if special == "zero":
        found[:] = 0
    elif special == "half zero":
        found[: len(found) // 2] = 0
    elif special in ("tiny", "huge"):
        found *= {"tiny": 1e-30, "huge": 1e30}[special]
    elif special:
        found.flat[5] = {"infinite": np.inf, "nan": np.nan}[special]
    return jnp.asarray(found, dtype)


def tried(action: Callable[[], Any]) -> Any:
    """What an action returns, or the type of what it raises."""
    try:
        return action()
    except Exception as error:
        return f"raises {type(error).__name__}"
