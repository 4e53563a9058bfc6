"""Claim: recipes and ``autocast`` take the documented options, and refuse what they do not support.

Promised by the docstrings of ``transformer_engine.common.recipe`` (fields, defaults, allowed values), of
``transformer_engine.jax.autocast`` and of the queries in ``transformer_engine.jax.quantize`` about what a device
supports. What an option *computes* is the claim of ``test_fp8_metadata_update.py`` and ``test_fp8_numerics.py``; here
it is found, shown, read from the environment, taken by position or refused.

What a failure means for an upgrade: a program that leaves an option out gets another one than before; a wrong option is
taken without a word; or a recipe is offered where it cannot run.
"""

import contextlib
import copy
import functools
import operator
import pickle
from collections import Counter
from collections.abc import Callable
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mnist_fp8 import te
from mnist_fp8.programs import jaxprs
from mnist_fp8.te.dense_step import dense_layer, on_device
from support.programs import equations
from support.subprocesses import ROOT, run_code

E4M3, E5M2, E2M1 = "float8_e4m3fn", "float8_e5m2", "float4_e2m1fn"
NAMES = (
    "DelayedScaling",
    "Float8CurrentScaling",
    "MXFP8BlockScaling",
    "Float8BlockScaling",
    "NVFP4BlockScaling",
    "CustomRecipe",
)


def make(name: str, **options: Any) -> Any:
    """TE's recipe object, with formats given by name."""
    recipes = te.engine().recipes
    formats = {option: recipes.Format[value] for option, value in options.items() if option.endswith("_format")}
    needed = {"qfactory": print} if name == "CustomRecipe" else {}
    return getattr(recipes, name)(**(needed | options | formats))


# --- formats and fields ---------------------------------------------------------------------------------------------


def test_formats_have_the_largest_numbers_of_their_dtypes() -> None:
    found = {name: tuple(member.value) for name, member in te.engine().recipes.Format.__members__.items()}
    # (forward, backward); HYBRID is E4M3 forward and E5M2 backward.
    expected = {"E2M1": (6, 6), "E4M3": (448, 448), "E5M2": (57344, 57344), "HYBRID": (448, 57344)}
    assert found == expected, f"largest numbers={found}, but should be {expected}"
    hybrid = te.engine().recipes.Format.HYBRID.value
    assert (hybrid.max_fwd, hybrid.max_bwd) == (448, 57344), f"HYBRID={hybrid}"


ATTENTION = {"fp8_dpa": False, "fp8_mha": False, "backward_override": None}


def _split(fprop: bool) -> dict[str, bool]:  # noqa: FBT001
    accumulators = {"fp8_gemm_fprop": fprop, "fp8_gemm_dgrad": True, "fp8_gemm_wgrad": True}
    return {f"{gemm}.use_split_accumulator": split for gemm, split in accumulators.items()}


def _quantized(prefix: str, option: str, inp: Any, weight: Any, grad: Any) -> dict[str, Any]:
    tensors = {"fwd_inp": inp, "fwd_weight": weight, "bwd_grad": grad}
    return {f"{prefix}_quant_{tensor}.{option}": value for tensor, value in tensors.items()}


DEFAULTS: dict[str, dict[str, Any]] = {
    "DelayedScaling": {
        "margin": 0,
        "fp8_format.name": "HYBRID",
        "amax_history_len": 1024,
        "amax_compute_algo": "max",
        "scaling_factor_compute_algo": None,
        "reduce_amax": True,
        **ATTENTION,
    },
    "Float8CurrentScaling": {
        "use_power_2_scales": False,
        "fp8_format.name": "HYBRID",
        **_quantized("fp8", "power_2_scale", *3 * [False]),
        **_quantized("fp8", "amax_epsilon", *3 * [0.0]),
        **_split(fprop=False),
        **ATTENTION,
    },
    "MXFP8BlockScaling": {"margin": 0, "fp8_format.name": "E4M3", **ATTENTION},
    "Float8BlockScaling": {
        "use_f32_scales": False,
        "fp8_format.name": "E4M3",
        **_quantized("fp8", "power_2_scale", *3 * [True]),
        **_quantized("fp8", "amax_epsilon", *3 * [0.0]),
        "x_block_scaling_dim": 1,
        "w_block_scaling_dim": 2,
        "grad_block_scaling_dim": 1,
        **_split(fprop=True),
        **ATTENTION,
    },
    "NVFP4BlockScaling": {
        "disable_rht": False,
        "disable_stochastic_rounding": False,
        "disable_2d_quantization": False,
        "row_scaled_activation": False,
        "fp4_format.name": "E2M1",
        "fp8_format.name": "E4M3",
        **_quantized("fp4", "random_hadamard_transform", inp=True, weight=False, grad=True),
        **_quantized("fp4", "stochastic_rounding", inp=False, weight=False, grad=True),
        **_quantized("fp4", "fp4_2d_quantization", inp=False, weight=True, grad=False),
        **ATTENTION,
    },
    "CustomRecipe": {"fp8_format.name": "HYBRID", **ATTENTION},
}


ADDED: dict[str, dict[str, Any]] = {
    # Since 2.17 to 2.19, and to be found in none before.
    "MXFP8BlockScaling": {"enable_2d_quantization": False},
    "NVFP4BlockScaling": {
        "nvfp4_4over6": "none",
        "nvfp4_4over6_e4m3_use_256": "all",
        "nvfp4_4over6_err_mode": "MAE",
    },
    "CustomRecipe": {"quantization_alignment": 128},
}


def assert_attributes(recipe: Any, expected: dict[str, Any], *, where: str) -> None:
    """A recipe's attributes, some of them inside others, have the given values."""
    __tracebackhide__ = True
    found = {path: operator.attrgetter(path)(recipe) for path in expected}
    wrong = {path: value for path, value in found.items() if value != expected[path]}
    assert not wrong, f"{where}: {wrong}, but should be { {path: expected[path] for path in wrong} }"


