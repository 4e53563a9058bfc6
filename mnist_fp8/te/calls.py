"""What Transformer Engine's layers see and return inside any program of a user's: values, gradients, metadata.

Each of TE's quantized layers is a function with derivatives of its own (``jax.custom_vjp``). While calls are recorded,
each of these is replaced by one that does the same and hands what it saw to the host: so scans, rematerialisation,
``vmap``, microbatches and the training step around it stay as they are, and nothing has to be known of the module.
"""

import contextlib
import dataclasses
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import flax
import flax.linen as nn
import jax
import numpy as np

from mnist_fp8.oracle.dense import Array
from mnist_fp8.programs.jaxprs import Gemm, gemms
from mnist_fp8.te import loading
from mnist_fp8.te.dense import dense_dialect
from mnist_fp8.te.metadata import leaves_float8_to_xla

_MODULES = ("dense", "dot", "fused_attn", "layernorm_dense", "layernorm_mlp", "layernorm", "mlp", "permutation")
"""Modules of ``transformer_engine.jax`` that may not be imported yet when a model is traced for the first time."""


@dataclasses.dataclass(frozen=True)
class Site:
    """A place in a program that calls a layer of TE.

    Attributes:
        function: name of TE's function, such as ``dense``.
        module: path of the Flax module around it, such as ``blocks/up``; empty where there is none.
        place: file and line of the user's code, such as ``model.py:12``; empty where all code is a library's.
        products: its matrix products, forward and backward.
    """

    function: str
    module: str
    place: str
    products: tuple[Gemm, ...]

    def __str__(self) -> str:
        """Its name in messages: the module and the place, as far as they are known."""
        return " at ".join(filter(None, (self.module or self.function, self.place)))


@dataclasses.dataclass(frozen=True)
class Call:
    """One run of a site, with its backward pass. Arrays are in the order of the function's arguments.

    Attributes:
        site: where.
        options: the arguments that are no arrays, such as an epsilon, by name.
        names: of the arguments that the inputs belong to, one for each input.
        inputs: such as x, kernel, bias; then scales and amax histories.
        outputs: what it computed.
        d_outputs: the gradients that arrived.
        d_inputs: those that left; of metadata, what the next step shall use.
    """

    site: Site
    options: Mapping[str, Any]
    names: tuple[str, ...]
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]
    d_outputs: tuple[Array, ...]
    d_inputs: tuple[Array, ...]


class Recording:
    """The calls of what runs while they are recorded.

    Attributes:
        sites: all that were traced, forward-only ones included, in their order.
    """

    def __init__(self) -> None:
        self.sites: list[Site] = []
        self._calls: list[Call] = []

    @property
    def calls(self) -> tuple[Call, ...]:
        """All that ran backward, once their values are there. In no particular order."""
        jax.effects_barrier()
        return tuple(self._calls)

    def forget(self) -> None:
        """Let go of the calls that are noted."""
        self._calls.clear()

    def add(self, call: Call) -> None:
        """Note a call that ran."""
        self._calls.append(call)


@contextlib.contextmanager
def recorded() -> Iterator[Recording]:
    """Record the calls of all programs that are traced inside. Programs that JAX keeps are forgotten first."""
    dense_dialect()  # traces a layer of its own, once
    recording, originals = Recording(), list(_functions())
    jax.clear_caches()
    for module, name, function in originals:
        setattr(module, name, _recorder(function, recording))
    try:
        yield recording
    finally:
        for module, name, function in originals:
            setattr(module, name, function)
        jax.clear_caches()


def _functions() -> Iterator[tuple[ModuleType, str, Any]]:
    """TE's functions with derivatives of their own, each wherever a module has it."""
    package = loading.engine().module.__name__
    for name in _MODULES:
        with contextlib.suppress(ImportError):
            importlib.import_module(f"{package}.{name}")
    modules = [module for name, module in sorted(sys.modules.items()) if f"{name}.".startswith(f"{package}.")]
    for module in modules:
        for name, value in list(vars(module).items()):
            if isinstance(value, jax.custom_vjp):
                yield module, name, value


