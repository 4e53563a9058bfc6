"""Claim: a small transformer learns in every mode, step by step as one of Flax's layers does.

TE documents ``TransformerLayer`` as the standard layer of "Attention Is All You Need". One such layer learns to repeat
a sequence (`mnist_fp8.training.transformer`), which takes causal attention and positions. Layers of Flax learn the same
from the same first parameters. Three figures are looked at:

- **The loss on copied tokens**, which can be known, after training.
- **The share of random tokens that are predicted** in new sequences. Nothing before them tells them, so it is chance,
  1/31 give or take five standard deviations of that many tokens, unless a mask lets a position see later ones.
- **The distance of the first 40 losses from those of Flax's layers.** A wrong gradient shows in it although the model
  learns. FP8 has to be further away than BF16: else it is BF16.

The bounds of the first and the last are measured: the mean over ten seeds plus five standard deviations, both of the
logarithm, pooled over the modes (docs/explanation/accuracy.md). What each layer computes is verified elsewhere, to the
rounding; this claim sees what goes wrong between layers, step after step.

What a failure means for an upgrade: transformers do not train as they did.
"""

import pytest

from support.short_run import FP8_MODES, HOPPER_MODES
from support.short_transformer import COPY_LOSS, DISTANCE, GUESSED, distance, learned, short_run

pytestmark = [pytest.mark.subject("TransformerLayer", "encoder"), pytest.mark.training_run]


@pytest.mark.parametrize("mode", HOPPER_MODES)
def test_mode_predicts_nothing_that_cannot_be_known(mode: str) -> None:
    share = learned(short_run(mode)).guessed
    assert share <= GUESSED, (
        f"{mode}: share of random tokens that are predicted={share:.4f}, but should be at most {GUESSED:.4f}:"
        " attention sees later positions"
    )


@pytest.mark.parametrize("mode", HOPPER_MODES)
def test_mode_learns_to_copy(mode: str) -> None:
    loss = learned(short_run(mode)).copy_loss
    assert loss <= COPY_LOSS[mode], f"{mode}: loss on copied tokens={loss:.4f}, but should be at most {COPY_LOSS[mode]}"


@pytest.mark.xla_sums_in_float32
@pytest.mark.parametrize("mode", DISTANCE)
def test_losses_follow_those_of_flax(mode: str) -> None:
    found = distance(learned(short_run(mode)), learned(short_run("flax-bf16")))
    assert found <= DISTANCE[mode], (
        f"{mode}: distance of its first losses from Flax's={found:.5f}, but should be at most {DISTANCE[mode]}"
    )


@pytest.mark.xla_sums_in_float32
@pytest.mark.parametrize("mode", [mode for mode in HOPPER_MODES if mode in FP8_MODES])
def test_fp8_is_not_bf16(mode: str) -> None:
    found = distance(learned(short_run(mode)), learned(short_run("flax-bf16")))
    assert found > DISTANCE["te-bf16"], (
        f"{mode}: distance of its first losses from Flax's={found:.5f}, but should be above {DISTANCE['te-bf16']},"
        " as far as BF16 may be: nothing is quantized"
    )