@pytest.mark.parametrize("name", DEFAULTS)
def test_options_of_a_recipe_have_their_documented_defaults(name: str) -> None:
    """With no ``NVTE_*`` variable set that changes them."""
    recipe = make(name)
    added = {option: default for option, default in ADDED.get(name, {}).items() if hasattr(recipe, option)}
    assert_attributes(recipe, DEFAULTS[name] | added, where=f"defaults of {name}")


def test_parameters_of_products_and_quantizers_have_their_documented_defaults() -> None:
    recipes = te.engine().recipes
    assert_attributes(recipes.MMParams(), {"use_split_accumulator": True}, where="MMParams")
    off = ("power_2_scale", "random_hadamard_transform", "stochastic_rounding", "fp4_2d_quantization")
    assert_attributes(recipes.QParams(), {"amax_epsilon": 0.0, **dict.fromkeys(off, False)}, where="QParams")


def test_delayed_scaling_takes_its_first_options_by_position() -> None:
    recipes = te.engine().recipes
    made = recipes.DelayedScaling(3, recipes.Format.E4M3, 16, "most_recent")
    expected = {"margin": 3, "fp8_format.name": "E4M3", "amax_history_len": 16, "amax_compute_algo": "most_recent"}
    assert_attributes(made, expected, where="DelayedScaling by position")


def test_options_of_nvfp4_decide_how_each_tensor_is_quantized() -> None:
    expected = {
        "disable_rht": _quantized("fp4", "random_hadamard_transform", *3 * [False]),
        "disable_stochastic_rounding": _quantized("fp4", "stochastic_rounding", *3 * [False]),
        "disable_2d_quantization": _quantized("fp4", "fp4_2d_quantization", *3 * [False]),
    }
    for option, values in expected.items():
        kept = {path: value for path, value in DEFAULTS["NVFP4BlockScaling"].items() if path != option}
        assert_attributes(make("NVFP4BlockScaling", **{option: True}), kept | values, where=option)


# --- which recipe is which, and what it says of itself ----------------------------------------------------------------

KINDS = {
    "delayed": {"DelayedScaling"},
    "float8_current_scaling": {"Float8CurrentScaling"},
    "float8_per_tensor_scaling": {"DelayedScaling", "Float8CurrentScaling"},
    "mxfp8": {"MXFP8BlockScaling"},
    "float8_block_scaling": {"Float8BlockScaling"},
    "nvfp4": {"NVFP4BlockScaling"},
    "custom": {"CustomRecipe"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_predicate_holds_for_its_recipes_only(kind: str) -> None:
    """It is asked of a recipe or of its class; of their base class, none holds."""
    recipes = te.engine().recipes
    for subjects in ({name: make(name) for name in NAMES}, vars(recipes)):
        found = {name for name in NAMES if getattr(subjects[name], kind)() is True}
        assert found == KINDS[kind], f"{kind}() holds for {sorted(found)}, but should for {sorted(KINDS[kind])}"
    assert getattr(recipes.Recipe, kind)() is False, f"{kind}() holds for the base class"


SHOWN: dict[str, tuple[dict[str, Any], list[str]]] = {
    "DelayedScaling": (
        {"margin": 2, "fp8_format": "E4M3", "amax_history_len": 16, "reduce_amax": False, "fp8_dpa": True},
        ["margin=2", "format=E4M3", "amax_history_len=16", "reduce_amax=False", "fp8_dpa=True", "fp8_mha=False"],
    ),
    "Float8CurrentScaling": (
        {"fp8_format": "E4M3", "fp8_mha": True, "backward_override": "dequantized"},
        ["format=E4M3", "fp8_dpa=False", "fp8_mha=True", "backward_override=dequantized"],
    ),
    "MXFP8BlockScaling": ({"margin": 2, "fp8_format": "HYBRID"}, ["margin=2", "format=HYBRID"]),
    "Float8BlockScaling": (
        {"x_block_scaling_dim": 2, "w_block_scaling_dim": 1, "fp8_format": "HYBRID"},
        ["format=HYBRID", "x_block_scaling_dim=2", "w_block_scaling_dim=1", "grad_block_scaling_dim=1"],
    ),
    "NVFP4BlockScaling": (
        {"row_scaled_activation": True},
        [
            *("fp4_format=E2M1", "fp8_format=E4M3", "row_scaled_activation=True"),
            *("fp4_quant_fwd_inp=", "fp4_quant_fwd_weight=", "fp4_quant_bwd_grad="),
        ],
    ),
    "CustomRecipe": ({"backward_override": "high_precision"}, ["qfactory=<built-in function print>", "high_precision"]),
}


@pytest.mark.parametrize("name", SHOWN)
def test_recipe_shows_its_name_and_options(name: str) -> None:
    """It is what logs and checkpoints say of a run."""
    options, expected = SHOWN[name]
    recipe = make(name, **options)
    shown = repr(recipe)
    missing = [text for text in (f"recipe_type={name}", *expected) if text not in shown]
    assert not missing, f"repr={shown!r}, but should contain {missing}"
    assert_fields_are_shown(recipe)


def assert_fields_are_shown(parameters: Any) -> None:
    """What is shown by name is shown with its value."""
    __tracebackhide__ = True
    shown = repr(parameters)
    values = {name: value for name, value in vars(parameters).items() if not name.startswith("_")}
    texts = {name: f"{name}={getattr(value, 'name', value)}" for name, value in values.items()}
    wrong = [text for name, text in texts.items() if f"{name}=" in shown and text not in shown]
    assert not wrong, f"repr={shown!r}, but should contain {wrong}"


def test_recipe_shows_options_that_were_set_later() -> None:
    recipe = make("DelayedScaling")
    before = repr(recipe)
    recipe.margin = 7
    assert "margin=0" in before
    assert "margin=7" in repr(recipe), f"repr={recipe!r}, but the margin is 7 by now"


def test_parameters_of_quantizers_show_their_options_and_cannot_be_changed() -> None:
    recipes = te.engine().recipes
    made = recipes.QParams(power_2_scale=True, amax_epsilon=0.5, fp4_2d_quantization=True), recipes.MMParams()
    for text in ("power_2_scale=True", "amax_epsilon=0.5", "stochastic_rounding=False", "fp4_2d_quantization=True"):
        assert text in repr(made[0]), f"repr={made[0]!r}, but should contain {text!r}"
    assert_fields_are_shown(made[0])
    assert repr(made[1]) == "MMParams(use_split_accumulator=True)"
    for parameters, option in zip(made, ("power_2_scale", "use_split_accumulator"), strict=True):
        with pytest.raises(AttributeError):
            setattr(parameters, option, False)


COPIES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda recipe: pickle.loads(pickle.dumps(recipe)),  # noqa: S301 - our own
}
TENSOR_SCALING: dict[str, dict[str, Any]] = {
    "DelayedScaling": {"margin": 2, "fp8_format": "E4M3", "amax_history_len": 16, "amax_compute_algo": "most_recent"},
    "Float8CurrentScaling": {"fp8_format": "E4M3"},
}
"""The recipes that a host run can compute with, and options that are not the defaults."""


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("name", TENSOR_SCALING)
def test_copy_of_a_recipe_equals_it_and_means_the_same(name: str, how: str) -> None:
    """As programs keep it in a configuration, hand it to a worker or compare it; it may be hashable or not."""
    recipe, other = make(name, **TENSOR_SCALING[name]), make(name)
    copied = COPIES[how](recipe)
    assert copied == recipe, f"{how}={copied!r}, but should equal {recipe!r}"
    assert repr(copied) == repr(recipe), f"{how} shows itself as {copied!r}, but should as {recipe!r}"
    assert copied != other, f"{how}={copied!r} equals {other!r}, whose options are others"
    assert other != make(next(iter(TENSOR_SCALING.keys() - {name}))), f"{name} equals another recipe"
    assert program_of(copied) == program_of(recipe), f"the program of a {how} is not that of the recipe"
    assert program_of(copied) != program_of(other), "Control: the options should change the program"
    copied.fp8_format = te.engine().recipes.Format.HYBRID
    assert recipe.fp8_format.name == "E4M3", f"format of the recipe={recipe.fp8_format}, but only the copy was changed"
    if type(recipe).__hash__ is not None:
        assert hash(COPIES[how](recipe)) == hash(recipe), "equal recipes have unlike hashes"


# --- a recipe of a layer itself -----------------------------------------------------------------------------------


def layer_of(recipe: object = None) -> Any:
    """A user's own layer, of TE's parts: it asks for quantizers, with a recipe or without, and multiplies with them."""
    module = te.engine().module

    class Own(module.flax.module.TransformerEngineBase):  # type: ignore[name-defined]
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], 16))
            quantizers = self.generate_quantizer_set(**({"fp8_recipe": recipe} if recipe else {}))
            y: jax.Array = module.dense.dense(
                x, kernel, contracting_dims=((x.ndim - 1,), (0,)), quantizer_set=quantizers
            )
            return y

    return Own()


