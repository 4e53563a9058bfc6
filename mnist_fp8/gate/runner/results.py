"""The key under which a result is kept."""

import hashlib
import os

from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.releases.staging import stage

PREFIXES = ("NVTE_", "XLA_", "JAX_", "MNIST_FP8_", "CUDA_VISIBLE_DEVICES")
"""Environment variables that change what a run sees."""


def result_key(environment: Environment, *parts: str) -> str:
    """Name under which a result is kept: digest of the environment, the variables that change a run, and some words."""
    variables = {name: value for name, value in os.environ.items() if name.startswith(PREFIXES)}
    # What lies in the stage is named by the parts, as far as the result depends on it.
    own = {name: value.replace(str(stage()), "") for name, value in environment.variables.items()}
    whole = (environment.digest, parts, sorted((variables | own).items()))
    return hashlib.sha256(repr(whole).encode()).hexdigest()[:16]
