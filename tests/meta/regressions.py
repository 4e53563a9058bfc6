"""Defects that happened in FP8 training with JAX, put into Transformer Engine again, and what catches them.

``PYTHONPATH=.:tests python tests/meta/regressions.py > docs/regressions.md`` runs every one of them on a host run and
writes the page that tells their stories; it exits 1 if a claim did not turn red with a message that matches. The edits
are written for TE 2.20.2.

Some of the defects were in TE's own Python and come back as they were; others were in a library around it (MaxText,
Flax, levanter) or in its CUDA calls, and TE is edited so that the same thing happens. Where the defect was in a *test*,
the edit is a fault that this test lets through: ``test_regressions.py`` writes its comparison out and shows that.
"""

import argparse
import dataclasses
import difflib
import re
import sys
import textwrap
from collections.abc import Iterator, Sequence

from faults import (
    ACCURACY,
    DENSE,
    FALLBACK,
    FLOAT8,
    GEMM,
    HELPER,
    METADATA,
    MODULE,
    NUMERICS,
    PARITY,
    QUANTIZER,
    Fault,
    faulty,
    first_failures,
)

from mutation import subject

SHARDING = "jax/sharding.py"
DATA_PARALLEL, DENSE_OPTIONS = "data_parallel", "dense_options"

REPOSITORIES = {
    "TransformerEngine": "NVIDIA/TransformerEngine",
    "MaxText": "AI-Hypercomputer/maxtext",
    "Flax": "google/flax",
    "marin": "marin-community/marin",
}
"""Where the references of the origins lead."""


@dataclasses.dataclass(frozen=True)
class Regression:
    """A defect that happened.

    Attributes:
        name: the defect in a few words.
        origin: issues, pull requests (``TransformerEngine#1901``) and commits (``MaxText 5ecfd7d82``) to read about it.
        story: what happened, for how long, and who noticed.
        fault: the defect as an edit of TE, the claim that has to catch it and what the message has to say.
    """

    name: str
    origin: str
    story: str
    fault: Fault


def _regression(
    name: str, origin: str, story: str, *, claim: str, file: str, old: str, new: str, message: str
) -> Regression:
    return Regression(name, origin, " ".join(story.split()), Fault(name, claim, file, old, new, message))


_BACKWARD = "    return dgrad, wgrad, dbias, quantizer_set\n"
_OUTPUT = "    output = with_sharding_constraint_by_logical_axes(output, output_axes)\n"
_BIAS = "            y += jnp.reshape(bias, bias_shape)\n"
_DELAYED_AMAX = """\
        scale_inv = 1.0 / self.scale
        amax = x.amax or jnp.max(jnp.abs(x.data)).reshape((1,))
"""
_SCALE = "sf = (fp8_max / amax) / (2**margin)"

