"""Which codes hang on the last bits of a scale that a GPU divides out."""

from collections.abc import Iterator, Mapping

import numpy as np

from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.oracle import dense
from mnist_fp8.oracle.dense import FORMATS, Array
from mnist_fp8.oracle.tolerances import scale_tolerance


def codes_at_both_ends(
    values: Mapping[str, Array], scales: Mapping[str, float | np.float32], fp8_format: str, kind: RunKind
) -> Iterator[tuple[str, Array, Array]]:
    """Tensors by name, with their codes at the lowest and the highest scale that a kind of run may compute."""
    for name, dtype in FORMATS[fp8_format].items():
        scale = float(scales[name])
        error = scale_tolerance(scale, kind)
        low, high = (dense.quantize(values[name], scale + end, dtype) for end in (-error, error))
        yield name, low, high
