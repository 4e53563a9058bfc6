"""The two kinds of run: TE with its CUDA extension on a GPU, or its own Python on a CPU."""

import enum
import os
from collections.abc import Mapping

from mnist_fp8.core.capability import BY_RECIPE, Capability
from mnist_fp8.core.errors import ConfigError


class RunKind(enum.Enum):
    """How Transformer Engine runs; every output of the project says which."""

    KERNEL = "kernel"
    HOST = "host"

    @property
    def sentence(self) -> str:
        """What runs, in one sentence."""
        if self is RunKind.KERNEL:
            return "kernel run: Transformer Engine with its CUDA extension, on a GPU"
        return "host run: Transformer Engine's own Python on the CPU"

    def describe(self, capability: Capability | None = None) -> str:
        """One line that says what this kind of run can see.

        Args:
            capability: what a host run was asked to pretend; ``None`` leaves it to the recipe.
        """
        if self is RunKind.KERNEL:
            return self.sentence
        return f"{self.sentence}; its CUDA kernels are not seen. It pretends {pretended(capability)}"


def pretended(capability: Capability | None) -> str:
    """The GPU that a host run pretends, and what becomes of the recipes that need a Blackwell.

    Args:
        capability: what was asked for; ``None`` leaves it to the recipe.
    """
    if capability is Capability.HOPPER:
        return f"compute capability {capability} for all recipes, so that MXFP8 and NVFP4 do not run"
    said = BY_RECIPE if capability is None else f"{capability} for all recipes"
    return f"compute capability {said}; products of MXFP8 and NVFP4 are computed by their definition"


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