REGRESSIONS = [
    # --- metadata --------------------------------------------------------------------------------------------------
    _regression(
        "metadata overwritten with their old values",
        "MaxText#5021",
        """After the backward pass MaxText's trainer for NNX modules merged the new FP8 metadata with the state from
        before the step, and the old values won: no scale and no history ever moved. The loss of a Gemma3-27B went
        from 13.028 to 13.002 in 20 steps, without an error. That lasted about four weeks, until late August 2026,
        when someone measured such a run; MaxText had no test that looked at metadata after a step.""",
        claim=METADATA,
        file=QUANTIZER,
        old="        self.update(amax)\n",
        new="        before = self.scale, self.amax_history\n"
        "        self.update(amax)\n"
        "        self.scale, self.amax_history = before\n",
        message=r"step 0: x amax history: .*\[0\., 0\., 0\., 0\.\], but should be \[0\., 0\., 0\., 1\.\]",
    ),
    _regression(
        "scale computed and the old one written back",
        "TransformerEngine#427, TransformerEngine#444",
        """When the scale's formula changed, the new value went into a variable that nothing read: histories moved,
        scales stayed. TE's main branch was like that from 22 September to 7 October 2023. The repair came along with a
        pull request about dropout, before the next release.""",
        claim=METADATA,
        file=QUANTIZER,
        old="        self.scale = self._compute_scale(\n",
        new="        sf = self._compute_scale(\n",
        message=r"step 0: x scale: .*=1, but should be 448",
    ),
    _regression(
        "metadata of several uses added up",
        "TransformerEngine#774, TransformerEngine#1627, Flax#3623",
        """JAX adds up the gradients of a variable that is used more than once, and FP8 metadata travel as
        gradients. Flax and TE 1.7 (both in 2024) gave them a number type whose addition is the maximum. The rewrite
        of TE 2.3 lost it, and no test had ever asked for it. Since then shared layers and accumulated micro-batches
        get sums; this suite pins that where it happens, and this fault adds up where nothing is shared.""",
        claim=METADATA,
        file=DENSE,
        old=_BACKWARD,
        new="    return dgrad, wgrad, dbias, jax.tree.map(lambda leaf: leaf + leaf, quantizer_set)\n",
        message=r"step 0: x amax history: .*as a whole it is 2 times",
    ),
    _regression(
        "amax of the last micro-batch only",
        "marin#7659, marin#8360",
        """levanter added up gradients over micro-batches and replaced the metadata, so that the recorded amax was the
        last micro-batch's; a remark in the code took that for harmless. The next scale was too large and activations
        were clipped: no error, no NaN, only an FP8 that looked worse than it is. It was reported in July 2026 from
        reading the code, and repaired in August.""",
        claim=METADATA,
        file=QUANTIZER,
        old=_DELAYED_AMAX,
        new=_DELAYED_AMAX.replace("x.data)", "x.data[x.data.shape[0] // 2 :])"),
        message=r"amax in corner \(0, 0\): x amax history: .*=1\.0, but should be 16\.0",
    ),
    _regression(
        "metadata clipped with the gradients",
        "MaxText#672",
        """MaxText clipped gradients by their global norm, and the FP8 metadata, which travel as gradients, with
        them: scales and histories were divided by a norm that they had helped to make. FP8 did not converge. Seven
        weeks after it had come in (April and May 2024) someone compared its loss with that of int8.""",
        claim=METADATA,
        file=DENSE,
        old=_BACKWARD,
        new="    norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(quantizer_set)))\n"
        "    quantizer_set = jax.tree.map(lambda leaf: leaf / jnp.maximum(norm, 1.0), quantizer_set)\n" + _BACKWARD,
        message=r"step 0: x amax history: .*as a whole it is [\d.]+e-06 times",
    ),
    _regression(
        "leaves of the metadata renamed",
        "TransformerEngine#842, TransformerEngine#1627",
        """TE 1.8 renamed the FP8 metadata and split them, TE 2.3 renamed them again. The first change was announced
        as one that breaks FP8 checkpoints; nothing converts them, so that a restored run begins with scale 1 and an
        empty history, or not at all.""",
        claim=METADATA,
        file=HELPER,
        old='f"{quantizer_name}{postfix}_scale"',
        new='f"scale_{quantizer_name}{postfix}"',
        message=r"x_scale is missing.*scale_x is unexpected",
    ),
    _regression(
        "amax history stored the other way round",
        "TransformerEngine#1627",
        """Up to 2.2 TE stored the newest amax at the beginning of the history; since 2.3 it stands at the end, and the
        first entry is a free slot. A history from an older checkpoint has the same shape, loads without complaint and
        loses its newest amax. It shows only if stored numbers of both releases are compared.""",
        claim=METADATA,
        file=QUANTIZER,
        old="        amax_history = self._update_amax_history(self.amax_history, new_amax)\n"
        "        self.scale = self._compute_scale(\n"
        "            amax_history, self.scale, self.q_dtype, self.amax_compute_algo, self.margin\n"
        "        )\n"
        "        self.amax_history = self._roll_and_reset_amax_history(amax_history)\n",
        new="        rolled = jnp.roll(self.amax_history, -1, -1)\n"
        "        self.amax_history = self._update_amax_history(rolled, new_amax)\n"
        "        self.scale = self._compute_scale(\n"
        "            self.amax_history, self.scale, self.q_dtype, self.amax_compute_algo, self.margin\n"
        "        )\n",
        message=r"step 0: x amax history: .*\[1\., 0\., 0\., 0\.\], but should be \[0\., 0\., 0\., 1\.\]",
    ),
    _regression(
        "scale rounded to a power of two",
        "TransformerEngine#427, Flax#3441",
        """Up to TE 0.12 the scale was a power of two, since 0.13 it is the exact quotient; Flax's copy of the formula
        followed a month later. For the same amax two neighbouring releases quantize differently, by a factor of up to
        two, and nothing says so.""",
        claim=METADATA,
        file=QUANTIZER,
        old=_SCALE,
        new="sf = 2.0 ** (jnp.floor(jnp.log2(fp8_max / amax)) - margin)",
        message=r"step 0: x scale: .*=256, but should be 448",
    ),
    # --- float8 in the program -------------------------------------------------------------------------------------
    _regression(
        "recipe shadowed by None",
        "MaxText 5ecfd7d82, MaxText fb380d6c9",
        """For a new keyword of TE 2.16, MaxText gave its override of a TE method the parameter ``fp8_recipe=None``,
        which shadowed the recipe of the enclosing function: every TE recipe silently computed in BF16. A linter's
        complaint about an unused variable led to the repair on the same day, 23 June 2026. All of MaxText's tests of
        FP8 with TE are skipped for want of a GPU.""",
        claim=FLOAT8,
        file=HELPER,
        old="    return _GLOBAL_RECIPE\n",
        new="    _GLOBAL_RECIPE = None\n    return _GLOBAL_RECIPE\n",
        message=r"first forward: products=\{\('bfloat16', 'bfloat16'\): 1\}, but should be 1 of \('float8_e4m3fn'",
    ),
    _regression(
        "product in 16 bits between the casts",
        "TransformerEngine#1901, TransformerEngine#1819",
        """TE 2.4 cast to FP8 and back and left it to XLA to recognise an FP8 product in that. XLA did not, the
        products ran in 16 bits, and the suite was green. It came out in June 2025 because a test failed with 2.5,
        which did multiply in FP8: only 16 bits had met its tolerance. cuBLAS's log showed what had run.""",
        claim=FLOAT8,
        file=GEMM,
        old="    out_fp8 = jax.lax.dot_general(\n"
        "        lhs.data, rhs.data, dim_nums, precision=precision, preferred_element_type=lhs.dq_dtype\n"
        "    )\n"
        "    scale_inv = lhs.scale_inv * rhs.scale_inv\n"
        "    out = (out_fp8 * scale_inv).astype(lhs.dq_dtype)\n",
        new="    out = jax.lax.dot_general(\n"
        "        lhs.dequantize().astype(lhs.dq_dtype),\n"
        "        rhs.dequantize().astype(lhs.dq_dtype),\n"
        "        dim_nums,\n"
        "        precision=precision,\n"
        "        preferred_element_type=lhs.dq_dtype,\n"
        "    )\n",
        message=r"first forward: products=\{\('bfloat16', 'bfloat16'\): 1\}.*first backward: products=\{\('bfloat16'",
    ),
    _regression(
        "forward product in 16 bits, backward in FP8",
        "marin#6660, Flax#3922",
        """The cast-and-cast-back layer that Flax had, and haliax had copied from it, multiplied in FP8 only where XLA
        recognised the pattern. On Hopper it did not for the forward product, which ran in BF16 without a word. Flax
        moved to direct quantization in 2024; haliax said why when it followed in June 2026.""",
        claim=FLOAT8,
        file=DENSE,
        old="        casted_x.get_tensor(usage=TensorUsage.LHS),\n"
        "        casted_kernel.get_tensor(usage=TensorUsage.RHS),\n"
        "        bias=bias,\n"
        "        contracting_dims=(x_contracting_dims, k_contracting_dims),\n",
        new="        casted_x.dequantize(),\n"
        "        casted_kernel.dequantize().astype(x.dtype),\n"
        "        bias=bias,\n"
        "        contracting_dims=(x_contracting_dims, k_contracting_dims),\n",
        message=r"first forward: products=\{\('bfloat16', 'bfloat16'\)(?!.*backward)",
    ),
    _regression(
        "gradients left in BF16",
        "TransformerEngine d0067d0da (examples/jax/mnist)",
        """The check beside TE's MNIST example prints the forward program and is content if it contains the name of
        one or the other float8 type. The gradients' type cannot occur there, and one cast anywhere is enough. With
        this fault no gradient is quantized, and that check passes.""",
        claim=FLOAT8,
        file=QUANTIZER,
        old="            grad_scaling_mode,\n            bwd_dtype,\n",
        new="            grad_scaling_mode,\n            jnp.bfloat16,\n",
        message=r"first backward: products=.*bfloat16",
    ),
    # --- fallback --------------------------------------------------------------------------------------------------
    _regression(
        "disabled autocast inside an enabled one ignored",
        "TransformerEngine#187",
        """TE for PyTorch noted in each module that FP8 was on and never that it was off again: inside a nested,
        disabled autocast, or after a change from FP8 to BF16, modules took the FP8 path. It was reported in April
        2023. TE for JAX keeps the mode in a global variable, where the same mistake is one missing line.""",
        claim=FALLBACK,
        file=HELPER,
        old="    _GLOBAL_RECIPE = None\n\n    try:",
        new="    try:",
        message=r"disabled inside enabled",
    ),
    # --- numerics --------------------------------------------------------------------------------------------------
    _regression(
        "codes rescaled in BF16 before the product",
        "TransformerEngine#1819, TransformerEngine#1838",
        """TE 2.3 and 2.4 divided the FP8 codes by their scales before the product, in the dtype of the tensor, so that
        in BF16 the scale and every element were rounded once more. The output's relative error was 0.0373 instead of
        0.0369: too little for any tolerance of a few percent. An emulation of both formulas gives these numbers to four
        digits.""",
        claim=NUMERICS,
        file=GEMM,
        old="        lhs.data, rhs.data, dim_nums, precision=precision, preferred_element_type=lhs.dq_dtype\n"
        "    )\n"
        "    scale_inv = lhs.scale_inv * rhs.scale_inv\n"
        "    out = (out_fp8 * scale_inv).astype(lhs.dq_dtype)\n",
        new="        lhs.data.astype(lhs.dq_dtype) * lhs.scale_inv.astype(lhs.dq_dtype),\n"
        "        rhs.data.astype(rhs.dq_dtype) * rhs.scale_inv.astype(rhs.dq_dtype),\n"
        "        dim_nums,\n"
        "        precision=precision,\n"
        "        preferred_element_type=lhs.dq_dtype,\n"
        "    )\n"
        "    out = out_fp8\n",
        message=r"HYBRID: output: \d+ of 512 elements are wrong",
    ),
    _regression(
        "dimensions of a transposed operand reversed",
        "TransformerEngine#1740, TransformerEngine#1774",
        """A clean-up of TE's FP8 product took the dimensions of an operand stored transposed as the original ones
        reversed, which holds for matrices only. It was in TE's main branch for a week of May 2025, with TE's tests
        passing, until MaxText's layers failed with shape errors under delayed scaling. Where two sizes agree there
        is no error, and the product is wrong.""",
        claim=NUMERICS,
        file=GEMM,
        old="    return tuple(transposed_dims.index(dim) for dim in dims_to_transpose)\n",
        new="    return tuple(ndim - 1 - dim for dim in dims_to_transpose)\n",
        message=r"contracting dimensions",
    ),
    _regression(
        "NaN on both sides of a comparison",
        "TransformerEngine#2415",
        """The forward pass of TE's test of a sharded MLP gives NaN, and the test passes: what it compares with is
        NaN as well, and NumPy's ``assert_allclose`` takes NaN for equal to NaN. A user found it by printing the
        tensor; with TE 2.14 (May 2026) it was still so. Here a tensor of zeros gives NaN under current scaling.""",
        claim=NUMERICS,
        file=QUANTIZER,
        old="    sf = jnp.where(amax > 0.0, sf, scale)\n",
        new="",
        message=r"zero: .*=nan.*not finite",
    ),
    _regression(
        "error that is NaN and not above its tolerance",
        "MaxText 9b4d96c09",
        """MaxText's test of quantized NNX models fails a gradient ``if diff > grad_tolerance``. A NaN in the
        gradient makes the mean difference NaN, which is not greater than anything. It came in June 2026 and stood
        in the newest source seen, two months later. Here one element of a kernel's gradient is NaN.""",
        claim=NUMERICS,
        file=DENSE,
        old=_BACKWARD,
        new=_BACKWARD.replace("wgrad", "wgrad.at[(0,) * wgrad.ndim].set(jnp.nan)"),
        message=r"kernel gradient: 1 of 768 elements are wrong; worst \[0, 0\]=nan",
    ),
    _regression(
        "NaN of the gradients turned into zeros",
        "MaxText#3721",
        """Part of a migration, and not mentioned in it, was a line in MaxText's training step that replaced NaN by
        zero in every gradient. With it an FP8 run of Llama2-7B, NaN from its second step, looked stable. Eight days
        later (April 2026) someone who read the code asked why it was there, found no reason and removed it.""",
        claim=NUMERICS,
        file=DENSE,
        old=_BACKWARD,
        new=_BACKWARD.replace("dgrad, wgrad", "jnp.nan_to_num(dgrad), jnp.nan_to_num(wgrad)"),
        message=r"kernel gradient: rows of NaN=\[\], but should include 7",
    ),
    # --- BF16 parity -----------------------------------------------------------------------------------------------
    _regression(
        "dtype of the parameters ignored",
        "TransformerEngine#1451, TransformerEngine#1472",
        """TE's Flax modules made their parameters in float32, whatever ``dtype`` said. A user noticed in early 2025
        from a table of the parameters: a model asked for in BF16 took twice its memory. No test had looked at a
        parameter's dtype; 2.1 repaired it.""",
        claim=DENSE_OPTIONS,
        file=MODULE,
        old="            kernel_shape,\n            self.dtype,\n",
        new="            kernel_shape,\n            jnp.float32,\n",
        message=r"\('kernel', .*'float32'\).* but should be for \[\('kernel', .*'bfloat16'\)",
    ),
    _regression(
        "axis names need a mesh resource without a mesh",
        "TransformerEngine#2307",
        """From 2.7 to 2.9 a layer with axis names asked for the global mesh resource even on a single device
        without a mesh, and outside any autocast. TE's own examples had just been changed to pass an empty one, so
        that they did not meet it.""",
        claim=PARITY,
        file=SHARDING,
        old="    mesh = _get_mesh()\n    if mesh is None",
        new="    global_mesh_resource()\n    mesh = _get_mesh()\n    if mesh is None",
        message=r"Global mesh resource is not set",
    ),
    _regression(
        "bias gradient that no test looked at",
        "TransformerEngine#1735, TransformerEngine#1808",
        """The tests of TE's fused quantization and bias gradient skipped a case if its axis was ``<= 0``. All axes are
        counted from the end, so that all cases were skipped, and a skip does not show. It was like that for 16 days of
        May 2025. Here the bias has no gradient.""",
        claim=PARITY,
        file=MODULE,
        old=_BIAS,
        new=_BIAS.replace("(bias,", "(lax.stop_gradient(bias),"),
        message=r"bias gradient: .*all that was found is zero",
    ),
    _regression(
        "rows of the output in another order",
        "TransformerEngine d0067d0da (tests/jax/test_layer.py)",
        """TE's tests of whole layers compare the mean of the output with the reference's mean: one number for millions.
        Any fault that keeps it passes, such as rows in another order.""",
        claim=PARITY,
        file=DENSE,
        old=_OUTPUT,
        new=_OUTPUT + "    output = output[::-1]\n",
        message=r"output: \d+ of \d+ elements are wrong",
    ),
    # --- data parallelism ------------------------------------------------------------------------------------------
    _regression(
        "sharded output of zeros",
        "TransformerEngine#1971, TransformerEngine#2230",
        """For one noisy case of a sharded MLP, TE's tests were given ``atol=0.08, rtol=15`` in July 2025. When the
        condition was reworded in October, a comma stayed at its end: a tuple of one element, which is always true.
        Since then every case is compared that way, and an output of zeros passes; in August 2026 it was still so.""",
        claim=DATA_PARALLEL,
        file=MODULE,
        old="        assert y.dtype == input_dtype\n        return y\n",
        new="        from ..sharding import is_mesh_available\n\n        return y * (not is_mesh_available())\n",
        message=r"over dp=2: \['y'\]: .*all that was found is zero",
    ),
    _regression(
        "amax of a device's own part of the batch",
        "TransformerEngine#1699, TransformerEngine#2183",
        """Current scaling took the amax over all devices at first; since 2.9 each device takes its own part's, so that
        results depend on the division: the kernel's gradient differs by 5.7% between one GPU and two. Under delayed
        scaling the amax has to be the global one, or the devices' stored scales drift apart. Here it is the first
        part's.""",
        claim=DATA_PARALLEL,
        file=QUANTIZER,
        old=_DELAYED_AMAX,
        new=_DELAYED_AMAX.replace("x.data)", "x.data[: x.data.shape[0] // get_num_devices_in_mesh()])"),
        message=r"delayed over dp=2: metadata on device 0: \['grad_amax_history'\]",
    ),
    _regression(
        "bias added once for each device",
        "TransformerEngine#2230",
        """Where a product is summed over devices, TE's GEMM call added the bias on each of them before the sum. It was
        found in October 2025 when TE got its first tests of a distributed dense layer, and is right since 2.9.""",
        claim=DATA_PARALLEL,
        file=MODULE,
        old=_BIAS,
        new="            from ..sharding import get_num_devices_in_mesh\n\n"
        "            y += jnp.reshape(bias, bias_shape) * get_num_devices_in_mesh()\n",
        message=r"bf16 over dp=2: \['y'\]: \d+ of \d+ elements differ",
    ),
    # --- accuracy --------------------------------------------------------------------------------------------------
    _regression(
        "FP8 network that guesses",
        "TransformerEngine#108, TransformerEngine#2933",
        """TE's MNIST example asked for a test accuracy above 0.098, a slip for 0.98: a network that guesses passes. It
        stood there for 37 months, from March 2023 to April 2026, in every release up to 2.15; only the bounds on the
        loss held. It was corrected in passing, in a pull request against flaky thresholds.""",
        claim=ACCURACY,
        file=DENSE,
        old=_BACKWARD,
        new="    sign = 1 if quantizer_set == noop_quantizer_set else -1\n"
        + _BACKWARD.replace("dgrad", "sign * dgrad"),
        message=r"te-fp8-delayed: test accuracy=0\.[01]\d+, but should be at least",
    ),
]


