"""FP8 metadata: what a release calls them, and how they go from one step to the next."""

from typing import Any

import jax
import jax.numpy as jnp
from packaging.version import Version

from mnist_fp8.core.metadata import SINCE_1_8, SINCE_2_3, MetadataDialect, MetadataName
from mnist_fp8.te import loading
from mnist_fp8.te.dense import Variables


def metadata_dialect() -> MetadataDialect:
    """How the installed release writes metadata: 2.3 renamed them together with the module that makes them."""
    return SINCE_2_3 if hasattr(loading.engine().module, "quantize") else SINCE_1_8


def leaves_float8_to_xla() -> bool:
    """Whether TE writes an FP8 product as one of dequantized operands, which XLA on a GPU replaces by an FP8 one.

    Its JAX path did so before 2.5 (TE#1819). Nothing but the programs themselves shows it, and those are what this is
    to be checked against: hence the version.
    """
    return Version(loading.version()) < Version("2.5")


def computes_more_in_bf16() -> bool:
    """Whether TE's JAX path has BF16 where it has float32 since 2.3 (TE#1627), which gave it the module ``quantize``.

    Where one is added to a layer norm's scale, an activation is differentiated, a dense layer's input is multiplied by
    its scale, and a kernel's codes by the inverse of theirs.
    """
    return not hasattr(loading.engine().module, "quantize")


def scale_leaf(tensor: str, number: int | None = None) -> str:
    """Name of the scale of ``x``, ``kernel`` or ``grad`` in a layer's metadata, of its only product by default."""
    return _leaf(tensor, number, is_scale=True)


def history_leaf(tensor: str, number: int | None = None) -> str:
    """Name of the amax history of ``x``, ``kernel`` or ``grad`` in a layer's metadata, as `scale_leaf`."""
    return _leaf(tensor, number, is_scale=False)


def _leaf(tensor: str, number: int | None, *, is_scale: bool) -> str:
    dialect = metadata_dialect()
    written = dialect.only if number is None else f"_{number}"
    return dialect.write(MetadataName(tensor, written, is_scale))


def read_leaf(name: str) -> MetadataName | None:
    """What a name of metadata says; ``None`` where the installed release has no such name."""
    return metadata_dialect().read(name)


def metadata_collection() -> str:
    """Name of the Flax collection that holds the FP8 metadata (amax histories and scales)."""
    module = loading.engine().module
    if hasattr(module, "NVTE_FP8_COLLECTION_NAME"):
        return str(module.NVTE_FP8_COLLECTION_NAME)
    return str(module.fp8.FP8Helper.FP8_COLLECTION_NAME)  # until 1.0


def update_collections(new: Variables, original: Variables) -> Any:  # noqa: ANN401 - follows `original`
    """TE's ``update_collections``: the collections of ``original``, those in ``new`` replaced."""
    return loading.engine().module.update_collections(new, original)


def update_fp8_metas(variables: Variables, grads: Variables, step: Any, interval: int = 1) -> Any:  # noqa: ANN401
    """New FP8 metadata after a training step.

    TE's backward pass returns the metadata of the next step as the "gradient" of their collection: they replace the
    old ones, and no optimizer may touch them. Until 1.7, ``te.update_fp8_metas`` makes them out of that gradient.

    Args:
        variables: variables that the step used; its metadata collection is kept between updates.
        grads: gradient of the loss with respect to ``variables``.
        step: steps done before this one; a number or a traced scalar.
        interval: steps from one update to the next; the updates follow steps ``interval - 1``, ``2*interval - 1``, ...

    Returns:
        The metadata collection; an empty dictionary where the recipe keeps none.
    """
    name = metadata_collection()
    if name not in grads:
        return {}
    update = getattr(loading.engine().module, "update_fp8_metas", None)
    updated = (update(grads) if update else grads)[name]
    if interval == 1:
        return updated
    due = (step + 1) % interval == 0
    return jax.tree.map(lambda new, old: jnp.where(due, new, old), updated, variables[name])
