"""Which attention a release computes with fused kernels, and which it leaves to JAX."""

import inspect

import jax.numpy as jnp

from mnist_fp8.subjects.attention import PACKED, SUBJECT, allowed, mask_type
from mnist_fp8.subjects.making import demand_parameters, name_of_te
from mnist_fp8.subjects.subject import Case, NotInReleaseError


def backends() -> dict[str, str]:
    """``fused`` or ``unfused`` by subject and case, in BF16 while training; what the release lacks is left out.

    A host run has no kernels, so that all of it is unfused.
    """
    found = {}
    for subject in (SUBJECT, PACKED):
        for case in subject.cases:
            try:
                found[f"{subject.name}, {case.name}"] = "fused" if is_fused(case) else "unfused"
            except NotInReleaseError:
                continue
    return found


def is_fused(case: Case) -> bool:
    """Whether the release has a fused kernel for a case of attention, in BF16 while training.

    Raises:
        NotInReleaseError: it cannot name an option of the case.
    """
    available = name_of_te("attention", "is_fused_attn_kernel_available")
    if "window_size" in case.fields:
        demand_parameters(available, "window_size")
    asked = inspect.signature(available).parameters
    return bool(available(**{name: value for name, value in _question(case).items() if name in asked}))


def _question(case: Case) -> dict[str, object]:
    """All that releases ask for, by their names for it."""
    fields = case.fields
    batch, _, queries, keys = allowed(case).shape
    bias = case.inputs.get("bias", (None, None))
    kind = fields.get("attn_bias_type", "post_scale_bias" if "bias" in case.inputs else "no_bias")
    question = {
        "is_training": True,
        "batch_size": batch,
        "q_dtype": jnp.bfloat16,
        "kv_dtype": jnp.bfloat16,
        "qkv_layout": name_of_te("attention", "QKVLayout", fields["qkv_layout"].upper()),
        "attn_bias_type": name_of_te("attention", "AttnBiasType", kind.upper()),
        "attn_mask_type": mask_type(case),
        "dropout_probability": 0.0,
        "q_num_heads": fields["num_attention_heads"],
        "kv_num_heads": fields["num_gqa_groups"],
        "q_max_seqlen": queries,
        "kv_max_seqlen": keys,
        "head_dim": fields["head_dim"],
        "head_dim_qk": fields["head_dim"],
        "head_dim_v": case.inputs.get("value", (fields["head_dim"],))[-1],
        "window_size": fields.get("window_size"),
        "max_segments_per_seq": fields.get("max_segments_per_seq", 1),
        "bias_batch": bias[0],
        "bias_heads": bias[1],
        "bias_seqlen_q": queries if "bias" in case.inputs else None,
        "bias_seqlen_kv": keys if "bias" in case.inputs else None,
    }
    if "softmax_type" in fields or hasattr(name_of_te("attention"), "AttnSoftmaxType"):
        softmax = fields.get("softmax_type", "vanilla")
        question["softmax_type"] = name_of_te("attention", "AttnSoftmaxType", f"{softmax.upper()}_SOFTMAX")
    return question
