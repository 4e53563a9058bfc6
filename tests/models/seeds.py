"""The random keys of the models, which another seed makes others."""

import jax

_MOST = 1000
"""Keys of one seed."""


def key(number: int, seed: int = 0) -> jax.Array:
    """A model's key of a number from 0 to 999."""
    return jax.random.key(_MOST * seed + number)
