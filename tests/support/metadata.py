"""FP8 metadata: what a recipe makes of them, by the oracle, and how TE's are compared with that."""

from collections.abc import Mapping
from typing import Any

from mnist_fp8 import te_api
from support.assertions import assert_close, assert_equal
from support.layers import read_meta
from support.oracles import FORMATS, FP8_MAX, Meta, next_meta
from support.tolerances import scale_tolerance


def next_metas(metas: Mapping[str, Meta], amaxes: Mapping[str, float], options: Mapping[str, Any]) -> dict[str, Meta]:
    """The oracle's metadata after a step that saw the given amaxes, by tensor, under a recipe's options."""
    formats = FORMATS[options.get("fp8_format", "HYBRID")]
    margin, algo = options.get("margin", 0), options.get("amax_compute_algo", "max")
    return {
        tensor: next_meta(metas[tensor], amax, fp8_max=FP8_MAX[formats[tensor]], margin=margin, algo=algo)
        for tensor, amax in amaxes.items()
    }


def assert_metas(metadata: Mapping[str, Any], expected: Mapping[str, Meta], *, where: str, nan: bool = False) -> None:
    """Compare stored metadata: histories bit for bit, scales too where division is exactly rounded.

    Raises:
        AssertionError: a history or scale is not as expected.
        ValueError: NaN is expected, and ``nan`` does not allow that.
    """
    __tracebackhide__ = True
    for tensor, wanted in expected.items():
        found = read_meta(metadata, tensor)
        assert_equal(where=f"{where}: {tensor} amax history", actual=found.history, expected=wanted.history, nan=nan)
        tolerance = scale_tolerance(float(wanted.scale), te_api.engine().kind)
        assert_close(where=f"{where}: {tensor} scale", actual=found.scale, expected=wanted.scale, tolerance=tolerance)
