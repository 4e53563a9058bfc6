"""Verify that Transformer Engine for JAX keeps its FP8 promises, on a GPU and without one."""

__version__ = "0.1.0"
