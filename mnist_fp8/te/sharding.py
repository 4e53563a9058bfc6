"""Meshes, mesh resources and logical axes, in the way that the installed TE looks for them."""

import contextlib
import dataclasses
import warnings
from collections.abc import Iterator
from typing import Any

import jax

from mnist_fp8.te import loading


def mesh_resource(**axes: str) -> Any:  # noqa: ANN401 - TE's MeshResource
    """TE's ``MeshResource``; keyword ``dp_resource="data"`` says that mesh axis ``data`` is for data parallelism."""
    return _mesh_resource_class()(**axes)


def _mesh_resource_class() -> Any:  # noqa: ANN401
    module = loading.engine().module
    return module.MeshResource if hasattr(module, "MeshResource") else module.ShardingResource  # until 1.0


@contextlib.contextmanager
def mesh_context(mesh: jax.sharding.Mesh) -> Iterator[None]:
    """Enter a mesh in the way that the installed TE looks for it.

    Since 2.12 TE sees ``jax.set_mesh``; before, only ``with mesh:``, which JAX has deprecated and which Flax 0.12 does
    not look at any more. Entering both does not help: JAX then refuses TE's constraints.
    """
    if hasattr(loading.engine().module.sharding, "is_mesh_available"):
        with jax.set_mesh(mesh):
            yield
        return
    with contextlib.ExitStack() as stack:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            stack.enter_context(mesh)
        yield


def global_mesh_resource() -> Any:  # noqa: ANN401 - TE's MeshResource
    """The ``MeshResource`` in force: that of the innermost autocast.

    Raises:
        AssertionError: TE's own, outside of any, or where it does not fit the mesh.
    """
    return loading.engine().module.sharding.global_mesh_resource()


def extend_logical_axis_rules(rules: tuple[tuple[str, str | None], ...] = ()) -> tuple[tuple[str, str | None], ...]:
    """Flax's logical axis rules with those added that TE derives from mesh and mesh resource in force.

    Raises:
        AssertionError: TE's own, where a rule is none or contradicts TE's.
    """
    extended: tuple[tuple[str, str | None], ...] = loading.engine().module.flax.extend_logical_axis_rules(rules)
    return extended


def mesh_axes() -> tuple[str, ...]:
    """Kinds of parallelism that the installed TE knows, such as ``dp`` and ``fsdp``."""
    names = (field.name for field in dataclasses.fields(_mesh_resource_class()))
    return tuple(name.removesuffix("_resource") for name in names)