def edited(fault: Fault) -> tuple[str, str]:
    """The file of the installed TE that a fault edits, before and after.

    Raises:
        LookupError: TE is not installed, or the place to edit is not there.
    """
    return subject.read(fault.file), faulty(fault)


# --- the page ------------------------------------------------------------------------------------------------------

INTRODUCTION = """\
# Defects that happened

Each of these defects was in Transformer Engine (TE), in a library around it or in their tests. Each is put into TE
2.20.2 as a small edit, and the tests of the claim named with it have to turn red, with a message that tells what is
wrong. Where the defect was in a test, the edit is a fault that this test lets through; `tests/meta/test_regressions.py`
writes its comparison out and shows that it accepts what it should not.

Written by `PYTHONPATH=.:tests python tests/meta/regressions.py > docs/regressions.md`, on a host run.
"""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What the claim said to a regression.

    Attributes:
        regression: the regression.
        test: the first test that failed; empty if none did.
        message: its message.
    """

    regression: Regression
    test: str
    message: str

    @property
    def caught(self) -> bool:
        """Whether the claim turned red with the message that was asked for."""
        return bool(self.test) and re.search(self.regression.fault.message, self.message) is not None


def page(outcomes: Sequence[Outcome]) -> str:
    """The page that tells the regressions' stories, in Markdown."""
    caught = sum(outcome.caught for outcome in outcomes)
    parts = [INTRODUCTION, f"{caught} of {len(outcomes)} are caught.\n", _table(outcomes)]
    return "\n".join(parts + [_section(outcome) for outcome in outcomes])


