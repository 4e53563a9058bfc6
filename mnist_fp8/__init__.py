"""Verify that Transformer Engine for JAX keeps its FP8 promises, on a GPU and without one."""

__version__: str


def __getattr__(name: str) -> str:
    """The version, looked up when it is asked for: what happens before the command runs cannot be interrupted well."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # noqa: PLC0415

    return version("mnist-fp8")
