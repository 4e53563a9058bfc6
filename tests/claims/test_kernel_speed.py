"""Claim: on a GPU, a large dense layer is faster in FP8 than in BF16.

That is what FP8 is for, and what TE's user guide promises of it. No time decides: the ratio of two times, one taken
right after the other, has to be above a bound that is well below what was measured (docs/evidence/benchmark.md).

What a failure means for an upgrade: products still run in FP8, but by slower kernels, or quantization eats up the gain.
"""

import pytest

from mnist_fp8.core.modes import Mode
from mnist_fp8.core.spread import Spread
from mnist_fp8.te import timing

pytestmark = [pytest.mark.gpu, pytest.mark.slow]

LARGE = (8192, 8192, 8192)
LEAST = {Mode.TE_FP8_DELAYED: 1.2, Mode.TE_FP8_CURRENT: 1.1}
"""Lowest ratio. Measured on an H100, median (lowest..highest) of 7: 1.61 (1.56..1.83) and 1.43 (1.26..1.64)."""


def speed_up(mode: Mode, *, backward: bool) -> Spread:
    """How many times as fast as TE's BF16 layer a mode's is, in each of some repeats."""
    programs = [timing.layer_program(each, LARGE, 8, backward=backward) for each in (Mode.TE_BF16, mode)]
    bf16, fp8 = timing.interleaved(programs, repeats=15, seconds=0.1)
    return bf16.over(fp8)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "forward and backward"])
@pytest.mark.parametrize("mode", LEAST, ids=lambda mode: mode.value)
def test_large_layer_is_faster_in_fp8(mode: Mode, backward: bool) -> None:  # noqa: FBT001
    found, least = speed_up(mode, backward=backward), LEAST[mode]
    assert found.median >= least, (
        f"{mode.value}, {LARGE}: {found.median:.2f} times ({found.lowest:.2f} to {found.highest:.2f}) as fast as TE's"
        f" BF16, but should be at least {least}"
    )


def test_a_mode_is_as_fast_as_itself() -> None:
    # Control: the ratio tells no difference where there is none.
    found = speed_up(Mode.TE_BF16, backward=False).median
    assert 0.9 <= found <= 1.1, f"BF16 against BF16: {found:.2f}"