def _table(outcomes: Sequence[Outcome]) -> str:
    rows = ["| defect | origin | claim |", "|---|---|---|"]
    for outcome in outcomes:
        regression = outcome.regression
        claim = regression.fault.claim + ("" if outcome.caught else " (**missed**)")
        rows.append(f"| {regression.name} | {regression.origin} | {claim} |")
    return "\n".join(rows) + "\n"


def _section(outcome: Outcome) -> str:
    regression = outcome.regression
    fault = regression.fault
    verdict = "Caught by" if outcome.caught else "**Missed** by"
    return f"""\
## {regression.name[0].upper()}{regression.name[1:]}

{linked(regression.origin)}

{textwrap.fill(regression.story, 120, break_on_hyphens=False)}

`{fault.file}`, in `{place(fault)}`:

```diff
{diff(fault)}
```

{verdict} `{outcome.test or "all tests"}` in `tests/claims/test_{fault.claim}.py`:

```text
{shortened(outcome.message)}
```
"""


def linked(origin: str) -> str:
    """The references of an origin, as Markdown links."""

    def link(found: re.Match[str]) -> str:
        project, number, commit = found.groups()
        target = f"issues/{number}" if number else f"commit/{commit}"
        return f"[{found[0]}](https://github.com/{REPOSITORIES[project]}/{target})"

    return re.sub(r"\b(\w+)(?:#(\d+)| ([0-9a-f]{9})\b)", link, origin)


