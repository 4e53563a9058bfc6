"""The one door to Transformer Engine: nothing else in the project imports it, `te_host` excepted.

The first call of any function here loads TE, in the kind of run that the machine allows or ``MNIST_FP8_TE`` forces.
What differs between releases is found by looking (is there a name, an argument), not by comparing versions.
"""

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
from flax.core import meta
from packaging.version import Version

from mnist_fp8 import machine, te_host, xla_flags
from mnist_fp8.config import ConfigError, RecipeConfig, RunKind, requested_run_kind

Variables = Mapping[str, Any]
"""Flax variables: collections by name, such as ``params``."""


class TeUnavailableError(RuntimeError):
    """Transformer Engine cannot run here in the way asked for; the message says why and what to do."""


@dataclasses.dataclass(frozen=True)
class Engine:
    """The loaded Transformer Engine.

    Attributes:
        kind: kernel or host run.
        module: ``transformer_engine.jax``.
        recipes: ``transformer_engine.common.recipe``.
    """

    kind: RunKind
    module: ModuleType
    recipes: ModuleType


@dataclasses.dataclass(frozen=True)
class Support:
    """Whether this machine can run something, and TE's own words where it cannot."""

    ok: bool
    reason: str = ""


# --- loading -------------------------------------------------------------------------------------------------------


@functools.cache
def engine() -> Engine:
    """Load Transformer Engine once for the process.

    On a GPU this has to happen before JAX starts its backend: both load cuDNN, and where a machine has two of them,
    TE does not import once JAX has loaded the other one.

    Raises:
        TeUnavailableError: it is not installed, does not import, or cannot run as ``MNIST_FP8_TE`` demands.
    """
    kind = choose_run_kind(requested_run_kind(), no_gpu=why_no_gpu(), extension=find_extension())
    prepare_xla()
    try:
        with te_host.without_pytorch():
            module = te_host.load() if kind is RunKind.HOST else importlib.import_module("transformer_engine.jax")
    except Exception as error:
        message = f"Transformer Engine does not import ({kind.value} run): {type(error).__name__}: {error}"
        raise TeUnavailableError(message) from error
    if kind is RunKind.KERNEL and jax.default_backend() != "gpu":
        raise TeUnavailableError(f"the driver shows a GPU, but JAX runs on {jax.default_backend()!r}")
    return Engine(kind, module, importlib.import_module("transformer_engine.common.recipe"))


def prepare_xla() -> None:
    """Have XLA on a CPU sum BF16 products in float32, as on a GPU. It has to happen before JAX starts its backend.

    `engine` does it; what runs Flax alone asks for it, so that Flax and TE are computed by the same XLA.
    """
    if why_no_gpu() and xla_flags.is_known(xla_flags.FLOAT32_SUMS):
        xla_flags.put_first(xla_flags.FLOAT32_SUMS)


def choose_run_kind(requested: RunKind | None, *, no_gpu: str, extension: Path | None) -> RunKind:
    """Decide how to run TE. A usable GPU is never passed over silently.

    Args:
        requested: what the user forces, if anything.
        no_gpu: why JAX has no GPU to use; empty if it has one.
        extension: TE's compiled JAX extension, if there is one.

    Raises:
        TeUnavailableError: the request, or a GPU without the extension, cannot be honoured.
    """
    found = f"found {no_gpu or 'a GPU'}, and {extension or 'no CUDA extension of TE'}"
    if requested is RunKind.KERNEL and (no_gpu or not extension):
        raise TeUnavailableError(f"MNIST_FP8_TE=kernel needs a GPU and TE's CUDA extension; {found}")
    if requested is RunKind.HOST and not no_gpu:
        raise TeUnavailableError(f"a host run needs JAX on the CPU; {found}: set JAX_PLATFORMS=cpu as well")
    if requested is None and not no_gpu and not extension:
        raise TeUnavailableError(
            f"{found}: install the extension (tox -e gpu shows how),"
            " or ask for a host run with MNIST_FP8_TE=host JAX_PLATFORMS=cpu"
        )
    return RunKind.HOST if no_gpu else RunKind.KERNEL


def why_no_gpu() -> str:
    """Why JAX would not use a GPU here, found out without starting its backend; empty if it would."""
    platforms = str(jax.config.values["jax_platforms"] or "")
    if machine.is_kept_from_gpu(platforms):
        return f"JAX restricted to {platforms} (JAX_PLATFORMS)"
    if not any(importlib.util.find_spec(f"jax_cuda{major}_plugin") for major in machine.CUDA_MAJORS):
        return "a JAX without CUDA"
    return machine.find_driver().error


def find_extension() -> Path | None:
    """Path of TE's compiled JAX extension, without loading it; ``None`` where there is none."""
    return next(iter(machine.te_library_files("transformer_engine_jax")), None)


