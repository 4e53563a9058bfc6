"""Run a case of a subject: its variables, and a step forward and backward in a mode."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from mnist_fp8 import te
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.oracle.arithmetic import Reference
from mnist_fp8.oracle.dense import TENSORS, Meta
from mnist_fp8.subjects.subject import Case, InnerProduct, NotInReleaseError, RecipeFrom, Subject
from mnist_fp8.te.dense_step import BF16, on_device, read_meta

OVERWRITE = "_overwrite_with_gradient"
"""The collection in which layers that take their recipe at their construction keep its metadata."""


class Step(NamedTuple):
    """Result of a forward and backward pass.

    Attributes:
        y: outputs.
        dx: gradients of the inputs, by name.
        grads: gradients of the variables; those of metadata are the metadata of the next step.
    """

    y: tuple[jax.Array, ...]
    dx: dict[str, jax.Array]
    grads: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Layer:
    """A case of a subject in a mode.

    Attributes:
        subject: what is judged.
        case: with which options.
        mode: the autocast that it runs in, or whose recipe it takes at its construction.
    """

    subject: Subject
    case: Case
    mode: te.Autocast = BF16

    @functools.cached_property
    def module(self) -> Any:  # noqa: ANN401
        """The Flax module.

        Raises:
            NotInReleaseError: the installed release does not have it.
        """
        return self.subject.make(self.case, self.mode.recipe)

    @property
    def quantizes(self) -> bool:
        """Whether its products are of quantized operands."""
        return self.mode.recipe is not None and bool(self.products)

    @property
    def products(self) -> tuple[InnerProduct, ...]:
        """The products that a recipe quantizes."""
        return self.subject.products(self.case)

    @property
    def collection(self) -> str:
        """The collection of its metadata."""
        return OVERWRITE if self.subject.recipe_from is RecipeFrom.CONSTRUCTION else te.metadata_collection()

    def entered(self) -> Any:  # noqa: ANN401 - a context manager
        """The autocast that it runs in."""
        obeys = self.subject.recipe_from is not RecipeFrom.CONSTRUCTION
        return self.mode() if obeys else te.Autocast(axes=self.mode.axes)()

    def init(self, inputs: Mapping[str, Any]) -> Any:  # noqa: ANN401
        """Its variables as Transformer Engine makes them, boxes included."""
        with self.entered():
            return self.module.init(_rngs(), *self._in_order(inputs), **self.case.arguments)

    def apply(self, variables: Any, inputs: Mapping[str, Any]) -> tuple[jax.Array, ...]:  # noqa: ANN401
        """Its outputs; it has to be entered."""
        outputs = self.module.apply(variables, *self._in_order(inputs), rngs=_rngs(), **self.case.arguments)
        return tuple(jax.tree.leaves(outputs))

    def _in_order(self, inputs: Mapping[str, Any]) -> list[Any]:
        """Inputs in the order of the call; what `jax.jit` hands on is sorted by name."""
        return [inputs[name] for name in self.case.inputs]

    def inputs(self, seed: int = 0, dtype: str = "bfloat16") -> dict[str, jax.Array]:
        """Normally distributed inputs."""
        drawn = np.random.default_rng(seed)
        return {name: on_device(drawn.normal(0, 1, shape), dtype) for name, shape in self.case.inputs.items()}

    @functools.cached_property
    def boxed_shapes(self) -> Any:  # noqa: ANN401
        """Shapes and dtypes of its variables as Transformer Engine makes them, boxes included."""
        inputs = {name: jax.ShapeDtypeStruct(shape, jnp.bfloat16) for name, shape in self.case.inputs.items()}
        return jax.eval_shape(self.init, inputs)

    @property
    def shapes(self) -> Any:  # noqa: ANN401
        """Shapes and dtypes of its variables, without what says how they are sharded."""
        return te.unbox(self.boxed_shapes)

    @property
    def reference(self) -> Reference:
        """What it must compute; the same function each time, so that it is compiled once."""
        return _reference(self.subject, self.case)

    def variables(self, seed: int = 0) -> dict[str, Any]:
        """Variables of which every parameter counts: none is zero or one, as first parameters are."""
        drawn = np.random.default_rng(seed)
        shapes = dict(self.shapes)
        params = jax.tree_util.tree_map_with_path(functools.partial(_parameter, drawn), shapes.pop("params", {}))
        return {"params": params, **jax.tree_util.tree_map_with_path(_first_metadata, shapes)}

    def grads(self, seed: int = 1) -> tuple[jax.Array, ...]:
        """Normally distributed gradients of its outputs."""
        drawn = np.random.default_rng(seed)
        return tuple(on_device(drawn.normal(0, 1, y.shape), y.dtype) for y in self._outputs)

    @functools.cached_property
    def _outputs(self) -> tuple[jax.ShapeDtypeStruct, ...]:
        with self.entered():
            return jax.eval_shape(self.apply, self.variables(), self.inputs())


@functools.cache
def _reference(subject: Subject, case: Case) -> Reference:
    return subject.reference(case)


@functools.cache
def why_not(subject: Subject, case: Case) -> str:
    """Why a case cannot be computed here: what it needs, and what was found; empty where it can be."""
    kind = te.engine().kind
    if subject.on_kernels_only and kind is not RunKind.KERNEL:
        return f"needs a kernel run on a GPU; found a {kind.value} run"
    try:
        Layer(subject, case).shapes  # noqa: B018 - made when asked for
    except NotInReleaseError as error:
        return str(error)
    return ""


def _rngs() -> dict[str, jax.Array]:
    # Fused attention takes keys of this kind alone.
    return {name: jax.random.PRNGKey(number) for number, name in enumerate(("params", "dropout", "sr_rng"))}


def _parameter(drawn: np.random.Generator, path: Any, shape: Any) -> jax.Array:  # noqa: ANN401
    name = jax.tree_util.keystr(path[-1:])
    values = drawn.normal(0, 1, shape.shape)
    if "kernel" in name:
        return on_device(values / np.sqrt(shape.shape[0]), shape.dtype)
    return on_device(values / 4 + ("scale" in name), shape.dtype)


def _first_metadata(path: Any, shape: Any) -> jax.Array:  # noqa: ANN401
    """Scales of one and empty histories."""
    scale = "scale" in jax.tree_util.keystr(path[-1:])
    return on_device(np.full(shape.shape, float(scale)), shape.dtype)


@functools.partial(jax.jit, static_argnums=0)
def step(layer: Layer, variables: Any, inputs: Mapping[str, jax.Array], grads: tuple[jax.Array, ...]) -> Step:  # noqa: ANN401
    """Run a layer forward, and backward from the gradients of its outputs."""
    with layer.entered():
        y, pull_back = jax.vjp(layer.apply, variables, dict(inputs))
        dvariables, dx = pull_back(grads)
    return Step(y, dx, dvariables)


def next_variables(layer: Layer, variables: Mapping[str, Any], grads: Mapping[str, Any]) -> dict[str, Any]:
    """The variables of the next step: the same parameters, the new metadata."""
    return {**variables, **({layer.collection: grads[layer.collection]} if layer.collection in variables else {})}


def read_metas(layer: Layer, variables: Mapping[str, Any]) -> dict[str, dict[str, Meta]]:
    """Metadata by product and tensor."""
    metas = {}
    for product in layer.products:
        part = variables[layer.collection]
        for name in product.module:
            part = part[name]
        metas[product.name] = {tensor: read_meta(part, tensor, number_of(product, tensor)) for tensor in TENSORS}
    return metas


def number_of(product: InnerProduct, tensor: str) -> int | None:
    """The number in the names of the metadata of a product's ``x``, ``kernel`` or ``grad``, if there is one."""
    crosses = tensor == "grad" and product.crossed is not None and te.metadata_dialect().crosses_grads
    return product.crossed if crosses else product.number


def numbers(tree: Any) -> Any:  # noqa: ANN401
    """A tree of arrays in float64."""
    return jax.tree.map(lambda array: np.asarray(array, np.float64), tree)