def place(fault: Fault) -> str:
    """Name of the function or method that a fault edits."""
    source, _ = edited(fault)
    above = source[: source.index(fault.old)]
    indent, name = re.findall(r"^( *)def (\w+)", above, re.MULTILINE)[-1]
    classes = re.findall(r"^class (\w+)", above, re.MULTILINE)
    return f"{classes[-1]}.{name}" if indent else str(name)


def diff(fault: Fault) -> str:
    """The edit, as the lines that it replaces and those it puts there."""
    source, changed = edited(fault)
    first = source.count("\n", 0, source.index(fault.old))
    before, after = (text.splitlines()[first:] for text in (source, changed))
    last = fault.old.rstrip("\n").count("\n") + 1
    grown = len(after) - len(before)
    lines = difflib.ndiff(before[:last], after[: last + grown])
    return textwrap.dedent("\n".join(line[0] + line[2:] for line in lines if line[0] != "?"))


def shortened(message: str, most: int = 360) -> str:
    """The beginning of a message, without what pytest, Hypothesis and JAX add, wrapped."""
    line = re.split(r" (?:assert|Failing|-{5,}) ", " ".join(message.split()), maxsplit=1)[0]
    line = line.removeprefix("AssertionError: ")
    return textwrap.fill(textwrap.shorten(line, most, placeholder=" ..."), 120, break_on_hyphens=False)