AROUND: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    "none": contextlib.nullcontext,
    "disabled": lambda: te.autocast(enabled=False),
    "another recipe": lambda: te.autocast(enabled=True, recipe=make("DelayedScaling", amax_history_len=2)),
}


@pytest.mark.parametrize("around", AROUND)
@pytest.mark.parametrize("name", TENSOR_SCALING)
def test_recipe_given_to_a_layer_counts_whatever_autocast_is_around(name: str, around: str) -> None:
    """As under an autocast of that recipe: the same program, and metadata of its own."""
    recipe = make(name, **TENSOR_SCALING[name])
    with te.autocast(enabled=True, recipe=recipe):
        expected = str(passes_jaxpr(layer=layer_of()))
    with AROUND[around]():
        found = str(passes_jaxpr(layer=layer_of(recipe)))
        assert str(passes_jaxpr(layer=layer_of())) != expected, (
            "Control: without a recipe, that of the autocast should count"
        )
    assert found == expected, f"the program is not that of an autocast of {name}"


# --- values that are refused ------------------------------------------------------------------------------------------

NO_E5M2, NO_OVERRIDE = "Pure E5M2 training is not supported", "must be unset or one of: 'high_precision', 'dequantized'"
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("DelayedScaling", {"fp8_format": "E5M2"}, NO_E5M2),
    ("DelayedScaling", {"amax_compute_algo": "smallest"}, "Input should be 'max' or 'most_recent'"),
    ("DelayedScaling", {"scaling_factor_compute_algo": "max"}, "Input should be callable"),
    ("DelayedScaling", {"amax_history_len": 2.5}, "valid integer"),
    ("DelayedScaling", {"margin": "large"}, "valid integer"),
    ("DelayedScaling", {"reduce_amax": "perhaps"}, "valid boolean"),
    ("DelayedScaling", {"backward_override": "none"}, NO_OVERRIDE),
    ("DelayedScaling", {"backward_override": "dequantized"}, "only supports backward_override=None"),
    ("Float8CurrentScaling", {"fp8_format": "E5M2"}, NO_E5M2),
    ("Float8CurrentScaling", {"backward_override": "none"}, NO_OVERRIDE),
    ("MXFP8BlockScaling", {"fp8_format": "E5M2"}, NO_E5M2),
    ("MXFP8BlockScaling", {"backward_override": "none"}, NO_OVERRIDE),
    ("Float8BlockScaling", {"fp8_format": "E5M2"}, NO_E5M2),
    ("Float8BlockScaling", {"x_block_scaling_dim": 3}, "Only 1D or 2D blocks supported for x"),
    ("Float8BlockScaling", {"w_block_scaling_dim": 0}, "Only 1D or 2D blocks supported for w"),
    ("Float8BlockScaling", {"grad_block_scaling_dim": 3}, "Only 1D or 2D blocks supported for grad"),
    ("Float8BlockScaling", {"x_block_scaling_dim": 2}, "2D by 2D block gemm not supported"),
    ("Float8BlockScaling", {"grad_block_scaling_dim": 2}, "2D by 2D block gemm not supported"),
    (
        "Float8BlockScaling",
        {"x_block_scaling_dim": 2, "w_block_scaling_dim": 1, "grad_block_scaling_dim": 2},
        "2D by 2D block gemm not supported",
    ),
    ("Float8BlockScaling", {"fp8_dpa": True}, "FP8 attention is not supported"),
    ("Float8BlockScaling", {"fp8_mha": True}, "FP8 attention is not supported"),
    ("Float8BlockScaling", {"backward_override": "none"}, NO_OVERRIDE),
    ("NVFP4BlockScaling", {"fp4_format": "E4M3"}, "Only E2M1 is supported"),
    ("NVFP4BlockScaling", {"fp8_format": "HYBRID"}, "Only E4M3 is supported"),
    ("NVFP4BlockScaling", {"backward_override": "none"}, NO_OVERRIDE),
    ("CustomRecipe", {"backward_override": "none"}, NO_OVERRIDE),
]


