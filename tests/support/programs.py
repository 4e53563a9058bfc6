"""Look into the programs that JAX traces."""

from collections.abc import Iterator
from typing import Any

from jax import stages

from mnist_fp8.programs import jaxprs


def equations(jaxpr: Any, *primitives: str) -> Iterator[Any]:
    """Equations of a jaxpr and of the jaxprs inside it, those of some primitives.

    Args:
        jaxpr: from ``jax.make_jaxpr`` or a traced function.
        primitives: how the names of the wanted primitives begin.
    """
    return (equation for equation in jaxprs.equations(jaxpr) if equation.primitive.name.startswith(primitives))


def compiled_text(program: stages.Compiled) -> str:
    """A compiled program as text."""
    text = program.as_text()
    assert text is not None, "this backend does not show its programs"
    return text
