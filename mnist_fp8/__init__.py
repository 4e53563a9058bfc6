"""Verify that Transformer Engine for JAX keeps its FP8 promises, on a GPU and without one."""

from importlib.metadata import version

__version__ = version("mnist-fp8")
