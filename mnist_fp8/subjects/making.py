"""Make a release's layers, whatever it calls their fields, and say what it lacks."""

import importlib.util
import inspect
from typing import Any

from mnist_fp8 import te
from mnist_fp8.subjects.subject import NotInReleaseError


def name_of_te(*path: str) -> Any:  # noqa: ANN401
    """What a path below ``transformer_engine.jax`` leads to.

    Raises:
        NotInReleaseError: it leads nowhere, or is imported with Triton, which Transformer Engine does not ask for and
            which is not here.
    """
    name = f"{'.'.join(path)} in transformer_engine.jax"
    try:
        return te.find_name(*path)
    except AttributeError:
        raise NotInReleaseError(f"needs {name}; found none in {te.version()}") from None
    except ImportError as error:
        if "triton" not in str(error).lower() or importlib.util.find_spec("triton"):
            raise
        raise NotInReleaseError(f"needs {name}, which {te.version()} imports with Triton; found no Triton") from None


def flax_layer(name: str, **fields: Any) -> Any:  # noqa: ANN401
    """A module of ``transformer_engine.jax.flax`` with float32 parameters, in the dtype of its input, batch first.

    Raises:
        NotInReleaseError: the release has no such module, or no such field of it.
    """
    layer = name_of_te("flax", name)
    demand_parameters(layer, *fields)
    known = inspect.signature(layer).parameters
    if "transpose_batch_sequence" in known:
        fields = {"transpose_batch_sequence": False, **fields}
    if te.dense_dialect().computes_in_dtype and "dtype" in known:
        layer = te.computing_in_the_dtype_of_its_input(layer)
    return layer(**fields)


def demand_parameters(function: Any, *names: str) -> None:  # noqa: ANN401
    """Demand that a function or class takes some arguments.

    Raises:
        NotInReleaseError: the release's does not.
    """
    unknown = [name for name in names if name not in inspect.signature(function).parameters]
    if unknown:
        raise NotInReleaseError(f"needs {', '.join(unknown)} of {function.__qualname__}; found none in {te.version()}")