def version() -> str:
    """Version of the installed TE, without loading it; ``not installed`` where there is none."""
    try:
        return metadata.version("transformer-engine")
    except metadata.PackageNotFoundError:
        return "not installed"


# --- layers and variables ------------------------------------------------------------------------------------------


def dense_general(**fields: Any) -> Any:  # noqa: ANN401 - a Flax module, whose type TE does not export
    """Make a ``te.flax.DenseGeneral``. Its ``dtype`` is the parameters'; it computes in its input's dtype.

    Before 2.1, ``dtype`` is what TE's layer computes in, and its parameters are always float32.

    Raises:
        ConfigError: the release cannot store parameters of that dtype.
    """
    layer = _dense_class()
    if not dense_dialect().computes_in_dtype:
        return layer(**fields)
    if jnp.dtype(fields.pop("dtype", jnp.float32)) != jnp.float32:
        raise ConfigError(f"Transformer Engine {version()} stores the parameters of a dense layer in float32 only")
    return _computing_in_the_dtype_of_its_input(layer)(**fields)


def _dense_class() -> Any:  # noqa: ANN401
    module = engine().module
    return module.flax.DenseGeneral if hasattr(module, "flax") else module.DenseGeneral  # until 0.8


@functools.cache
def _computing_in_the_dtype_of_its_input(layer: Any) -> Any:  # noqa: ANN401
    def call(self: Any, inputs: jax.Array) -> jax.Array:  # noqa: ANN401
        object.__setattr__(self, "dtype", inputs.dtype)  # Flax's modules are frozen, this bound copy is ours
        output: jax.Array = layer.__call__(self, inputs)
        return output

    return type("DenseGeneral", (layer,), {"__call__": call, "__doc__": layer.__doc__})


@dataclasses.dataclass(frozen=True)
class DenseDialect:
    """What releases before 2.1 mean differently, seen by initialising a dense layer; nothing is computed for it.

    Attributes:
        computes_in_dtype: a layer's ``dtype`` is what it computes in, not its parameters'.
        flat_kernel: all contracted axes are one axis of the stored kernel.
    """

    computes_in_dtype: bool
    flat_kernel: bool


@functools.cache
def dense_dialect() -> DenseDialect:
    """What the installed release means by a dense layer's ``dtype`` and ``axis``."""
    layer = _dense_class()(features=16, dtype=jnp.float32, axis=(-2, -1))
    x = jax.ShapeDtypeStruct((16, 4, 8), jnp.bfloat16)
    y, variables = jax.eval_shape(layer.init_with_output, jax.random.key(0), x)
    # Not `unbox`: under a mesh and rules of Flax it constrains what it unboxes, and these are shapes only.
    (kernel,) = jax.tree.leaves(variables["params"]["kernel"])
    return DenseDialect(computes_in_dtype=y.dtype == jnp.float32, flat_kernel=kernel.shape == (32, 16))


def kernel_shape(contracted: tuple[int, ...], features: tuple[int, ...]) -> tuple[int, ...]:
    """Shape in which the release stores the kernel of a layer over some contracted sizes."""
    return (math.prod(contracted), *features) if dense_dialect().flat_kernel else (*contracted, *features)


@dataclasses.dataclass(frozen=True)
class MetadataDialect:
    """How a release writes the metadata of a tensor.

    Attributes:
        tensors: the release's names of ``x``, ``kernel`` and ``grad``.
        scale: name of a scale, ``{}`` standing for the tensor.
        history: name of an amax history.
        stores_next_scale: the stored scale is for the next step, and the history's newest entry is its last. If not,
            it is the scale that the last step used, and the newest entry is the first.
    """

    tensors: Mapping[str, str]
    scale: str
    history: str
    stores_next_scale: bool


_METADATA_SINCE_2_3 = MetadataDialect(
    {"x": "x", "kernel": "kernel", "grad": "grad"}, "{}_scale", "{}_amax_history", stores_next_scale=True
)
_METADATA_SINCE_1_8 = MetadataDialect(
    {"x": "i", "kernel": "w", "grad": "g"}, "scale_{}_0", "amax_{}_0", stores_next_scale=False
)


def metadata_dialect() -> MetadataDialect:
    """How the installed release writes metadata: 2.3 renamed them together with the module that makes them."""
    return _METADATA_SINCE_2_3 if hasattr(engine().module, "quantize") else _METADATA_SINCE_1_8


def leaves_float8_to_xla() -> bool:
    """Whether TE writes an FP8 product as one of dequantized operands, which XLA on a GPU replaces by an FP8 one.

    Its JAX path did so before 2.5 (TE#1819). Nothing but the programs themselves shows it, and those are what this is
    to be checked against: hence the version.
    """
    return Version(version()) < Version("2.5")