@pytest.mark.parametrize(("name", "options", "message"), REFUSED, ids=[f"{name} {given}" for name, given, _ in REFUSED])
def test_wrong_value_of_an_option_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(name, **options)


def test_name_of_a_format_is_not_taken_for_one() -> None:
    with pytest.raises(ValueError, match="fp8_format"):
        te.engine().recipes.DelayedScaling(fp8_format="E4M3")


@pytest.mark.parametrize("gemm", ["fp8_gemm_fprop", "fp8_gemm_dgrad", "fp8_gemm_wgrad"])
def test_block_scaling_insists_on_split_accumulators(gemm: str) -> None:
    fast = te.engine().recipes.MMParams(use_split_accumulator=False)
    with pytest.raises(ValueError, match="Split accumulator required for " + gemm.removeprefix("fp8_gemm_")):
        make("Float8BlockScaling", **{gemm: fast})


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("DelayedScaling", {"fp8_format": "E4M3", "amax_compute_algo": "most_recent", "margin": -3}),
        ("Float8CurrentScaling", {"fp8_format": "E4M3", "backward_override": "high_precision"}),
        ("MXFP8BlockScaling", {"fp8_format": "HYBRID", "backward_override": "dequantized"}),
        ("Float8BlockScaling", {"x_block_scaling_dim": 2, "w_block_scaling_dim": 1}),
        ("Float8BlockScaling", {"w_block_scaling_dim": 1, "grad_block_scaling_dim": 2}),
        ("NVFP4BlockScaling", {"disable_rht": True, "backward_override": "dequantized"}),
    ],
)
def test_other_values_are_not_refused(name: str, options: dict[str, Any]) -> None:
    # Control.
    expected = {f"{key}.name" if key.endswith("_format") else key: value for key, value in options.items()}
    assert_attributes(make(name, **options), expected, where=name)


UNSUPPORTED_BY_THE_LAYER = {
    "amax_compute_algo": (max, "only supports max and most_recent"),
    "scaling_factor_compute_algo": (max, "scaling_factor_compute_algo isn't supported"),
    "reduce_amax": (False, "reduce_amax should be enabled"),
}


@pytest.mark.parametrize("option", UNSUPPORTED_BY_THE_LAYER)
def test_options_that_jax_does_not_support_are_refused_by_the_layer(option: str) -> None:
    """TE's autocast documents that they trigger an assertion."""
    value, message = UNSUPPORTED_BY_THE_LAYER[option]
    with pytest.raises(AssertionError, match=message):
        program_of(make("DelayedScaling", **{option: value}))


@pytest.mark.parametrize("length", [0, -1])
def test_history_without_a_place_is_refused_when_it_is_made(length: int) -> None:
    """The recipe takes it; the error is JAX's."""
    recipe = make("DelayedScaling", amax_history_len=length)
    with pytest.raises((IndexError, TypeError, ValueError)):
        program_of(recipe)


# --- options that say nothing to a dense layer ------------------------------------------------------------------------


def passes_jaxpr(rngs: dict[str, jax.Array] | None = None, layer: Any = None) -> Any:
    """The jaxpr of a layer's initialisation, forward and backward pass, in the mode around the call.

    Args:
        rngs: keys beside that of the parameters.
        layer: a Flax module; without it, a dense layer.
    """
    layer = layer or dense_layer(features=64)

    def passes(x: jax.Array) -> Any:
        variables = te.unbox(layer.init({"params": jax.random.key(0)} | (rngs or {}), x))
        apply = functools.partial(layer.apply, rngs=rngs)
        y, pull_back = jax.vjp(apply, variables, x)
        return variables, y, pull_back(y)

    return jax.make_jaxpr(passes)(on_device(np.ones((32, 64)), "bfloat16"))


def program_of(recipe: Any, rngs: dict[str, jax.Array] | None = None) -> str:
    """That program as text."""
    with te.autocast(enabled=True, recipe=recipe):
        return str(passes_jaxpr(rngs))


def _accumulators(*, split: bool) -> dict[str, Any]:
    params = te.engine().recipes.MMParams(use_split_accumulator=split)
    return dict.fromkeys(("fp8_gemm_fprop", "fp8_gemm_dgrad", "fp8_gemm_wgrad"), params)


IGNORED: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "attention, delayed": ("DelayedScaling", lambda: {"fp8_dpa": True, "fp8_mha": True}),
    "attention, current": ("Float8CurrentScaling", lambda: {"fp8_dpa": True, "fp8_mha": True}),
    # Stated and pinned: documented for PyTorch as well, read by no part of TE's JAX side.
    "powers of two": ("Float8CurrentScaling", lambda: {"use_power_2_scales": True}),
    "no split accumulator": ("Float8CurrentScaling", lambda: _accumulators(split=False)),
    "split accumulator": ("Float8CurrentScaling", lambda: _accumulators(split=True)),
}


