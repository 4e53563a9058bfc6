"""How a user's model is named: both sides, what judges and what is judged, know it."""

import re

from mnist_fp8.core.errors import ConfigError

VARIABLE = "MNIST_FP8_MODEL"
"""The environment variable that tells a run which model: ``package.module:factory``."""
FOLDER = "MNIST_FP8_MODEL_PATH"
"""The one with the folder in which the package lies, where it is not installed."""
CONTENTS = "MNIST_FP8_MODEL_CONTENTS"
"""The one with the digest of the modules in that folder: a result counts for these alone."""
VARIABLES = (VARIABLE, FOLDER, CONTENTS)
"""All of them."""
CLAIMS = "model_"
"""What the names of the claims on models begin with."""


def parse_model(name: str) -> tuple[str, tuple[str, ...]]:
    """The module and the path inside of it of a name such as ``package.module:factory``.

    Raises:
        ConfigError: it is no such name.
    """
    module, _, path = name.partition(":")
    parts = (*module.split("."), *path.split("."))
    if not all(re.fullmatch(r"[^\W\d]\w*", part) for part in parts):
        raise ConfigError(f"model is {name!r}; expected PACKAGE:FACTORY, such as ours.model:case")
    return module, tuple(path.split("."))