# --- the command ---------------------------------------------------------------------------------------------------


def run(regressions: Sequence[Regression], jobs: int) -> Iterator[Outcome]:
    """Run the claims against the regressions, some side by side; outcomes come as they end."""
    of_fault = {regression.fault: regression for regression in regressions}
    for fault, test, message in first_failures(list(of_fault), jobs):
        yield Outcome(of_fault[fault], test, message)


def main() -> None:
    """Run the regressions and print the page; exits 1 if one was not caught as it should be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--claim", help="only regressions of this claim, such as fp8_numerics")
    parser.add_argument("--jobs", type=int, default=2, help="how many to run side by side (default: %(default)s)")
    args = parser.parse_args()
    regressions = [regression for regression in REGRESSIONS if args.claim in (None, regression.fault.claim)]
    outcomes = []
    for outcome in run(regressions, args.jobs):
        outcomes.append(outcome)
        sys.stderr.write(f"{'caught' if outcome.caught else 'MISSED'}: {outcome.regression.name}\n")
        if not outcome.caught:
            sys.stderr.write(f"{outcome.test} {outcome.message}\n")
    sys.stdout.write(page(sorted(outcomes, key=lambda outcome: regressions.index(outcome.regression))))
    sys.exit(not all(outcome.caught for outcome in outcomes))


if __name__ == "__main__":
    main()
