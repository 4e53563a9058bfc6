"""The modes to compute in: precisions and recipes."""

import dataclasses
import enum

from mnist_fp8.core.errors import ConfigError

MAX_MARGIN = 30
"""Transformer Engine computes ``2**margin`` as a 32-bit integer."""

MAX_HISTORY = 1_000_000
"""Steps: more than any run looks back on, and 4 MB for each tensor of each layer."""


BLOCK_SCALED = ("MXFP8BlockScaling", "NVFP4BlockScaling")
"""The recipes with a scale for each block of a tensor, whose products no GPU before Blackwell has."""

TENSOR_SCALED = ("DelayedScaling", "Float8CurrentScaling")
"""Those with a scale for each tensor."""

RECIPES = (*TENSOR_SCALED, *BLOCK_SCALED)
"""The recipes that claims look at."""


class Precision(enum.Enum):
    """The three ways to compute the dense layers."""

    FLAX_BF16 = "flax-bf16"
    TE_BF16 = "te-bf16"
    TE_FP8 = "te-fp8"

    @property
    def uses_te(self) -> bool:
        """Whether the dense layers are Transformer Engine's."""
        return self is not Precision.FLAX_BF16


@dataclasses.dataclass(frozen=True)
class RecipeConfig:
    """A quantization recipe by Transformer Engine's own name; ``None`` leaves an option at the recipe's default.

    Attributes:
        name: class name in ``transformer_engine.common.recipe``, such as ``DelayedScaling``.
        margin: the scale is divided by ``2**margin``.
        fp8_format: ``E4M3`` or ``HYBRID`` (E4M3 forward, E5M2 for gradients).
        amax_history_len: steps that the amax history keeps.
        amax_compute_algo: ``max`` or ``most_recent``.
        disable_rht: whether inputs and gradients are left as they are, and not rotated by a Hadamard transform.
        disable_stochastic_rounding: whether gradients are rounded to the nearest.
        disable_2d_quantization: whether kernels have blocks of one row.
    """

    name: str = "DelayedScaling"
    margin: int | None = None
    fp8_format: str | None = None
    amax_history_len: int | None = None
    amax_compute_algo: str | None = None
    disable_rht: bool | None = None
    disable_stochastic_rounding: bool | None = None
    disable_2d_quantization: bool | None = None

    def __post_init__(self) -> None:
        """Refuse what no recipe can take."""
        check_between("amax history length", self.amax_history_len, 1, MAX_HISTORY)
        check_between("FP8 margin", self.margin, -MAX_MARGIN, MAX_MARGIN)
        if self.amax_compute_algo not in (None, "max", "most_recent"):
            raise ConfigError(f"amax algorithm is {self.amax_compute_algo!r}; expected 'max' or 'most_recent'")

    @property
    def is_random(self) -> bool:
        """Whether it draws random numbers: NVFP4 does, unless told not to."""
        return self.name == "NVFP4BlockScaling" and not self.disable_stochastic_rounding

    @property
    def options(self) -> dict[str, object]:
        """The options that were asked for, by the name of the recipe's field."""
        fields = {k: v for k, v in dataclasses.asdict(self).items() if k != "name"}
        return {name: value for name, value in fields.items() if value is not None}


def check_at_least(what: str, value: int | None, least: int) -> None:
    """Refuse a value under a bound, in one line; nothing where there is no value."""
    if value is not None and value < least:
        raise ConfigError(f"{what} is {value}; expected {least} or more")


def check_between(what: str, value: int | None, least: int, most: int) -> None:
    """Refuse a value outside of its bounds, in one line; nothing where there is no value."""
    if value is not None and not least <= value <= most:
        raise ConfigError(f"{what} is {value}; expected {least} to {most}")


class Mode(enum.Enum):
    """How the dense layers compute; the value is its name in tables and pictures."""

    FLAX_BF16 = "Flax BF16"
    TE_BF16 = "TE BF16"
    TE_FP8_DELAYED = "TE FP8 delayed"
    TE_FP8_CURRENT = "TE FP8 current"

    @property
    def precision(self) -> Precision:
        """The precision to train in."""
        if self is Mode.FLAX_BF16:
            return Precision.FLAX_BF16
        return Precision.TE_BF16 if self is Mode.TE_BF16 else Precision.TE_FP8

    @property
    def recipe(self) -> RecipeConfig | None:
        """The recipe to quantize with; ``None`` in BF16."""
        names = {Mode.TE_FP8_DELAYED: "DelayedScaling", Mode.TE_FP8_CURRENT: "Float8CurrentScaling"}
        return RecipeConfig(names[self]) if self in names else None

    @property
    def is_fp8(self) -> bool:
        """Whether the matrix products are of float8 operands."""
        return self.precision is Precision.TE_FP8
