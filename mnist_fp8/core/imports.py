"""Packages that a command cannot do without: where one is broken, one line says so."""

import importlib

from mnist_fp8.core.errors import EnvError


def require(*packages: str) -> None:
    """Import packages.

    Raises:
        EnvError: one is missing, or is broken, such as a JAX beside an `ml_dtypes` that is too old for it.
    """
    for package in packages:
        try:
            importlib.import_module(package)
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise EnvError(f"{package} cannot be imported: {reason}; mnist-fp8 doctor says more") from error
