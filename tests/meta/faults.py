"""Faults put into Transformer Engine by hand, and the claim that has to catch each.

``python tests/meta/faults.py`` edits one place of the installed TE (written for 2.20.2) at a time, for one process and
not on disk, runs the claim's own tests there and prints the table of ``docs/faults.md``: each fault has to turn that claim
red with a message that matches. A fault whose place is not found in the source is an error, not a pass.

The run is a host run: the faults are in TE's Python. With ``--gpu``, those faults are made that only a GPU shows, and the
claims run on kernels; ``docs/faults.md`` has that table, too.
"""

import argparse
import dataclasses
import re
import sys
from collections.abc import Iterator, Sequence

from mnist_fp8 import machine
from mutation import claims, farm, subject
from mutation.claims import Verdict

HELPER, QUANTIZER = "jax/quantize/helper.py", "jax/quantize/quantizer.py"
MODULE, DENSE = "jax/flax/module.py", "jax/dense.py"
GEMM, RECIPE = "jax/cpp_extensions/gemm.py", "common/recipe/__init__.py"
QUANTIZATION = "jax/cpp_extensions/quantization.py"


@dataclasses.dataclass(frozen=True)
class Fault:
    """One edit of TE.

    Attributes:
        what: the fault in a few words.
        claim: the claim that has to catch it, as the file ``tests/claims/test_<claim>.py``.
        file: the file in TE.
        old: text that stands there exactly once, or first.
        new: what replaces it.
        message: pattern that the failure's message has to match.
        gpus: how many GPUs it takes to see it; none for a host run.
    """

    what: str
    claim: str
    file: str
    old: str
    new: str
    message: str
    gpus: int = 0


PARITY, FLOAT8, FALLBACK = "bf16_parity", "float8_in_jaxpr", "fallback_outside_autocast"
KERNELS, KERNEL_NUMERICS, DATA_PARALLEL = "kernels", "kernel_numerics", "data_parallel"
METADATA, NUMERICS, ACCURACY = "fp8_metadata_update", "fp8_numerics", "short_run_accuracy"
PROPERTIES = "fp8_properties"

_BF16_DOT = "return jax.lax.dot_general(lhs, rhs, dim_nums, preferred_element_type=lhs.dtype)"
_BACKWARD = "return dgrad, wgrad, dbias, quantizer_set"
_FP8_DOT = "lhs.data, rhs.data, dim_nums, precision=precision, preferred_element_type=lhs.dq_dtype"
_QUANTIZER_SET = """            quantization_checkpoint_name=self.quantization_checkpoint_name
        )

        if quantizer_set == noop_quantizer_set:"""

_CURRENT_AMAX = "        amax = x.amax or jnp.max(jnp.abs(x.data)).reshape((1,))\n        scale = compute"
_CURRENT_CAST = "jnp.clip(scaled_x, -dtype_max, dtype_max).astype(self.q_dtype)\n        scale_inv = 1.0 / scale\n"
_DELAYED_AMAX = "        amax = x.amax or jnp.max(jnp.abs(x.data)).reshape((1,))\n        # Note"
_BIND = "    (output,) = GemmPrimitive.outer_primitive.bind("
_DEQUANTIZE = """    if scaling_mode.is_tensor_scaling() and ({condition}):
        undo = lambda codes, scale_inv: (codes.astype(jnp.float32) * scale_inv).astype(out_dtype)
        lhs_data, rhs_data = undo(lhs_data, lhs_scale_inv), undo(rhs_data, rhs_scale_inv)
        lhs_scale_inv, rhs_scale_inv = jnp.empty(0, jnp.float32), jnp.empty(0, jnp.float32)
        scaling_mode = ScalingMode.NO_SCALING

"""
_IMPLEMENTATION = "        if scaling_mode.is_1d_block_scaling():\n            lhs_cdims, rhs_cdims = map"
_DEQUANTIZE_IN_IMPLEMENTATION = """        if scaling_mode.is_tensor_scaling():
            undo = lambda codes, scale_inv: (codes.astype(jnp.float32) * scale_inv).astype(out_dtype)
            lhs, rhs = undo(lhs, lhs_scale_inv), undo(rhs, rhs_scale_inv)
            lhs_scale_inv, rhs_scale_inv = jnp.empty(0, jnp.float32), jnp.empty(0, jnp.float32)
            scaling_mode = ScalingMode.NO_SCALING

"""
_REDUCED_AMAX = "all_reduce_max_along_all_axes_except_PP(local_amax, mesh)"
_DEFVJP = "_dense.defvjp(_dense_fwd_rule, _dense_bwd_rule)"
_LAZY_DEFVJP = """def _fwd_where_needed(x, kernel, bias, *others):
    leaf = lambda tree: jax.tree.map(lambda primal: primal.value, tree, is_leaf=lambda node: hasattr(node, "perturbed"))
    output, ctx = _dense_fwd_rule(leaf(x), leaf(kernel), leaf(bias), *others[:-1], leaf(others[-1]))
    return output, (ctx, 1 if kernel.perturbed else None)


def _bwd_where_needed(*arguments):
    *static, (ctx, kernel_is_trained), grad = arguments
    *gradients, quantizer_set = _dense_bwd_rule(*static, ctx, jnp.asarray(grad))
    keep = (lambda leaf: leaf) if kernel_is_trained is not None else jnp.zeros_like
    return *gradients, jax.tree.map(keep, quantizer_set)


_dense.defvjp(_fwd_where_needed, _bwd_where_needed, symbolic_zeros=True)"""

