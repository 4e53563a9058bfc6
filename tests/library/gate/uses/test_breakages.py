"""Upgrades that broke users' code are seen at the line that breaks, with the releases that it fits."""

import itertools
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest

from mnist_fp8.gate.names.stored import all_names
from mnist_fp8.gate.uses.judge import judge
from mnist_fp8.gate.uses.judgement import Outcome
from mnist_fp8.gate.uses.ranges import fitting
from mnist_fp8.gate.uses.scan import find_uses
from mnist_fp8.record.names import Names

PACKED = """
    from transformer_engine.jax.attention import SequenceDescriptor

    def describe(segment_ids, positions):
        return SequenceDescriptor.from_segment_ids_and_pos(segment_ids, segment_pos=positions)
"""
PACKED_NEW = PACKED.replace("=positions", "=positions, is_thd=True, is_segment_ids_reordered=False")
PACKED_BOTH = """
    from transformer_engine.jax.attention import SequenceDescriptor

    def describe(segment_ids, positions):
        try:
            return SequenceDescriptor.from_segment_ids_and_pos(
                segment_ids, positions, is_thd=True, is_segment_ids_reordered=False
            )
        except TypeError:
            return SequenceDescriptor.from_segment_ids_and_pos(segment_ids, positions)
"""
WRAPPER = """
    import flax.linen as nn
    import transformer_engine.jax.flax.module as te

    class Wrapper(te.TransformerEngineBase):
        def generate_quantizer_set(self, postfix=""):
            return super().generate_quantizer_set(postfix, quantization_checkpoint_name="quantization")

        @nn.compact
        def __call__(self, f, x):
            return f(self.generate_quantizer_set, x)
"""
ATTENTION = """
    import warnings

    def attend(q, k, v, mask):
        try:
            return attend_fused(q, k, v, mask)
        except ImportError:
            warnings.warn("without fused attention")

    def attend_fused(q, k, v, mask):
        from transformer_engine.jax.attention import AttnBiasType, AttnMaskType, QKVLayout, fused_attn

        return fused_attn(
            (q, k, v), bias=None, mask=mask, seed=None, attn_bias_type=AttnBiasType.NO_BIAS,
            attn_mask_type=AttnMaskType.CAUSAL_MASK, qkv_layout=QKVLayout.BSHD_BSHD_BSHD, scaling_factor=1.0,
            dropout_probability=0.0, is_training=True,
        )
"""
CONTEXT_PARALLEL = """
    from transformer_engine.jax.flax.transformer import DotProductAttention

    def layer():
        return DotProductAttention(
            head_dim=64, num_attention_heads=8, context_parallel_axis="context",
            context_parallel_causal_load_balanced=True,
        )
"""


@pytest.fixture(scope="module")
def releases() -> Mapping[str, Names]:
    return all_names()


@pytest.mark.parametrize(
    ("source", "breaks", "ranges"),
    [
        (PACKED, [("2.12.0", 5, "is_thd"), ("2.12.0", 5, "is_segment_ids_reordered")], ">=2.1,!=2.12.*,!=2.13.*"),
        (PACKED_NEW, [("2.14.0", 5, "is_thd"), ("2.14.0", 5, "is_segment_ids_reordered")], ">=2.12,<2.14"),
        (PACKED_BOTH, [], ">=2.1"),
        (WRAPPER, [("2.14.0", 6, "n_groups")], ">=2.10,<2.14"),
        (WRAPPER.replace('postfix=""', 'postfix="", n_groups=None'), [], ">=2.10"),
        (ATTENTION, [("2.1.0", 13, "mask")], ">=1.10,<2.1"),
        (CONTEXT_PARALLEL, [], ">=1.13"),
    ],
    ids=["arguments added", "arguments removed", "either", "override", "override that takes it", "mask", "too new"],
)
def test_breakage_is_seen_where_it_came(
    source: str, breaks: list[tuple[str, int, str]], ranges: str, releases: Mapping[str, Names], tmp_path: Path
) -> None:
    file = tmp_path / "user.py"
    file.write_text(textwrap.dedent(source))
    uses = find_uses([file]).uses
    found = [
        (release, judgement.use.place.line, judgement.subject)
        for before, release in itertools.pairwise(releases)
        for judgement in judge(uses, releases[before], releases[release])
        if judgement.outcome is Outcome.BREAKS
    ]
    assert found == breaks
    assert fitting(uses, releases).ranges == (ranges,)


def test_code_that_is_too_new_for_the_old_side_works_with_the_new_one(
    releases: Mapping[str, Names], tmp_path: Path
) -> None:
    file = tmp_path / "user.py"
    file.write_text(textwrap.dedent(CONTEXT_PARALLEL))
    uses = find_uses([file]).uses
    outcomes = {each.outcome for each in judge(uses, releases["1.12.0"], releases["1.13.0"])}
    assert outcomes == {Outcome.SAME, Outcome.BETTER}
    outcomes = {each.outcome for each in judge(uses, releases["1.10.0"], releases["1.12.0"])}
    assert outcomes == {Outcome.SAME, Outcome.BROKEN_ALREADY}
