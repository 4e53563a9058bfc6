"""The process that runs the tests: what has to be settled in it before JAX starts."""

import os
import signal
import sys
from collections.abc import Mapping
from typing import Any

import pytest

from mnist_fp8.core import variables, xla_flags
from mnist_fp8.core.capability import VARIABLE, parse_capability
from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.plugin import gpus

CPU_DEVICES = 8
"""Virtual devices on a CPU, so that parallelism can be verified there, along two axes as well."""


def heed_interrupts() -> None:
    """Let Ctrl-C end the tests: a shell that starts them in the background has them, and all they start, ignore it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pretend(capability: str | None) -> None:
    """Have this process, and its workers, pretend a compute capability; ``None`` leaves it at what the variable says.

    Raises:
        UsageError: it is none that can be pretended.
    """
    if capability is None:
        return
    try:
        os.environ[VARIABLE] = str(parse_capability(capability))
    except ConfigError as error:
        raise pytest.UsageError(f"nothing can be verified: {error}") from error


def leave_out_options() -> dict[str, str]:
    """Take options that the tests are not made for out of the environment; returns them.

    They are those of JAX, Flax and XLA, and those that decide what a recipe of Transformer Engine does by default.

    Raises:
        UsageError: JAX has read them already.
    """
    options = variables.left_out(os.environ) | variables.that_decide_defaults(os.environ)
    if options and "jax" in sys.modules:
        names = ", ".join(options)
        raise pytest.UsageError(
            f"nothing can be verified: JAX was imported before options could be left out; unset {names}"
        )
    passed = variables.passed_on(os.environ)
    for name in options:
        del os.environ[name]
    if "XLA_FLAGS" in passed:
        os.environ["XLA_FLAGS"] = passed["XLA_FLAGS"]  # those that are left
    return options


def prepare_jax(workerinput: Mapping[str, Any] | None) -> None:
    """Settle what JAX reads when it starts: memory, GPUs, devices of the CPU, and where compiled programs are kept.

    Args:
        workerinput: what pytest-xdist told this process if it is a worker; ``None`` if it is none.
    """
    from mnist_fp8 import te  # noqa: PLC0415
    from mnist_fp8.programs import cache  # noqa: PLC0415

    # Workers of one machine share a GPU, so none may take all of its memory beforehand.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    gpus.put_own_first(workerinput or {})
    if not te.why_no_gpu():
        xla_flags.put_first(xla_flags.NO_EXCESS_PRECISION)
    divide_cpu()
    cache.keep_programs(is_worker=workerinput is not None)


def divide_cpu() -> None:
    """Make virtual devices of a CPU, for sharding."""
    import jax  # noqa: PLC0415

    if "jax_num_cpu_devices" in jax.config.values:
        jax.config.update("jax_num_cpu_devices", CPU_DEVICES)
    else:  # before JAX 0.5
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={CPU_DEVICES}".strip()


def guard_method(kind: RunKind) -> str:
    """How pytest-timeout ends a test that takes too long.

    A signal makes the test fail and nothing else, but is not seen by a process that waits for a kernel which hangs. A
    thread ends the whole process: with ``-n`` that is a worker, whose test has failed then, and which is replaced.
    """
    return "thread" if kind is RunKind.KERNEL else "signal"