FAULTS = [
    # --- BF16 parity -----------------------------------------------------------------------------------------------
    Fault("product doubled", PARITY, GEMM, _BF16_DOT, _BF16_DOT + " * 2", r"output: .* elements are wrong"),
    Fault("kernel gradient halved", PARITY, DENSE, _BACKWARD, _BACKWARD.replace("wgrad", "wgrad * 0.5"), "kernel grad"),
    Fault("input gradient zero", PARITY, DENSE, _BACKWARD, _BACKWARD.replace("dgrad", "dgrad * 0"), "is zero"),
    Fault("input gradient negated", PARITY, DENSE, _BACKWARD, _BACKWARD.replace("dgrad", "-dgrad"), "input gradient"),
    Fault("bias added twice", PARITY, MODULE, "y += jnp.reshape(bias", "y += 2 * jnp.reshape(bias", "output"),
    Fault(
        "kernel rounded to float8",
        PARITY,
        DENSE,
        "kernel = kernel.astype(input_dtype)",
        "kernel = kernel.astype(jnp.float8_e4m3fn).astype(input_dtype)",
        "output: .* elements are wrong",
    ),
    Fault(
        "bias starts at one",
        PARITY,
        MODULE,
        "use_bias: bool = True\n    bias_init: Initializer = nn.initializers.zeros",
        "use_bias: bool = True\n    bias_init: Initializer = nn.initializers.ones",
        "initial bias",
    ),
    Fault(
        "kernel scaled by fan-out",
        PARITY,
        MODULE,
        '1.0, "fan_in", "truncated_normal", dtype=self.dtype',
        '1.0, "fan_out", "truncated_normal", dtype=self.dtype',
        "initial kernel",
    ),
    Fault(
        "parameters stored in BF16",
        PARITY,
        MODULE,
        "    dtype: DType = jnp.float32\n    input_axes",
        "    dtype: DType = jnp.bfloat16\n    input_axes",
        "bfloat16.*should be.*float32",
    ),
    Fault(
        "output in float32",
        PARITY,
        MODULE,
        "        assert y.dtype == input_dtype\n        return y",
        "        return y.astype(jnp.float32)",
        "dtype",
    ),
    # --- float8 in the program -------------------------------------------------------------------------------------
    Fault("autocast does nothing", FLOAT8, HELPER, "            if enabled:\n", "            if False:\n", "bfloat16"),
    Fault(
        "formats swapped",
        FLOAT8,
        HELPER,
        "return jnp.float8_e4m3fn, jnp.float8_e5m2",
        "return jnp.float8_e5m2, jnp.float8_e4m3fn",
        "first forward: .*e5m2.*should be 1 of .*e4m3",
    ),
    Fault(
        "recipe replaced by none on the way",
        FLOAT8,
        MODULE,
        "quantize_config = get_quantize_config_with_recipe(fp8_recipe)",
        "fp8_recipe = None; quantize_config = get_quantize_config_with_recipe(None)",
        "(?s).*(bfloat16|fp8_metas|noop|quantize_meta_set)",
    ),
    Fault(
        "gradient left in BF16",
        FLOAT8,
        QUANTIZER,
        "            grad_scaling_mode,\n            bwd_dtype,\n",
        "            grad_scaling_mode,\n            jnp.bfloat16,\n",
        "first backward: .*bfloat16",
    ),
    Fault(
        "one layer of three left in BF16",
        FLOAT8,
        MODULE,
        _QUANTIZER_SET,
        _QUANTIZER_SET.replace(
            "        if",
            '        quantizer_set = noop_quantizer_set if self.name == "dense2" else quantizer_set\n        if',
        ),
        "dense2: forward has 0 float8",
    ),
    Fault(
        "product in 16 bits after the casts",
        FLOAT8,
        GEMM,
        _FP8_DOT,
        _FP8_DOT.replace("lhs.data, rhs.data", "lhs.data.astype(jnp.bfloat16), rhs.data.astype(jnp.bfloat16)"),
        "first forward: .*bfloat16",
    ),
    Fault(
        "E4M3 format gives E5M2 gradients",
        FLOAT8,
        HELPER,
        "return jnp.float8_e4m3fn, jnp.float8_e4m3fn",
        "return jnp.float8_e4m3fn, jnp.float8_e5m2",
        "first backward",
    ),
    Fault(
        "HYBRID no longer the default",
        FLOAT8,
        RECIPE,
        "fp8_format: Format = Format.HYBRID",
        "fp8_format: Format = Format.E4M3",
        "first backward",
    ),
    Fault(
        "disabled autocast quantizes",
        FLOAT8,
        HELPER,
        "            if enabled:\n",
        "            if True:\n",
        "(bfloat16|quantized dtypes)",
    ),
    # --- fallback --------------------------------------------------------------------------------------------------
    Fault(
        "metadata alone switch FP8 on",
        FALLBACK,
        MODULE,
        "            fp8_recipe = get_global_quantize_recipe()\n",
        "            fp8_recipe = get_global_quantize_recipe()\n"
        '        if fp8_recipe is None and self.has_variable("fp8_metas", "x_scale"):\n'
        '            fp8_recipe = __import__("transformer_engine.common.recipe", fromlist=["recipe"]).DelayedScaling()\n',
        "metadata present, no autocast: output",
    ),
    Fault(
        "autocast does not end",
        FALLBACK,
        HELPER,
        "    finally:\n        _GLOBAL_RECIPE = old_global_recipe",
        "    finally:\n        pass",
        "(output|after|fp8_metas|metadata)",
    ),
    Fault(
        "autocast does not end after an exception",
        FALLBACK,
        HELPER,
        "            yield\n    finally:\n        _GLOBAL_RECIPE = old_global_recipe",
        "            yield\n        _GLOBAL_RECIPE = old_global_recipe\n    finally:\n        pass",
        "after an (exception inside|autocast that could not)",
    ),
    Fault(
        "nested disabled autocast has no effect",
        FALLBACK,
        HELPER,
        "    _GLOBAL_RECIPE = None\n\n    try:",
        "    try:",
        "disabled inside enabled",
    ),
    Fault(
        "nested autocast ends the outer one",
        FALLBACK,
        HELPER,
        "        _GLOBAL_RECIPE = old_global_recipe\n",
        "        _GLOBAL_RECIPE = None\n",
        "delayed scaling after a nested autocast",
    ),
    Fault(
        "metadata used outside autocast",
        FALLBACK,
        MODULE,
        "        if self.enable_low_rank_adaptation:\n            lora_a",
        '        if self.has_variable("fp8_metas", "x_scale"):\n            y = y * self.get_variable("fp8_metas", "x_scale").astype(y.dtype)\n        if self.enable_low_rank_adaptation:\n            lora_a',
        "metadata present, no autocast: output",
    ),
    Fault(
        "missing metadata fall back to BF16",
        FALLBACK,
        MODULE,
        "        if fp8_recipe is None:\n            fp8_recipe = get_global_quantize_recipe()",
        '        if not self.is_initializing() and not self.has_variable("fp8_metas", "x_scale"):\n            return noop_quantizer_set\n        if fp8_recipe is None:\n            fp8_recipe = get_global_quantize_recipe()',
        "(DID NOT RAISE|recipes should differ)",
    ),
    Fault(
        "initialisation under autocast draws other parameters",
        FALLBACK,
        MODULE,
        '        kernel = self.param(\n            "kernel",',
        '        if get_global_quantize_recipe() is not None and self.is_initializing():\n            self.make_rng("params")\n        kernel = self.param(\n            "kernel",',
        "parameters",
    ),
    # --- metadata --------------------------------------------------------------------------------------------------
    Fault(
        "metadata overwritten with their old values",
        METADATA,
        QUANTIZER,
        "        self.update(amax)\n",
        "",
        "step 0: x amax history",
    ),
    Fault(
        "history rolled the wrong way",
        METADATA,
        QUANTIZER,
        "jnp.roll(amax_history, -1, -1)",
        "jnp.roll(amax_history, 1, -1)",
        "step 0: x amax history",
    ),
    Fault(
        "scale inverted",
        METADATA,
        QUANTIZER,
        "sf = (fp8_max / amax) / (2**margin)",
        "sf = (amax / fp8_max) / (2**margin)",
        "x scale",
    ),
    Fault(
        "margin multiplies",
        METADATA,
        QUANTIZER,
        "sf = (fp8_max / amax) / (2**margin)",
        "sf = (fp8_max / amax) * (2**margin)",
        "scale: .* 16 times|scale",
    ),
    Fault(
        "smallest amax of the history",
        METADATA,
        QUANTIZER,
        "amax = jnp.max(amax_history, axis=-1",
        "amax = jnp.min(amax_history, axis=-1",
        r"(x|kernel|grad) scale",
    ),
    Fault(
        "most recent takes the oldest",
        METADATA,
        QUANTIZER,
        "amax = amax_history[0:1]",
        "amax = amax_history[-1:]",
        r"(x|kernel|grad) scale",
    ),
    Fault(
        "amax without absolute value",
        METADATA,
        QUANTIZER,
        "        amax = x.amax or jnp.max(jnp.abs(x.data)).reshape((1,))\n        # Note",
        "        amax = x.amax or jnp.max(x.data).reshape((1,))\n        # Note",
        "amax history",
    ),
    Fault(
        "slot of the history not cleared",
        METADATA,
        QUANTIZER,
        "updated_amax_history.at[0].set(0.0)",
        "updated_amax_history",
        "amax history",
    ),
    Fault(
        "zero amax not guarded",
        METADATA,
        QUANTIZER,
        "    sf = jnp.where(amax > 0.0, sf, scale)\n",
        "",
        "zero amax.*scale",
    ),
    Fault(
        "infinite amax not guarded",
        METADATA,
        QUANTIZER,
        "    sf = jnp.where(jnp.isfinite(amax), sf, scale)\n",
        "",
        "(infinite|not a number) amax.*scale",
    ),
    Fault(
        "scale averaged with the old one",
        METADATA,
        QUANTIZER,
        "        self.scale = self._compute_scale(\n            amax_history, self.scale, self.q_dtype, self.amax_compute_algo, self.margin\n        )",
        "        self.scale = 0.5 * self.scale + 0.5 * self._compute_scale(\n            amax_history, self.scale, self.q_dtype, self.amax_compute_algo, self.margin\n        )",
        "x scale",
    ),
    Fault(
        "history one step too short",
        METADATA,
        HELPER,
        "(self.AMAX_HISTORY_LEN,)",
        "(max(self.AMAX_HISTORY_LEN - 1, 1),)",
        "amax_history",
    ),
    Fault(
        "x gets the kernel's metadata",
        METADATA,
        QUANTIZER,
        "args_x = quantize_meta_set.x.get",
        "args_x = quantize_meta_set.kernel.get",
        "amax history",
    ),
    Fault(
        "margin of the recipe ignored",
        METADATA,
        HELPER,
        'self.MARGIN = fp8_recipe.margin if "margin" in dir(fp8_recipe) else 0.0',
        "self.MARGIN = 0.0",
        r"(x|kernel|grad) scale",
    ),
    Fault(
        "algorithm of the recipe ignored",
        METADATA,
        HELPER,
        "self.AMAX_COMPUTE_ALGO = string_to_amax_compute_algo[fp8_recipe.amax_compute_algo]",
        "self.AMAX_COMPUTE_ALGO = AmaxComputeAlgo.MAX",
        r"(x|kernel|grad) scale",
    ),
    Fault(
        "update_collections keeps the old",
        METADATA,
        HELPER,
        "FrozenDict({**new, **frozen_original})",
        "FrozenDict({**new, **original})",
        "updated collections=",
    ),
    # --- numerics --------------------------------------------------------------------------------------------------
    Fault(
        "reciprocal scale not inverted",
        NUMERICS,
        QUANTIZER,
        "scale_inv = 1.0 / self.scale",
        "scale_inv = self.scale",
        "output",
    ),
    Fault(
        "saturation left out",
        NUMERICS,
        QUANTIZER,
        "clipped_scaled_x = jnp.clip(scaled_x, -dtype_max, dtype_max).astype(self.q_dtype)\n        scale_inv = 1.0 / self.scale",
        "clipped_scaled_x = scaled_x.astype(self.q_dtype)\n        scale_inv = 1.0 / self.scale",
        "(not finite|wrong)",
    ),
    Fault(
        "saturation at half the format",
        NUMERICS,
        QUANTIZER,
        "jnp.clip(scaled_x, -dtype_max, dtype_max).astype(self.q_dtype)\n        scale_inv = 1.0 / self.scale",
        "jnp.clip(scaled_x, -dtype_max / 2, dtype_max / 2).astype(self.q_dtype)\n        scale_inv = 1.0 / self.scale",
        "wrong|differ",
    ),
    Fault(
        "one operand's scale used for both",
        NUMERICS,
        GEMM,
        "scale_inv = lhs.scale_inv * rhs.scale_inv",
        "scale_inv = lhs.scale_inv * lhs.scale_inv",
        "output",
    ),
    Fault(
        "rounded to BF16 before FP8",
        NUMERICS,
        QUANTIZER,
        "scaled_x = x.data.astype(compute_dtype) * self.scale",
        "scaled_x = (x.data.astype(compute_dtype) * self.scale).astype(jnp.bfloat16)",
        "wrong|differ",
    ),
    Fault(
        "this step's scale instead of the stored one",
        NUMERICS,
        QUANTIZER,
        "scaled_x = x.data.astype(compute_dtype) * self.scale",
        "self.scale = compute_scale_from_amax(jnp.max(jnp.abs(x.data)).astype(jnp.float32).reshape((1,)), self.q_dtype, 0.0)\n        scaled_x = x.data.astype(compute_dtype) * self.scale",
        "output",
    ),
    Fault(
        "current scaling with a margin",
        NUMERICS,
        QUANTIZER,
        "scale = compute_scale_from_amax(amax, self.q_dtype, margin=0.0)",
        "scale = compute_scale_from_amax(amax, self.q_dtype, margin=1.0)",
        "wrong",
    ),
    Fault(
        "values three percent too small",
        NUMERICS,
        QUANTIZER,
        "clipped_scaled_x = jnp.clip(scaled_x, -dtype_max, dtype_max).astype(self.q_dtype)\n        scale_inv = 1.0 / self.scale",
        "clipped_scaled_x = (jnp.clip(scaled_x, -dtype_max, dtype_max) * 0.97).astype(self.q_dtype)\n        scale_inv = 1.0 / self.scale",
        "wrong|differ",
    ),
    # --- subtler ones, which an earlier version of the suite let through -------------------------------------------
    Fault(
        "input rounded to BF16 before it is scaled",
        NUMERICS,
        QUANTIZER,
        "scaled_x = x.data.astype(compute_dtype) * self.scale",
        "scaled_x = x.data.astype(jnp.bfloat16).astype(compute_dtype) * self.scale",
        "output",
    ),
    Fault(
        "wrong only where nothing is differentiated",
        NUMERICS,
        DENSE,
        "    return output\n\n\ndef _dense_fwd_rule(",
        "    return output if quantizer_set == noop_quantizer_set else output * 1.25\n\n\ndef _dense_fwd_rule(",
        "output of an evaluation",
    ),
    Fault(
        "zero scale for a tensor of zeros",
        NUMERICS,
        QUANTIZER,
        "scale = jnp.ones((1,))",
        "scale = jnp.zeros((1,))",
        "(infinite|zero): .*not finite",
    ),
    Fault(
        "infinite amax not guarded under current scaling",
        NUMERICS,
        QUANTIZER,
        "    if scale is None:\n        scale = jnp.ones((1,))\n",
        "    if scale is None:\n        return (fp8_max / amax) / (2**margin)\n",
        "(infinite|zero): ",
    ),
    Fault(
        "bias rounded to float8",
        NUMERICS,
        MODULE,
        "            bias_shape = (1,) * (y.ndim - bias.ndim) + bias.shape",
        "            bias = bias.astype(jnp.float8_e4m3fn).astype(bias.dtype)\n            bias_shape = (1,) * (y.ndim - bias.ndim) + bias.shape",
        "output with bias",
    ),
    Fault(
        "middle of the history not looked at",
        METADATA,
        QUANTIZER,
        "amax = jnp.max(amax_history, axis=-1",
        "amax = jnp.max(jnp.concatenate([amax_history[:1], amax_history[-16:]]), axis=-1",
        "scale",
    ),
    Fault(
        "margin limited to 2",
        METADATA,
        HELPER,
        'self.MARGIN = fp8_recipe.margin if "margin" in dir(fp8_recipe) else 0.0',
        "self.MARGIN = min(fp8_recipe.margin, 2)",
        "scale",
    ),
    Fault(
        "most recent broken for a history of one",
        METADATA,
        QUANTIZER,
        "amax = amax_history[0:1]",
        "amax = amax_history[0:1] * (amax_history.shape[0] > 1)",
        "scale",
    ),
    Fault(
        "collection renamed",
        METADATA,
        HELPER,
        'NVTE_FP8_COLLECTION_NAME = "fp8_metas"',
        'NVTE_FP8_COLLECTION_NAME = "fp8_metadata"',
        "collection='fp8_metadata'",
    ),
    Fault(
        "unsupported reduce_amax accepted",
        METADATA,
        HELPER,
        '        assert fp8_recipe.reduce_amax, "DelayedScaling reduce_amax should be enabled for TE/JAX."\n',
        "",
        "DID NOT RAISE",
    ),
    Fault(
        "update_collections adds nothing",
        METADATA,
        HELPER,
        "FrozenDict({**new, **frozen_original})",
        "FrozenDict({**{key: new[key] for key in new if key in original}, **frozen_original})",
        "updated collections=",
    ),
    Fault(
        "float32 computed in BF16",
        PARITY,
        GEMM,
        _BF16_DOT,
        _BF16_DOT.replace("lhs, rhs, dim", "lhs.astype(jnp.bfloat16), rhs.astype(jnp.bfloat16), dim"),
        "float32 output",
    ),
    Fault(
        "exception in a nested autocast ends the outer one",
        FALLBACK,
        HELPER,
        "            yield\n    finally:\n        _GLOBAL_RECIPE = old_global_recipe",
        "            yield\n    except BaseException:\n        old_global_recipe = None\n        raise\n    finally:\n        _GLOBAL_RECIPE = old_global_recipe",
        "around an exception",
    ),
    # --- properties ------------------------------------------------------------------------------------------------
    Fault(
        "small number added to the amax",
        PROPERTIES,
        QUANTIZER,
        "sf = (fp8_max / amax) / (2**margin)",
        "sf = (fp8_max / (amax + 1e-6)) / (2**margin)",
        "tensors times",
    ),
    Fault(
        "saturation at unlike ends",
        PROPERTIES,
        QUANTIZER,
        _CURRENT_CAST,
        _CURRENT_CAST.replace("-dtype_max", "-dtype_max * 0.9"),
        "tensors times",
    ),
    Fault(
        "scale from the history at the start of a step",
        PROPERTIES,
        QUANTIZER,
        "scaled_x = x.data.astype(compute_dtype) * self.scale",
        "self.scale = self._compute_scale(self.amax_history, self.scale, self.q_dtype, self.amax_compute_algo, self.margin)\n        scaled_x = x.data.astype(compute_dtype) * self.scale",
        "(tensors times|step with another history)",
    ),
    Fault(
        "codes kept in BF16",
        PROPERTIES,
        QUANTIZER,
        _CURRENT_CAST,
        _CURRENT_CAST.replace("self.q_dtype", "jnp.bfloat16"),
        "(standard deviations|relative error)",
    ),
    Fault(
        "amax of the last row",
        PROPERTIES,
        QUANTIZER,
        _DELAYED_AMAX,
        _DELAYED_AMAX.replace("x.data)", "x.data[-1])"),
        "rows shuffled",
    ),
    Fault(
        "amax of the first rows under current scaling",
        PROPERTIES,
        QUANTIZER,
        _CURRENT_AMAX,
        _CURRENT_AMAX.replace("x.data)", "x.data[: max(1, len(x.data) - 8)])"),
        "(standard deviations|rows shuffled)",
    ),
    Fault(
        "amax averaged over sequences",
        PROPERTIES,
        QUANTIZER,
        _DELAYED_AMAX,
        _DELAYED_AMAX.replace(
            "jnp.max(jnp.abs(x.data))",
            "(jnp.mean(jnp.max(jnp.abs(x.data), axis=(-2, -1))) if x.data.ndim > 2 else jnp.max(jnp.abs(x.data)))",
        ),
        "batch .4, 8.",
    ),
    Fault(
        "kernel gradient wrong for 4-D inputs alone",
        PROPERTIES,
        DENSE,
        _BACKWARD,
        _BACKWARD.replace("wgrad", "wgrad * (0.5 if len(x_shape) == 4 else 1)"),
        "batch .2, 2, 8.",
    ),
    Fault(
        "bias of a sequence not trained",
        PROPERTIES,
        MODULE,
        "y += jnp.reshape(bias, bias_shape)",
        "y += jnp.reshape(bias if y.ndim < 3 else __import__('jax').lax.stop_gradient(bias), bias_shape)",
        "batch .4, 8.*bias",
    ),
    Fault(
        "scale from the root mean square",
        PROPERTIES,
        QUANTIZER,
        _CURRENT_AMAX,
        _CURRENT_AMAX.replace("jnp.max(jnp.abs(x.data))", "(3 * jnp.sqrt(jnp.mean(x.data.astype(jnp.float32) ** 2)))"),
        "(standard deviations|relative error|rows of zeros)",
    ),
    Fault(
        "negative margin taken for a positive one",
        PROPERTIES,
        HELPER,
        'self.MARGIN = fp8_recipe.margin if "margin" in dir(fp8_recipe) else 0.0',
        'self.MARGIN = abs(fp8_recipe.margin) if "margin" in dir(fp8_recipe) else 0.0',
        "step 1: x scale",
    ),
    Fault(
        "scale undone twice in the kernel gradient",
        PROPERTIES,
        DENSE,
        "    dgrad = with_sharding_constraint_by_logical_axes(dgrad, input_axes)",
        "    wgrad = wgrad / (quantizer_set.x.scale if hasattr(quantizer_set.x, 'scale') else 1)\n    dgrad = with_sharding_constraint_by_logical_axes(dgrad, input_axes)",
        "(tensors times|step)",
    ),
    Fault(
        "arrays outside of jit quantized otherwise",
        PROPERTIES,
        QUANTIZER,
        "scaled_x = x.data.astype(compute_dtype) * self.scale",
        "self.scale = self.scale if isinstance(x.data, jax.core.Tracer) else self.scale * 0.7\n        scaled_x = x.data.astype(compute_dtype) * self.scale",
        "^.*step: ",
    ),
    Fault(
        "metadata only where the kernel is differentiated",
        PROPERTIES,
        DENSE,
        _DEFVJP,
        _LAZY_DEFVJP,
        "step: .*grads.*amax_history",
    ),
    Fault(
        "state kept in Python from trace to trace",
        PROPERTIES,
        DENSE,
        "    # Check supported input layout",
        "    globals()['_traced'] = globals().get('_traced', 0) + 1\n    x = x * (2.0 - _traced % 3)",
        "(standard deviations|step)",
    ),
    Fault(
        "amax shared over a mapped axis",
        PROPERTIES,
        QUANTIZER,
        _CURRENT_AMAX,
        _CURRENT_AMAX.replace(
            "        amax = x.amax or jnp.max(jnp.abs(x.data)).reshape((1,))",
            "        shared = jax.custom_batching.custom_vmap(lambda amax: amax)\n"
            "        shared.def_vmap(lambda size, batched, amax: (jnp.max(amax, axis=0), False))\n"
            "        amax = shared(jnp.max(jnp.abs(x.data)).reshape((1,)))",
        ),
        "mapped step",
    ),
    Fault(
        "layers of a model share their metadata",
        PROPERTIES,
        MODULE,
        _QUANTIZER_SET,
        _QUANTIZER_SET.replace(
            "        )\n\n        if",
            '        )\n        if not self.is_initializing():\n            quantizer_set = globals().setdefault("_first", {}).setdefault(id(self.scope.root), quantizer_set)\n\n        if',
        ),
        "(two layers|step|Tracer)",
    ),
    Fault(
        "metadata returned in BF16",
        PROPERTIES,
        DENSE,
        _BACKWARD,
        "quantizer_set = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16).astype(leaf.dtype), quantizer_set)\n    "
        + _BACKWARD,
        "(tensors times|scale)",
    ),
    # --- accuracy --------------------------------------------------------------------------------------------------
    Fault(
        "kernel gradient negated", ACCURACY, DENSE, _BACKWARD, _BACKWARD.replace("wgrad", "-wgrad"), "accuracy|diverged"
    ),
    Fault(
        "input gradient negated, FP8 or not",
        ACCURACY,
        DENSE,
        _BACKWARD,
        _BACKWARD.replace("dgrad", "-dgrad"),
        "accuracy|diverged",
    ),
    Fault(
        "no gradient for the kernels",
        ACCURACY,
        DENSE,
        _BACKWARD,
        _BACKWARD.replace("wgrad", "wgrad * 0"),
        "accuracy|diverged",
    ),
    Fault(
        "zero and first amaxes not guarded",
        ACCURACY,
        QUANTIZER,
        "    sf = jnp.where(amax > 0.0, sf, scale)\n    sf = jnp.where(jnp.isfinite(amax), sf, scale)\n    assert",
        "    sf = jnp.where(amax > 1.0, sf, jnp.inf)\n    assert",
        "accuracy|diverged",
    ),
    Fault(
        "scales a thousand times too large",
        ACCURACY,
        QUANTIZER,
        "sf = (fp8_max / amax) / (2**margin)",
        "sf = (fp8_max / amax) * 1024",
        "accuracy|diverged",
    ),
    Fault(
        "scales a millionth of what they should be",
        ACCURACY,
        QUANTIZER,
        "sf = (fp8_max / amax) / (2**margin)",
        "sf = (fp8_max / amax) / 2**20",
        "accuracy|diverged",
    ),
    # --- on a GPU --------------------------------------------------------------------------------------------------
    Fault(
        "products by JAX in place of TE's kernel",
        KERNELS,
        GEMM,
        "    if not GemmPrimitive.enabled():\n        if not",
        "    if True:\n        if not",
        r"compiled program: products=\[\], but",
        gpus=1,
    ),
    Fault(
        "quantized by JAX in place of TE's kernel",
        KERNELS,
        QUANTIZATION,
        "    if is_unsupported or not PrimitiveClass.enabled():",
        "    if True:",
        "TE quantize custom calls=0",
        gpus=1,
    ),
    Fault(
        "16-bit products of what was cast to FP8",
        KERNELS,
        GEMM,
        _BIND,
        _DEQUANTIZE.format(condition="True") + _BIND,
        "'bfloat16', 'bfloat16'",
        gpus=1,
    ),
    Fault(
        "16-bit products in the backward pass alone",
        KERNELS,
        GEMM,
        _BIND,
        _DEQUANTIZE.format(condition="jnp.float8_e5m2 in (lhs_data.dtype, rhs_data.dtype)") + _BIND,
        "'bfloat16', 'bfloat16'",
        gpus=1,
    ),
    Fault(
        "16-bit products behind a primitive that takes float8",
        KERNELS,
        GEMM,
        _IMPLEMENTATION,
        _DEQUANTIZE_IN_IMPLEMENTATION + _IMPLEMENTATION,
        r"compiled program: products=\['bfloat16 by bfloat16'\]",
        gpus=1,
    ),
    Fault(
        "16-bit products of small layers alone",
        KERNELS,
        GEMM,
        _BIND,
        _DEQUANTIZE.format(condition="min(rhs_data.shape) <= 32") + _BIND,
        "'bfloat16', 'bfloat16'",
        gpus=1,
    ),
    Fault(
        "16-bit products of large layers alone",
        KERNEL_NUMERICS,
        GEMM,
        _BIND,
        _DEQUANTIZE.format(condition="min(rhs_data.shape) >= 256") + _BIND,
        "products by TE's kernels",
        gpus=1,
    ),
    Fault(
        "scale of the left matrix not passed to the product",
        KERNEL_NUMERICS,
        GEMM,
        "        lhs_data,\n        lhs_scale_inv,\n        rhs_data,\n        rhs_scale_inv,\n        bias,\n        alpha,",
        "        lhs_data,\n        jnp.ones_like(lhs_scale_inv),\n        rhs_data,\n        rhs_scale_inv,\n        bias,\n        alpha,",
        "kernels: .* elements are wrong",
        gpus=1,
    ),
    Fault(
        "scale not passed to the quantization",
        KERNEL_NUMERICS,
        QUANTIZATION,
        "        scale = quantizer.scale\n",
        "        scale = jnp.ones_like(quantizer.scale)\n",
        "delayed, .*kernels: .* elements are wrong",
        gpus=1,
    ),
    Fault(
        "codes for the backward pass laid out anew, but not transposed",
        KERNEL_NUMERICS,
        QUANTIZATION,
        "colwise_casted_output = jnp.transpose(\n                rowwise_casted_output, (*range(flatten_axis, x.ndim), *range(flatten_axis))\n            )",
        "colwise_casted_output = rowwise_casted_output.reshape(\n                *rowwise_casted_output.shape[flatten_axis:], *rowwise_casted_output.shape[:flatten_axis]\n            )",
        "kernels: .* elements are wrong",
        gpus=1,
    ),
    Fault(
        "amaxes of the kernel left out",
        KERNEL_NUMERICS,
        QUANTIZATION,
        "    quantizer.update(updated_amax)\n    if",
        "    quantizer.update(jnp.zeros_like(updated_amax))\n    if",
        "metadata, kernels against",
        gpus=1,
    ),
    Fault(
        "wide products lose their last columns",
        KERNEL_NUMERICS,
        GEMM,
        "        collective_op=collective_op,\n    )\n    return output\n",
        "        collective_op=collective_op,\n    )\n    return output.at[..., 512:].set(0)\n",
        "elements are wrong",
        gpus=1,
    ),
    Fault(
        "every GPU keeps the amaxes of its own part of the batch",
        DATA_PARALLEL,
        QUANTIZATION,
        _REDUCED_AMAX,
        "local_amax",
        "amax_history",
        gpus=2,
    ),
    Fault(
        "every GPU takes the amaxes of the other one",
        DATA_PARALLEL,
        QUANTIZATION,
        _REDUCED_AMAX,
        "jax.lax.ppermute(local_amax, mesh.axis_names[0], [(0, 1), (1, 0)])",
        "amax_history",
        gpus=2,
    ),
]