@pytest.mark.parametrize("case", IGNORED)
def test_options_for_attention_and_pytorch_do_not_change_a_dense_layer(case: str) -> None:
    name, options = IGNORED[case]
    plain = program_of(make(name))
    assert program_of(make(name, **options())) == plain, f"{case}: the program is not that of the defaults"
    assert program_of(make(name, fp8_format="E4M3")) != plain, "Control: an option that a dense layer reads"


COUNTS: list[tuple[str, str, Any]] = [
    ("NVFP4BlockScaling", "disable_rht", True),
    ("NVFP4BlockScaling", "row_scaled_activation", True),
    ("NVFP4BlockScaling", "nvfp4_4over6", "all"),
    ("NVFP4BlockScaling", "nvfp4_4over6_e4m3_use_256", "none"),
    ("NVFP4BlockScaling", "nvfp4_4over6_err_mode", "MSE"),
    ("NVFP4BlockScaling", "backward_override", "high_precision"),
    ("MXFP8BlockScaling", "fp8_format", "HYBRID"),
    ("MXFP8BlockScaling", "margin", 1),
    ("MXFP8BlockScaling", "enable_2d_quantization", True),
    ("MXFP8BlockScaling", "backward_override", "high_precision"),
    ("Float8CurrentScaling", "fp8_format", "E4M3"),
    ("Float8CurrentScaling", "backward_override", "high_precision"),
]


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [pytest.param(*case, marks=pytest.mark.recipe(case[0]), id=", ".join(case[:2])) for case in COUNTS],
)
def test_documented_option_is_refused_or_changes_the_program(name: str, option: str, value: object) -> None:
    """One that is accepted and does nothing is worse than none."""
    others = {"nvfp4_4over6": "all"} if option.startswith("nvfp4_4over6_") else {}
    without = program_of(make(name, **others), {"sr_rng": jax.random.key(0)})
    assert _program_if_accepted(name, **others, **{option: value}) != without, (
        f"{option}={value} is accepted and ignored"
    )


def _program_if_accepted(name: str, **options: Any) -> str | None:
    try:
        return program_of(make(name, **options), {"sr_rng": jax.random.key(0)})
    except (AssertionError, ValueError, NotImplementedError):
        return None


# --- from the environment ---------------------------------------------------------------------------------------------

ENVIRONMENT = {
    "NVTE_FP8_CURRENT_SCALING_POWER_2_SCALES": "1",
    "NVTE_FP8_BLOCK_SCALING_FP32_SCALES": "1",
    "NVTE_NVFP4_DISABLE_RHT": "1",
    "NVTE_NVFP4_DISABLE_STOCHASTIC_ROUNDING": "1",
    "NVTE_NVFP4_DISABLE_2D_QUANTIZATION": "1",
    "NVTE_NVFP4_ROW_SCALED_ACTIVATION": "1",
    "NVTE_BACKWARD_OVERRIDE": "dequantized",
    "NVTE_FP8_GEMM_HIGH_PRECISION_ACCUMULATION": "1",
}
FROM_ENVIRONMENT: dict[str, dict[str, Any]] = {
    "Float8CurrentScaling": {
        "use_power_2_scales": True,
        **_quantized("fp8", "power_2_scale", *3 * [True]),
        "backward_override": "dequantized",
    },
    "MXFP8BlockScaling": {"backward_override": "dequantized"},
    "Float8BlockScaling": {
        "use_f32_scales": True,
        **_quantized("fp8", "power_2_scale", *3 * [False]),
        "backward_override": "dequantized",
    },
    "NVFP4BlockScaling": {
        "disable_rht": True,
        "disable_stochastic_rounding": True,
        "disable_2d_quantization": True,
        "row_scaled_activation": True,
        "backward_override": "dequantized",
    },
    "CustomRecipe": {"backward_override": "dequantized"},
}


def accumulation(name: str) -> set[str]:
    """Which accumulation the FP8 products of a dense layer ask for: ``fast`` or ``high``."""
    with te.autocast(enabled=True, recipe=make(name)):
        precisions = [str(e.params["precision"]) for e in equations(passes_jaxpr(), "dot_general")]
    return {"high" if "HIGHEST" in precision else "fast" for precision in precisions}


@pytest.mark.host
@pytest.mark.parametrize("name", ["DelayedScaling", "Float8CurrentScaling"])
def test_products_accumulate_fast_by_default(name: str) -> None:
    found = accumulation(name)
    assert found == {"fast"}, f"accumulation={sorted(found)}, but should be fast"


@pytest.mark.host
def test_environment_changes_the_defaults_of_recipes_and_accumulation() -> None:
    """Read when TE is imported, so that it takes a process of its own."""
    run_code(
        """
        import pytest
        from claims import test_recipe_options as claim
        for name, expected in claim.FROM_ENVIRONMENT.items():
            claim.assert_attributes(claim.make(name), expected, where=f"{name} from the environment")
        with pytest.raises(ValueError, match="only supports backward_override=None"):
            claim.make("DelayedScaling")
        found = claim.accumulation("Float8CurrentScaling")
        assert found == {"high"}, f"accumulation={found}, but the environment asks for high precision"
        """,
        first_on_path=ROOT / "tests",
        variables=ENVIRONMENT,
    )


# --- what TE makes of a recipe ----------------------------------------------------------------------------------------