def _recorder(function: Any, recording: Recording) -> Callable[..., Any]:  # noqa: ANN401 - TE's, with derivatives
    static = frozenset(function.nondiff_argnums)
    signature = inspect.signature(function.fun)

    def call(*given: Any, **named: Any) -> Any:  # noqa: ANN401
        bound = signature.bind(*given, **named)
        bound.apply_defaults()
        arguments = bound.args
        products = _products(function, static, arguments)
        if not products:  # an activation, a softmax: nothing is quantized for it
            return function(*arguments)
        module, place = _where(sys._getframe(1))  # noqa: SLF001 - who called is what is asked
        site = Site(function.fun.__name__.strip("_"), module, place, products)
        recording.sites.append(site)
        options = {name: arguments[n] for n, name in enumerate(signature.parameters) if n in static}
        free = [name for name in signature.parameters if name not in options]

        def note(inputs: Any, *others: Any) -> None:  # noqa: ANN401
            names = tuple(name for name, given in zip(free, inputs, strict=True) for _ in jax.tree.leaves(given))
            arrays = (tuple(map(_copied, jax.tree.leaves(value))) for value in (inputs, *others))
            recording.add(Call(site, options, names, *arrays))

        return _seen(function, static, note)(*arguments)

    return call


def _seen(function: Any, static: frozenset[int], note: Callable[..., None]) -> Any:  # noqa: ANN401
    """A function like TE's, that hands what it saw to the host in its backward pass: ``note`` takes it there."""

    def forward(*arguments: Any) -> Any:  # noqa: ANN401
        inputs = [argument for position, argument in enumerate(arguments) if position not in static]
        inputs = jax.tree.map(lambda value: value, inputs)  # copies of TE's quantizers, which change when they quantize
        outputs, residuals = function.fwd(*arguments)
        return outputs, (residuals, inputs, outputs)

    def backward(*arguments: Any) -> Any:  # noqa: ANN401
        *fixed, (residuals, inputs, outputs), d_outputs = arguments
        d_inputs = function.bwd(*fixed, residuals, d_outputs)
        jax.debug.callback(note, inputs, outputs, d_outputs, _in_full(inputs, d_inputs))
        return d_inputs

    seen = jax.custom_vjp(function.fun, nondiff_argnums=tuple(sorted(static)))
    seen.defvjp(forward, backward)
    return seen


def _copied(value: Any) -> Array:  # noqa: ANN401
    """An array of the host's own: what a callback is given may be freed after it."""
    return np.array(value)


def _in_full(inputs: Any, d_inputs: Any) -> Any:  # noqa: ANN401
    """Gradients, one for each array that went in: zeros where the function returns ``None`` for a whole argument.

    And none where nothing went in: kernels return a gradient of a bias that there is not.
    """

    def filled(given: Any, gradient: Any) -> Any:  # noqa: ANN401
        if not jax.tree.leaves(given):
            return given
        return jax.tree.map(jax.numpy.zeros_like, given) if gradient is None else gradient

    return [filled(given, gradient) for given, gradient in zip(inputs, d_inputs, strict=True)]


# --- where, and which products ---------------------------------------------------------------------------------------


def _products(function: Any, static: frozenset[int], arguments: Any) -> tuple[Gemm, ...]:  # noqa: ANN401
    """The matrix products of a function and of its backward pass, traced for themselves."""
    fixed = {position: argument for position, argument in enumerate(arguments) if position in static}
    given = [argument for position, argument in enumerate(arguments) if position not in static]

    def apply(*values: Any) -> Any:  # noqa: ANN401
        rest = iter(values)
        return function(*(fixed[n] if n in fixed else next(rest) for n in range(len(arguments))))

    def both(values: Any, gradients: Any) -> Any:  # noqa: ANN401
        _, pull_back = jax.vjp(apply, *values)
        return pull_back(gradients)

    shapes = jax.tree.map(lambda value: jax.ShapeDtypeStruct(np.shape(value), jax.numpy.result_type(value)), given)
    forward, outputs = jax.make_jaxpr(apply, return_shape=True)(*shapes)
    count = len(gemms(forward))
    products = gemms(jax.make_jaxpr(both)(shapes, outputs), dequantized=leaves_float8_to_xla())
    # Not each JAX says in a program what is backward; forward comes first.
    return tuple(dataclasses.replace(product, backward=n >= count) for n, product in enumerate(products))


_LIBRARIES = tuple(str(Path(module.__file__ or "").parent) for module in (jax, flax))
_HERE = str(Path(__file__).parent)


def _where(frame: FrameType | None) -> tuple[str, str]:
    """Path of the Flax module that makes a call, and the line of the user's code."""
    package = str(Path(loading.engine().module.__file__ or "").parent.parent)
    libraries = (*_LIBRARIES, package, _HERE, contextlib.__file__)
    module, place = "", ""
    while frame is not None and not (module and place):
        file = frame.f_code.co_filename
        owner = frame.f_locals.get("self")
        if not module and isinstance(owner, nn.Module) and owner.scope is not None:
            module = "/".join(owner.path)
        if not place and not file.startswith(libraries) and not file.startswith("<"):
            place = f"{Path(file).name}:{frame.f_lineno}"
        frame = frame.f_back
    return module, place