def scale_leaf(tensor: str) -> str:
    """Name of the scale of ``x``, ``kernel`` or ``grad`` in a layer's metadata."""
    return metadata_dialect().scale.format(metadata_dialect().tensors[tensor])


def history_leaf(tensor: str) -> str:
    """Name of the amax history of ``x``, ``kernel`` or ``grad`` in a layer's metadata."""
    return metadata_dialect().history.format(metadata_dialect().tensors[tensor])


def metadata_collection() -> str:
    """Name of the Flax collection that holds the FP8 metadata (amax histories and scales)."""
    module = engine().module
    if hasattr(module, "NVTE_FP8_COLLECTION_NAME"):
        return str(module.NVTE_FP8_COLLECTION_NAME)
    return str(module.fp8.FP8Helper.FP8_COLLECTION_NAME)  # until 1.0


def unbox(variables: Variables) -> dict[str, Any]:
    """Variables as plain arrays: without what TE adds to say how they are sharded.

    Since 2.4 that is a box around each parameter, before that a collection ``..._axes`` beside each collection.
    """
    arrays = {name: tree for name, tree in variables.items() if not name.endswith("_axes")}
    plain: dict[str, Any] = meta.unbox(arrays)
    return plain


def update_collections(new: Variables, original: Variables) -> Any:  # noqa: ANN401 - follows `original`
    """TE's ``update_collections``: the collections of ``original``, those in ``new`` replaced."""
    return engine().module.update_collections(new, original)


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
    update = getattr(engine().module, "update_fp8_metas", None)
    updated = (update(grads) if update else grads)[name]
    if interval == 1:
        return updated
    due = (step + 1) % interval == 0
    return jax.tree.map(lambda new, old: jnp.where(due, new, old), updated, variables[name])


# --- autocast ------------------------------------------------------------------------------------------------------


def mesh_resource(**axes: str) -> Any:  # noqa: ANN401 - TE's MeshResource
    """TE's ``MeshResource``; keyword ``dp_resource="data"`` says that mesh axis ``data`` is for data parallelism."""
    return _mesh_resource_class()(**axes)


def _mesh_resource_class() -> Any:  # noqa: ANN401
    module = engine().module
    return module.MeshResource if hasattr(module, "MeshResource") else module.ShardingResource  # until 1.0


@contextlib.contextmanager
def mesh_context(mesh: jax.sharding.Mesh) -> Iterator[None]:
    """Enter a mesh in the way that the installed TE looks for it.

    Since 2.12 TE sees ``jax.set_mesh``; before, only ``with mesh:``, which JAX has deprecated and which Flax 0.12 does
    not look at any more. Entering both does not help: JAX then refuses TE's constraints.
    """
    if hasattr(engine().module.sharding, "is_mesh_available"):
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
    return engine().module.sharding.global_mesh_resource()


def extend_logical_axis_rules(rules: tuple[tuple[str, str | None], ...] = ()) -> tuple[tuple[str, str | None], ...]:
    """Flax's logical axis rules with those added that TE derives from mesh and mesh resource in force.

    Raises:
        AssertionError: TE's own, where a rule is none or contradicts TE's.
    """
    extended: tuple[tuple[str, str | None], ...] = engine().module.flax.extend_logical_axis_rules(rules)
    return extended


def mesh_axes() -> tuple[str, ...]:
    """Kinds of parallelism that the installed TE knows, such as ``dp`` and ``fsdp``."""
    names = (field.name for field in dataclasses.fields(_mesh_resource_class()))
    return tuple(name.removesuffix("_resource") for name in names)


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
    context = getattr(engine().module, "autocast", None) or engine().module.fp8_autocast
    known = inspect.signature(context).parameters
    recipe_argument = "recipe" if "recipe" in known else "fp8_recipe"
    resource_argument = "mesh_resource" if "mesh_resource" in known else "sharding_resource"
    resource = mesh_resource() if resource is None else resource
    with context(enabled=enabled, **{recipe_argument: recipe, resource_argument: resource}):
        yield


def _forget_the_last_recipe() -> None:
    """Have TE compute scales by the recipe in force.

    Before 2.10, what computes them reads margin and algorithm from a global variable while ``jax.jit`` traces it, once:
    all later recipes of a process are computed like its first (`raw_autocast` leaves it at that).
    """
    module = engine().module
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
    context = engine().module.fp8_autocast(enabled=True, fp8_recipe=recipe, mesh_resource=mesh_resource())
    return context


def raw_autocast(name: str, *arguments: object, **options: object) -> contextlib.AbstractContextManager[None]:
    """TE's own ``autocast``, or ``fp8_autocast``, called with just these arguments.

    Raises:
        AttributeError: the installed TE has none of that name.
    """
    context: contextlib.AbstractContextManager[None] = getattr(engine().module, name)(*arguments, **options)
    return context