CONFIGURATIONS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "DelayedScaling": (
        {"margin": 2, "amax_history_len": 7, "amax_compute_algo": "most_recent"},
        {"MARGIN": 2, "AMAX_HISTORY_LEN": 7, "AMAX_COMPUTE_ALGO.value": "most_recent", "dtypes": (E4M3, E5M2)},
    ),
    "Float8CurrentScaling": ({"fp8_format": "E4M3"}, {"AMAX_HISTORY_LEN": 0, "dtypes": (E4M3, E4M3)}),
    "MXFP8BlockScaling": ({"fp8_format": "HYBRID"}, {"AMAX_HISTORY_LEN": 0, "dtypes": (E4M3, E5M2)}),
    "NVFP4BlockScaling": ({}, {"AMAX_HISTORY_LEN": 0, "dtypes": (E2M1, E2M1)}),
}


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configuration_is_that_of_the_recipe(name: str) -> None:
    """What TE's layers read, each for itself, of the recipe in force."""
    options, expected = CONFIGURATIONS[name]
    found = te.quantization().get_quantize_config_with_recipe(make(name, **options))
    assert found.is_fp8_enabled() is True, f"{name} does not quantize"
    dtypes = tuple(str(jnp.dtype(dtype)) for dtype in (found.FWD_DTYPE, found.BWD_DTYPE))
    assert dtypes == expected["dtypes"], f"forward and backward dtype={dtypes}, but should be {expected['dtypes']}"
    plain = {path: value for path, value in expected.items() if path != "dtypes"}
    assert_attributes(found, {"COLLECTION_NAME": "fp8_metas"} | plain, where=f"configuration of {name}")


def test_configuration_without_a_recipe_does_not_quantize() -> None:
    found = te.quantization().get_quantize_config_with_recipe(None)
    assert found.is_fp8_enabled() is False, "no recipe, and yet it quantizes"
    supported, _ = found.is_supported()
    assert supported, "computing without quantization is not supported"


# --- autocast ---------------------------------------------------------------------------------------------------------


def recipe_in_force() -> Any:
    """The recipe that a dense layer would use now; ``None`` where it would not quantize."""
    return te.quantization().get_global_quantize_recipe()


_deprecated = pytest.mark.filterwarnings("ignore:fp8_autocast is deprecated:DeprecationWarning")
with_both_names = pytest.mark.parametrize(
    ("name", "recipe_argument"),
    [
        pytest.param("autocast", "recipe", marks=pytest.mark.te_name("autocast")),
        pytest.param("fp8_autocast", "fp8_recipe", marks=[pytest.mark.te_name("fp8_autocast"), _deprecated]),
    ],
)


@with_both_names
def test_autocast_is_off_unless_it_is_enabled(name: str, recipe_argument: str) -> None:
    for options in ({}, {"enabled": False}, {recipe_argument: make("DelayedScaling")}):
        with te.raw_autocast(name, **options):
            assert recipe_in_force() is None, f"{name}({options}) set the recipe {recipe_in_force()}"


@with_both_names
def test_autocast_takes_enabled_recipe_and_mesh_resource(name: str, recipe_argument: str) -> None:
    recipe, resource = make("Float8CurrentScaling"), te.mesh_resource(dp_resource="data")
    given = {"enabled": True, recipe_argument: recipe, "mesh_resource": resource}
    by_position = te.raw_autocast(name, *given.values())
    for context in (by_position, te.raw_autocast(name, **given)):
        with context:
            assert recipe_in_force() is recipe, f"recipe={recipe_in_force()}, but should be the one given"
            assert te.global_mesh_resource() is resource, "the mesh resource in force is not the one given"
        assert recipe_in_force() is None, f"{name} left the recipe {recipe_in_force()}"


@with_both_names
def test_autocast_has_delayed_scaling_and_no_mesh_resource_by_default(name: str, recipe_argument: str) -> None:
    for options in ({}, {recipe_argument: None, "mesh_resource": None}):
        with te.raw_autocast(name, enabled=True, **options):
            assert recipe_in_force() == make("DelayedScaling"), f"recipe={recipe_in_force()}, but should be the default"
            with pytest.raises(AssertionError, match="Global mesh resource is not set"):
                te.global_mesh_resource()


def test_inner_autocast_replaces_the_recipe_and_gives_it_back() -> None:
    outer, inner = make("DelayedScaling"), make("Float8CurrentScaling")
    with te.autocast(enabled=True, recipe=outer):
        for enabled, expected in ((True, inner), (False, None)):
            with te.autocast(enabled=enabled, recipe=inner):
                assert recipe_in_force() is expected, f"recipe={recipe_in_force()}, but should be {expected}"
            assert recipe_in_force() is outer, f"recipe={recipe_in_force()} after an inner autocast"


@pytest.mark.parametrize("name", ["Float8BlockScaling", "CustomRecipe"])
def test_recipe_that_jax_does_not_know_is_refused_by_its_type(name: str) -> None:
    with pytest.raises(ValueError, match=f"Unsupported recipe type: .*{name}"):
        te.autocast(enabled=True, recipe=make(name)).__enter__()
    with te.autocast(enabled=False, recipe=make(name)):  # Control: disabled, it is not looked at.
        assert recipe_in_force() is None


@pytest.mark.parametrize("name", ["Float8BlockScaling", "CustomRecipe"])
def test_recipe_of_pytorch_alone_is_refused_with_a_reason(name: str) -> None:
    """The first release for JAX that takes it is noticed here: then it needs claims."""
    support = te.support(make(name))
    assert not support.ok, f"{name} is taken by now, and no claim looks at what it computes"
    assert "recipe" in support.reason, f"reason={support.reason!r}, but should say that it is the recipe"


@pytest.mark.parametrize("wrong", ["DelayedScaling", 1, dict])
def test_something_that_is_no_recipe_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match="Unsupported recipe type"):
        te.autocast(enabled=True, recipe=wrong).__enter__()
    assert recipe_in_force() is None, "a recipe that was refused is in force"


# --- what a device supports -------------------------------------------------------------------------------------------

