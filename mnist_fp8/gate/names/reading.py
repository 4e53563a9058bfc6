"""Every name of a Transformer Engine for JAX, read from its source: nothing is imported."""

from pathlib import Path

from mnist_fp8.record.names import Names


def read_names(package: Path) -> Names:
    """Read all names.

    Args:
        package: the folder ``transformer_engine``.

    Raises:
        ConfigError: the folder holds no Transformer Engine for JAX, or its ``__init__.py`` cannot be read.
    """
    from mnist_fp8.gate.names import definitions, source  # noqa: PLC0415 - names are compared without griffe

    return definitions.names_of(*source.load(package))
