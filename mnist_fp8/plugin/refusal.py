"""When a run is refused: what it needs is missing or broken, or kernels are asked for where there are none."""

import importlib.util
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from mnist_fp8.core import imports
from mnist_fp8.core.errors import AnswerError, ConfigError, TeUnavailableError
from mnist_fp8.core.files import cache_dir
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.plugin.selection import selects_gpu


def demand_assertions() -> None:
    """Refuse a Python that leaves out assertions.

    Raises:
        UsageError: it does.
    """
    if sys.flags.optimize:
        raise pytest.UsageError(
            "nothing can be verified: Python leaves out the assertions of the suite (-O or PYTHONOPTIMIZE);"
            " run it without"
        )


def check_run(config: pytest.Config) -> None:
    """Refuse a run that would not come to its tests.

    Raises:
        UsageError: pytest has not loaded a plugin of the suite, JAX is broken, or there is no place
            for compiled programs; one line says which and why.
    """
    if "timeout_method" not in config.option:
        raise pytest.UsageError("the suite needs pytest-timeout: install it, and unset PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    try:
        imports.require("jax", "flax.linen", "optax")
        cache_dir()
    except AnswerError as error:
        raise pytest.UsageError(f"nothing can be verified: {error}") from error


def kind_of_run(expression: str) -> RunKind:
    """The kind of run that tests selected by a ``-m`` expression get.

    Raises:
        UsageError: there is none; one line says what is missing.
    """
    from mnist_fp8 import te  # noqa: PLC0415

    try:
        kind = te.engine().kind
    except TeUnavailableError as error:
        raise pytest.UsageError(f"nothing can be verified: {explain(error)}") from error
    except ConfigError as error:
        raise pytest.UsageError(f"nothing can be verified: {error}") from error
    if selects_gpu(expression) and kind is not RunKind.KERNEL:
        found = te.why_no_gpu() or "a GPU, but MNIST_FP8_TE=host"
        raise pytest.UsageError(f"-m gpu needs a kernel run: a GPU and TE's CUDA extension; found {found}")
    return kind


def count_excuse_as_failure(call: pytest.CallInfo[Any]) -> None:
    """Have a test fail that something else than its marks skips, or expects to fail, while it runs.

    Whatever is judged runs in the process of the tests. It can call `pytest.skip` and `pytest.xfail`, too.
    """
    excuse = call.excinfo.value if call.excinfo else None
    if isinstance(excuse, pytest.xfail.Exception) or (
        call.when == "call" and isinstance(excuse, pytest.skip.Exception)
    ):
        _fail(call, f"what is judged ends the test that judges it: {type(excuse).__name__}: {excuse}")


def count_replaced_judge_as_failure(call: pytest.CallInfo[Any], names: Sequence[str]) -> None:
    """Have a test fail in whose process functions of what judges were replaced, by their names."""
    if names and call.when == "call":
        _fail(call, f"what is judged has replaced functions of what judges: {', '.join(names[:3])}")


def _fail(call: pytest.CallInfo[Any], message: str) -> None:
    with pytest.raises(AssertionError) as failure:
        raise AssertionError(message)
    call.excinfo = failure


def explain(error: Exception) -> str:
    """Why TE cannot run, and which piece of the installation does not fit, in one line."""
    reason = " ".join(str(error).split())
    # Environments of other releases get a copy of the package without what judges them; the doctor is not in it.
    if importlib.util.find_spec("mnist_fp8.doctor") is None:
        return reason
    from mnist_fp8.doctor import checks  # noqa: PLC0415

    return f"{'; '.join(filter(None, (reason, checks.first_problem())))} (mnist-fp8 doctor says more)"