Device = Callable[..., None]


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    """Make TE believe in another device, or in several, and in other libraries."""
    helper = te.quantization().helper

    def pretend(*capabilities: int, cublas: int = 130000, cuda: int = 13000, jax_version: str = "0.10.2") -> None:
        pretended = {
            "get_device_compute_capability": lambda gpu: capabilities[gpu % len(capabilities)],
            "get_cublasLt_version": lambda: cublas,
            "get_cuda_version": lambda: cuda,
            "jax_version_meet_requirement": lambda least: _version(jax_version) >= _version(least),
            # What TE remembers of the real device, and gets back after the test.
            "_is_scaling_mode_supported": None,
            "_reason_for_no_scaling_mode": None,
        }
        for name, value in pretended.items():
            monkeypatch.setattr(helper, name, value)

    return pretend


def _version(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(".")))


FP8_MODES = ["DELAYED_TENSOR_SCALING", "CURRENT_TENSOR_SCALING"]
MX_MODES = ["MXFP8_1D_SCALING"]
FP4_MODES = ["NVFP4_1D_SCALING", "NVFP4_2D_SCALING"]

FP8_LEAST = {"capability": 89, "cublas": 120103, "cuda": 12010}
MX_LEAST = {"capability": 99, "cublas": 120800, "cuda": 12080, "jax_version": "0.5.3"}
FP4_LEAST = MX_LEAST | {"capability": 100}
SUPPORT: list[tuple[list[str], dict[str, Any], dict[str, Any], str]] = [
    # modes, what suffices, what is too old of it, TE's reason
    (FP8_MODES, FP8_LEAST, {}, ""),
    (FP8_MODES, FP8_LEAST, {"capability": 88}, "Device compute capability 8.9 or higher required for FP8 execution."),
    (
        *(FP8_MODES, FP8_LEAST, {"cublas": 120102}),
        "CublasLt version 12.1.3.x or higher required for FP8 execution on Ada.",
    ),
    (FP8_MODES, FP8_LEAST, {"cuda": 12009}, "Cuda version 12.1 or higher required for FP8 execution on Ada."),
    (MX_MODES, MX_LEAST, {}, ""),
    (MX_MODES, MX_LEAST, {"capability": 98}, "Device compute capability 9.9 or higher required for MXFP8 execution."),
    (MX_MODES, MX_LEAST, {"cublas": 120799}, "CublasLt version 12.8.0 or higher required for MXFP8 execution."),
    (MX_MODES, MX_LEAST, {"cuda": 12079}, "Cuda version 12.8 or higher required for MXFP8 execution."),
    (MX_MODES, MX_LEAST, {"jax_version": "0.5.2"}, "Jax version 0.5.3 or higher required for MXFP8 execution."),
    (FP4_MODES, FP4_LEAST, {}, ""),
    (
        *(FP4_MODES, FP4_LEAST, {"capability": 99}),
        "Device compute capability 10.0 or higher required for NVFP4 execution.",
    ),
    (FP4_MODES, FP4_LEAST, {"cublas": 120799}, "CublasLt version 12.8.0 or higher required for NVFP4 execution."),
    (FP4_MODES, FP4_LEAST, {"cuda": 12079}, "Cuda version 12.8 or higher required for NVFP4 execution."),
    (FP4_MODES, FP4_LEAST, {"jax_version": "0.5.2"}, "Jax version 0.5.3 or higher required for NVFP4 execution."),
    (["NO_SCALING"], {"capability": 70, "cublas": 0, "cuda": 0, "jax_version": "0.0.1"}, {}, ""),
]


@pytest.mark.parametrize(
    ("modes", "least", "old", "reason"), SUPPORT, ids=[f"{modes[0]} {old or 'enough'}" for modes, _, old, _ in SUPPORT]
)
def test_scaling_mode_is_supported_from_its_documented_versions_on(
    device: Device, modes: list[str], least: dict[str, Any], old: dict[str, Any], reason: str
) -> None:
    found = least | old
    device(found.pop("capability"), **found)
    query = te.quantization().is_scaling_mode_supported
    for name in modes:
        mode = te.quantization().ScalingMode[name]
        # Of all devices, the same from memory, of one device.
        for answer in (query(mode), query(mode), query(mode, gpu_id=0)):
            assert answer == (not reason, reason), f"{name}: supported={answer}, but should be {(not reason, reason)}"


PER_TENSOR = ["DelayedScaling", "Float8CurrentScaling"]
OFFERED = {
    80: ([], []),
    90: (PER_TENSOR, FP8_MODES),
    99: ([*PER_TENSOR, "MXFP8BlockScaling"], [*FP8_MODES, *MX_MODES]),
    100: ([*PER_TENSOR, "MXFP8BlockScaling", "NVFP4BlockScaling"], [*FP8_MODES, *MX_MODES, *FP4_MODES]),
}


@pytest.mark.parametrize("capability", OFFERED)
def test_all_queries_agree_about_a_device(device: Device, capability: int) -> None:
    """Lists of recipes and modes, the query by name, and what autocast accepts."""
    device(capability)
    recipes, modes = OFFERED[capability]
    quantization = te.quantization()
    found = [type(recipe).__name__ for recipe in quantization.get_supported_quantization_recipes()]
    assert found == recipes, f"offered recipes={found}, but should be {recipes}"
    found = sorted(mode.name for mode in quantization.get_supported_scaling_modes())
    assert found == sorted(modes), f"offered modes={found}, but should be {sorted(modes)}"
    for name in ("DelayedScaling", "Float8CurrentScaling", "MXFP8BlockScaling", "NVFP4BlockScaling"):
        ok, reason = quantization.is_quantize_recipe_supported(name)
        assert ok is (name in recipes), f"{name}: supported={ok}, reason={reason!r}"
        accepted = te.support(make(name))
        assert accepted.ok is ok, f"{name}: autocast accepts={accepted.ok}, but the query says {ok}"
        assert accepted.reason == (reason or ""), f"{name}: autocast says {accepted.reason!r}, the query {reason!r}"


@pytest.mark.devices(2)
def test_recipe_is_supported_if_it_is_on_every_device(device: Device) -> None:
    quantization = te.quantization()
    mode = quantization.ScalingMode.DELAYED_TENSOR_SCALING
    device(90, 80)
    assert not quantization.is_scaling_mode_supported(mode)[0], "the second device does not support it"
    assert not te.support(make("DelayedScaling")).ok, "autocast did not ask the second device"


