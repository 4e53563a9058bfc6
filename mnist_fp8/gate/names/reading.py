"""Every name of a Transformer Engine for JAX, read from its source: nothing is imported."""

import functools
import hashlib
import platform
from importlib import metadata
from pathlib import Path

from mnist_fp8.core.files import digest_of
from mnist_fp8.record import names
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


@functools.cache
def digest() -> str:
    """Digest of what reads names: its code, griffe, and the Python whose grammar it is."""
    folders = [Path(module).parent for module in (__file__, names.__file__)]
    files = [file for folder in folders for file in sorted(folder.glob("*.py"))]
    code = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return digest_of([code, metadata.version("griffelib"), platform.python_version()])
