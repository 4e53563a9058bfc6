"""TE's autocast, whatever the release calls it, and a mode that can be entered any number of times."""

import contextlib
import dataclasses
import inspect
from collections.abc import Iterator

from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.te import loading
from mnist_fp8.te.pretended import device_for
from mnist_fp8.te.recipes import make_recipe
from mnist_fp8.te.sharding import mesh_resource


@contextlib.contextmanager
def autocast(*, enabled: bool, recipe: object = None, resource: object = None) -> Iterator[None]:
    """TE's autocast, whatever the release calls it and its arguments.

    Args:
        enabled: whether dense layers inside quantize.
        recipe: a recipe object; ``None`` is TE's default, DelayedScaling.
        resource: a ``MeshResource``; ``None`` is an empty one.

    Raises:
        AssertionError: TE's own, where the recipe is not supported on this machine.
    """
    _forget_the_last_recipe()
    context = getattr(loading.engine().module, "autocast", None) or loading.engine().module.fp8_autocast
    known = inspect.signature(context).parameters
    recipe_argument = "recipe" if "recipe" in known else "fp8_recipe"
    resource_argument = "mesh_resource" if "mesh_resource" in known else "sharding_resource"
    resource = mesh_resource() if resource is None else resource
    with (
        device_for(type(recipe).__name__ if enabled else ""),
        context(enabled=enabled, **{recipe_argument: recipe, resource_argument: resource}),
    ):
        yield


def _forget_the_last_recipe() -> None:
    """Have TE compute scales by the recipe in force.

    Before 2.10, what computes them reads margin and algorithm from a global variable while ``jax.jit`` traces it, once:
    all later recipes of a process are computed like its first (`raw_autocast` leaves it at that).
    """
    module = loading.engine().module
    if hasattr(module, "quantize"):
        if hasattr(module.quantize, "get_global_quantize_recipe"):  # came with the repair; no private name is touched
            return
        compute = module.quantize.quantizer.DelayedScaleQuantizer._compute_scale  # noqa: SLF001
    else:
        helper = module.fp8.FP8Helper
        compute = getattr(helper, "update_fp8_scale", None) or helper._update_fp8_metas_impl  # noqa: SLF001 - until 1.7
    compute.clear_cache()


def former_autocast(recipe: object) -> contextlib.AbstractContextManager[None]:
    """TE's ``fp8_autocast``, enabled, as it was called before 2.9; newer releases keep it with a warning.

    Raises:
        AttributeError: the installed TE no longer has it.
    """
    context: contextlib.AbstractContextManager[None]
    context = loading.engine().module.fp8_autocast(enabled=True, fp8_recipe=recipe, mesh_resource=mesh_resource())
    return context


def raw_autocast(name: str, *arguments: object, **options: object) -> contextlib.AbstractContextManager[None]:
    """TE's own ``autocast``, or ``fp8_autocast``, called with just these arguments.

    Raises:
        AttributeError: the installed TE has none of that name.
    """
    context: contextlib.AbstractContextManager[None] = getattr(loading.engine().module, name)(*arguments, **options)
    return context


@dataclasses.dataclass(frozen=True)
class Autocast:
    """A mode of computation that can be entered any number of times.

    It is hashable, so it can be a static part of what ``jax.jit`` traces. That matters: ``jit`` does not see
    autocast, and a function traced in one mode silently stays in it. A function that enters its ``Autocast`` itself
    is traced once for each mode.

    Attributes:
        recipe: ``None`` computes in the input's dtype.
        axes: kinds of parallelism, each over the mesh axis of its own name.
    """

    recipe: RecipeConfig | None = None
    axes: tuple[str, ...] = ()

    def __call__(self) -> contextlib.AbstractContextManager[None]:
        """Enter the mode."""
        resource = mesh_resource(**{f"{axis}_resource": axis for axis in self.axes})
        recipe = make_recipe(self.recipe) if self.recipe else None
        return autocast(enabled=self.recipe is not None, recipe=recipe, resource=resource)