@pytest.mark.filterwarnings("ignore:is_fp8_available is deprecated:DeprecationWarning")
def test_former_query_asks_for_delayed_scaling_on_all_devices_by_default(device: Device) -> None:
    quantization = te.quantization()
    nvfp4, no_fp8 = quantization.ScalingMode.NVFP4_1D_SCALING, "Device compute capability 8.9 or higher"
    for capability, available in ((89, True), (80, False)):
        device(capability)
        ok, reason = quantization.is_fp8_available()
        assert ok is available, f"capability {capability}: available={ok}, but should be {available}"
        assert reason.startswith("" if available else no_fp8), f"capability {capability}: reason={reason!r}"
    device(99)
    with pytest.warns(DeprecationWarning, match="is_scaling_mode_supported instead"):
        ok, _ = quantization.is_fp8_available(nvfp4)
    assert not ok, "NVFP4 is available on capability 9.9"


@pytest.mark.filterwarnings("ignore:is_fp8_available is deprecated:DeprecationWarning")
def test_queries_ask_one_device_where_one_is_named(device: Device) -> None:
    quantization = te.quantization()
    mode = quantization.ScalingMode.DELAYED_TENSOR_SCALING
    device(90, 80)
    for query in (quantization.is_scaling_mode_supported, quantization.is_fp8_available):
        found = [query(mode, gpu_id=gpu)[0] for gpu in (0, 1)]
        assert found == [True, False], f"FP8 is available on {found}, but should be on the first of two devices"


def test_no_scaling_is_what_is_asked_for_by_default(device: Device) -> None:
    device(70, cublas=0, cuda=0)
    found = te.quantization().is_scaling_mode_supported()
    assert found == (True, ""), f"supported={found}, but every device does without scaling"


def test_recipes_are_found_by_name() -> None:
    find = te.quantization().get_quantization_recipe
    for name in ("DelayedScaling", "Float8CurrentScaling", "MXFP8BlockScaling", "NVFP4BlockScaling"):
        assert find(name) == make(name), f"recipe by the name {name} is {find(name)}"
    for query in (find, te.quantization().is_quantize_recipe_supported):
        with pytest.raises(ValueError, match=r"Invalid quantization recipe 'Delayed'.*DelayedScaling"):
            query("Delayed")


# --- recipes of later devices, as far as their program goes -----------------------------------------------------------


def operands(jaxpr: Any) -> Counter[tuple[bool, str, str]]:
    """Operand dtypes of the products, and whether backward. Left and right are not told apart."""
    return Counter((g.backward, min(g.lhs, g.rhs), max(g.lhs, g.rhs)) for g in jaxprs.gemms(jaxpr))


def assert_operands(recipe: Any, forward: str, grad: str, rngs: dict[str, jax.Array] | None = None) -> None:
    """The products of initialisation, forward and backward pass take the given dtypes, and there are no metadata."""
    __tracebackhide__ = True
    layer, x = dense_layer(features=64), on_device(np.ones((32, 64)), "bfloat16")
    with te.autocast(enabled=True, recipe=recipe):
        variables = jax.eval_shape(layer.init, {"params": jax.random.key(0)} | (rngs or {}), x)
        found = operands(passes_jaxpr(rngs))
    assert set(variables) == {"params"}, f"collections={sorted(variables)}, but should be params only"
    expected = Counter({(False, forward, forward): 2, (True, min(forward, grad), max(forward, grad)): 2})
    quantized = Counter({key: count for key, count in found.items() if jaxprs.is_quantized(key[1])})
    assert quantized == expected, f"products={dict(found)}, but should be {dict(expected)}"


@pytest.mark.host
@pytest.mark.parametrize(
    ("options", "grad"), [({}, E4M3), ({"fp8_format": "E4M3"}, E4M3), ({"fp8_format": "HYBRID"}, E5M2)]
)
def test_mxfp8_multiplies_in_its_format(device: Device, options: dict[str, str], grad: str) -> None:
    device(100)
    assert_operands(make("MXFP8BlockScaling", **options), E4M3, grad)


@pytest.mark.host
def test_nvfp4_multiplies_in_four_bits_and_draws_random_numbers_unless_told_not_to(device: Device) -> None:
    """For stochastic rounding of gradients, from the random stream ``sr_rng``."""
    device(100)
    assert_operands(make("NVFP4BlockScaling"), E2M1, E2M1, {"sr_rng": jax.random.key(1)})
    with pytest.raises(flax.errors.InvalidRngError, match="sr_rng"):
        program_of(make("NVFP4BlockScaling"))
    assert_operands(make("NVFP4BlockScaling", disable_stochastic_rounding=True), E2M1, E2M1)


@pytest.mark.host
def test_nvfp4_rotates_its_operands_unless_told_not_to(device: Device) -> None:
    """A Hadamard transform is one more product, in BF16: of the input, in initialisation too, and of the gradient."""
    device(100)
    rotations = {}
    for disabled in (False, True):
        with te.autocast(enabled=True, recipe=_nvfp4(disable_rht=disabled)):
            found = operands(passes_jaxpr())
        rotations[disabled] = {backward: count for (backward, lhs, _), count in found.items() if lhs == "bfloat16"}
    assert rotations == {False: {False: 2, True: 1}, True: {}}, f"rotations by disable_rht and backward: {rotations}"


@pytest.mark.host
def test_nvfp4_scales_kernels_in_two_dimensions_unless_told_not_to(device: Device) -> None:
    device(100)
    found = [program_of(_nvfp4(disable_rht=True, disable_2d_quantization=disabled)) for disabled in (False, True)]
    assert found[0] != found[1], "disable_2d_quantization changes nothing"


def _nvfp4(**options: bool) -> Any:
    return make("NVFP4BlockScaling", disable_stochastic_rounding=True, **options)
