"""Random numbers by name: the same in each process, and others for each name."""

import zlib

import numpy as np


def by_name(name: str) -> np.random.Generator:
    """What draws the numbers that have a name, such as the path of an array."""
    return np.random.default_rng(zlib.crc32(name.encode()))
