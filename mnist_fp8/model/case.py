"""The contract: how a model is given to the claims."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """A model with something to compute, and a train step if there is one.

    What computes is called inside of TE's autocast with the recipe, unless the case enters it by itself.

    Attributes:
        apply: ``apply(variables, *inputs)`` gives the output: an array, or a tree of arrays.
        variables: collections by name, ``params`` among them, as plain arrays or in Flax's boxes.
        inputs: arrays.
        train_step: ``train_step(state, *batch)`` gives the next state, or a tuple that begins with it.
        state: what is trained: any tree of arrays. Where it holds FP8 metadata, they lie under TE's own names, or in
            TE's quantizers.
        batch: what a step takes besides; the inputs where nothing is said.
        in_bf16: patterns of modules, such as ``*/head``, that call TE's layers and are not to be quantized.
        layers: patterns of modules, each of which has to call a layer of TE: one that is replaced everywhere shows by
            nothing else.
        left_out: patterns of modules that ``apply`` calls and ``train_step`` does not.
        enters_autocast: whether the model enters autocast, or takes its recipe at its construction.

    Raises:
        ValueError: of ``train_step`` and ``state``, one is missing.
    """

    apply: Callable[..., Any]
    variables: Mapping[str, Any]
    inputs: tuple[Any, ...]
    train_step: Callable[..., Any] | None = None
    state: Any = None
    batch: tuple[Any, ...] | None = None
    in_bf16: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    enters_autocast: bool = False

    def __post_init__(self) -> None:
        """Refuse half a train step."""
        if (self.train_step is None) is not (self.state is None):
            missing = "state" if self.state is None else "train_step"
            raise ValueError(f"a train step needs both train_step and state; {missing} is missing")


Factory = Callable[[Any], Case]
"""Makes the case for a recipe of TE, or for ``None``: without quantization."""