def quantization() -> ModuleType:
    """TE's quantization module, ``transformer_engine.jax.quantize``: the recipe in force, what the device supports."""
    found: ModuleType = engine().module.quantize
    return found


def has_name(name: str) -> bool:
    """Whether ``transformer_engine.jax`` has a public name."""
    return hasattr(engine().module, name)


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


# --- recipes -------------------------------------------------------------------------------------------------------


def recipe_names() -> tuple[str, ...]:
    """Names of the recipes that the installed TE has and that its options can build, supported here or not."""
    delayed = engine().recipes.DelayedScaling
    base = getattr(engine().recipes, "Recipe", delayed)  # before 2.0 there is but one recipe, and no base class
    classes = (value for value in vars(engine().recipes).values() if inspect.isclass(value))
    recipes = [cls for cls in classes if issubclass(cls, base) and (cls is not base or cls is delayed)]
    return tuple(sorted(cls.__name__ for cls in recipes if _needs_no_argument(cls)))


def _needs_no_argument(cls: type) -> bool:
    parameters = inspect.signature(cls).parameters.values()
    return all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)


def make_recipe(config: RecipeConfig) -> object:
    """Build TE's recipe object.

    Raises:
        ConfigError: TE has no such recipe, the recipe has no such option, or refuses its value.
    """
    names = recipe_names()
    if config.name not in names:
        message = f"recipe {config.name!r} is not in Transformer Engine {version()}; it has {', '.join(names)}"
        raise ConfigError(message)
    cls: Callable[..., object] = getattr(engine().recipes, config.name)
    fields = inspect.signature(cls).parameters
    for option in config.options:
        if option not in fields:
            owners = [n for n in names if option in inspect.signature(getattr(engine().recipes, n)).parameters]
            raise ConfigError(f"recipe {config.name} has no option {option}; it is one of {' and '.join(owners)}")
    arguments = dict(config.options)
    if config.fp8_format is not None:
        arguments["fp8_format"] = _fp8_format(config.fp8_format)
    try:
        return cls(**arguments)
    except (AssertionError, ValueError) as error:
        raise ConfigError(f"recipe {config.name} refuses {_shown(config.options)}: {_words_of(error)}") from error


def _fp8_format(name: str) -> object:
    formats = engine().recipes.Format.__members__
    if name not in formats or name == "E2M1":  # a format of four bits
        raise ConfigError(f"FP8 format is {name!r}; expected E4M3 or HYBRID")
    return formats[name]


def _words_of(error: Exception) -> str:
    """TE's own words, without what pydantic puts around an assertion in a recipe."""
    assertion = re.search(r"Assertion failed, (.*?)(?: \[type=|$)", str(error), re.MULTILINE)
    return assertion[1] if assertion else str(error)


def _shown(options: Mapping[str, object]) -> str:
    return ", ".join(f"{name}={value}" for name, value in options.items())


def support(recipe: object) -> Support:
    """Whether TE lets this machine use a recipe object, found by asking its autocast."""
    try:
        with autocast(enabled=True, recipe=recipe):
            return Support(ok=True)
    except (AssertionError, ValueError, NotImplementedError) as error:
        return Support(ok=False, reason=str(error))
    except AttributeError as error:
        # 2.1 and 2.2 have recipes for PyTorch that their JAX side takes for DelayedScaling, and stumbles over.
        if type(recipe).__name__ not in str(error):
            raise
        return Support(ok=False, reason=str(error))


def support_by_recipe() -> dict[str, Support]:
    """What `support` says of each recipe of the installed TE, with its default options."""
    return {name: support(make_recipe(RecipeConfig(name))) for name in recipe_names()}


def require_support(config: RecipeConfig) -> None:
    """Refuse a recipe that cannot run here.

    Raises:
        ConfigError: with TE's reason and the recipes that this machine can run.
    """
    asked = support(make_recipe(config))
    if asked.ok:
        return
    able = [name for name, found in support_by_recipe().items() if found.ok]
    raise ConfigError(
        f"recipe {config.name} cannot run here ({engine().kind.description}): {asked.reason}"
        f" Possible here: {', '.join(able) or 'none'}"
    )


def keeps_metadata(config: RecipeConfig) -> bool:
    """Whether a recipe keeps metadata from step to step: it does if it has an amax history."""
    return "amax_history_len" in inspect.signature(getattr(engine().recipes, config.name)).parameters


def size_multiple(config: RecipeConfig) -> int:
    """What the sizes of an FP8 GEMM must be multiples of: 16 for cuBLAS, 32 for a block-scaled recipe's blocks."""
    return 32 if "BlockScaling" in config.name else 16
