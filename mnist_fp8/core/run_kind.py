"""The two kinds of run: TE with its CUDA extension on a GPU, or its own Python on a CPU."""

import enum
import os
from collections.abc import Mapping

from mnist_fp8.core.errors import ConfigError


class RunKind(enum.Enum):
    """How Transformer Engine runs; every output of the project says which."""

    KERNEL = "kernel"
    HOST = "host"

    @property
    def description(self) -> str:
        """One line that says what this kind of run can see."""
        if self is RunKind.KERNEL:
            return "kernel run: Transformer Engine with its CUDA extension, on a GPU"
        return (
            "host run: Transformer Engine's own Python on the CPU; its CUDA kernels are not seen. It pretends compute"
            " capability 9.0, and 10.0 for MXFP8 and NVFP4, whose products are computed by their definition"
        )


def requested_run_kind(environ: Mapping[str, str] = os.environ) -> RunKind | None:
    """The kind of run that ``MNIST_FP8_TE`` forces; ``None`` where it is unset or empty.

    Raises:
        ConfigError: the variable is neither ``kernel`` nor ``host``.
    """
    value = environ.get("MNIST_FP8_TE", "")
    if not value:
        return None
    try:
        return RunKind(value)
    except ValueError:
        raise ConfigError(f"MNIST_FP8_TE is {value!r}; expected 'kernel' or 'host', or leave it unset") from None