def faulty(fault: Fault) -> str:
    """The installed TE's file with the fault in it.

    Raises:
        LookupError: the place to edit is not there, so that nothing would be tested.
    """
    source = subject.read(fault.file)
    if fault.old not in source:
        raise LookupError(f"{fault.what}: the text to replace is not in {fault.file}")
    return source.replace(fault.old, fault.new, 1)


def judge(fault: Fault) -> Verdict:
    """Run the fault's claim in this process, with the fault in place."""
    subject.replace(fault.file, faulty(fault))
    return claims.judge((fault.claim,), on_gpu=fault.gpus > 0)


def first_failures(faults: Sequence[Fault], jobs: int) -> Iterator[tuple[Fault, str, str]]:
    """Faults with the name and message of the first failing test of their claim, which are empty if all passed."""
    for ended in farm.run(judge, faults, jobs=jobs, timeout=900):
        verdict = ended.result
        yield ended.task, *((verdict.test, verdict.message) if verdict else ("(process)", ended.failure))


def first_failure(fault: Fault) -> tuple[str, str]:
    """Name and message of the first failing test of the fault's claim; empty if all passed."""
    ((_, test, message),) = first_failures([fault], 1)
    return test, message


def main() -> None:
    """Run the faults and print the table; exits 1 if one was not caught as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claim", help="only faults of this claim, such as fp8_numerics")
    parser.add_argument("--jobs", type=int, default=2, help="how many to run side by side (default: %(default)s)")
    parser.add_argument("--gpu", action="store_true", help="the faults that only GPUs show, of so many as there are")
    args = parser.parse_args()
    gpus = len(machine.find_driver().gpus) if args.gpu else 0
    chosen = [fault for fault in FAULTS if args.claim in (None, fault.claim) and bool(fault.gpus) == args.gpu]
    faults = [fault for fault in chosen if fault.gpus <= gpus]
    for fault in chosen:
        if fault not in faults:
            print(f"not tried, needs {fault.gpus} GPUs, found {gpus}: {fault.what}", file=sys.stderr)
    if not faults:
        sys.exit("no fault to try")
    rows = {}
    for fault, test, message in first_failures(faults, args.jobs):
        caught = bool(test) and re.search(fault.message, message) is not None
        rows[fault] = caught, test, message
        print(f"{len(rows)}/{len(faults)} {fault.claim}: {fault.what}: {test or 'missed'}", file=sys.stderr, flush=True)
    print("| claim | fault | caught by | message |\n|---|---|---|---|")
    for fault in faults:
        caught, test, message = rows[fault]
        shown = " ".join(message.split()).replace("|", "\\|")[:220]
        print(f"| {fault.claim} | {fault.what} | {test if caught else f'**missed** {test}'} | {shown} |")
    caught_all = sum(caught for caught, _, _ in rows.values())
    print(f"\n{caught_all} of {len(faults)} faults caught")
    sys.exit(caught_all < len(faults))


if __name__ == "__main__":
    main()
