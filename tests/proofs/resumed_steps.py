"""Trains a small network in the environment of a release, and saves or restores it on the way.

``proofs.migrations`` runs this file; it does not import it.

- ``train FOLDER``: train, save to ``FOLDER/checkpoint``, train on, and write what the further steps gave.
- ``resume FOLDER CHECKPOINT``: restore into what this release initialises, and write the same.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import serialization

from mnist_fp8 import te
from mnist_fp8.core.modes import RecipeConfig
from mnist_fp8.te import Autocast

BEFORE, AFTER = 6, 4
"""Steps up to the checkpoint, and from it on."""
LENGTH = 8
"""Of the amax histories: shorter than the run, so that they have gone around."""
OPTIMIZER = optax.sgd(0.05, momentum=0.9)


class Network(nn.Module):
    """Dense layers with several features and with several contracted axes, a plain one, and perhaps an MLP.

    Attributes:
        mlp: whether a LayerNormMLP comes last, and its two products are one function: ``fused``, ``separate`` or none.
    """

    mlp: str | None

    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        x = te.dense_general(features=(4, 16), name="split", use_bias=True)(x)
        x = te.dense_general(features=32, axis=(-2, -1), name="out", use_bias=True)(nn.gelu(x))
        x = te.dense_general(features=32, name="plain", use_bias=True)(x)
        if self.mlp:
            layer = te.engine().module.flax.LayerNormMLP
            options = {"intermediate_dropout_rate": 0.0, "return_layernorm_output": self.mlp == "separate"}
            x, _ = layer(intermediate_dim=64, activations=("gelu",), name="mlp", **options)(x)
        return x


@dataclasses.dataclass(frozen=True)
class Training:
    """A network, and how its state is made and moves on.

    Attributes:
        network: it.
        boxed: whether its parameters stay in TE's boxes.
    """

    network: Network
    boxed: bool
    mode: Autocast = dataclasses.field(
        default_factory=lambda: Autocast(RecipeConfig("DelayedScaling", amax_history_len=LENGTH))
    )

    def initial(self) -> dict[str, Any]:
        """The state before the first step, collections of axes included where a release has them."""
        with self.mode():
            variables = dict(self.network.init(jax.random.key(0), self.batch(0)))
        if not self.boxed:
            axes = {name: tree for name, tree in variables.items() if name.endswith("_axes")}
            variables = {**te.unbox(variables), **axes}
        return {"step": jnp.int32(0), **variables, "opt_state": OPTIMIZER.init(variables["params"])}

    def batch(self, step: int) -> jax.Array:
        """Input of a step; its size changes from one to the next, so that amaxes do."""
        numbers = np.random.default_rng(step).normal(size=(32, 64)) * (1 + step % 3)
        return jnp.asarray(numbers.astype(np.float32))

    def step(self, state: Mapping[str, Any], step: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """One step; returns the next state, and what the step gave."""
        trained = {name: state[name] for name in ("params", te.metadata_collection())}
        (loss, y), grads = self._gradients(trained, self.batch(step))
        updates, opt_state = OPTIMIZER.update(grads["params"], state["opt_state"], trained["params"])
        new = {
            **state,
            "step": state["step"] + 1,
            "params": optax.apply_updates(trained["params"], updates),
            te.metadata_collection(): te.update_fp8_metas(trained, grads, step),
            "opt_state": opt_state,
        }
        return new, {"y": y, "loss": loss, "gradients": grads["params"]}

    @functools.cached_property
    def _gradients(self) -> Any:
        def loss(variables: Any, x: jax.Array) -> Any:
            with self.mode():
                y = self.network.apply(variables, x)
            return jnp.mean(jnp.square(y.astype(jnp.float32) - 1)), y

        return jax.jit(jax.value_and_grad(loss, has_aux=True, allow_int=True))


def _save_by_orbax(place: Path, state: Any) -> None:
    from orbax.checkpoint import StandardCheckpointer  # noqa: PLC0415 - the Orbax of old releases cannot be used

    with StandardCheckpointer() as checkpointer:
        checkpointer.save(place, state)


def _restored_by_orbax(place: Path, like: Any) -> Any:
    from orbax.checkpoint import StandardCheckpointer  # noqa: PLC0415

    with StandardCheckpointer() as checkpointer:
        return checkpointer.restore(place, like)


def _save_by_flax(place: Path, state: Any) -> None:
    place.write_bytes(serialization.to_bytes(state))


def _restored_by_flax(place: Path, like: Any) -> Any:
    return serialization.from_bytes(like, place.read_bytes())


STORES: Mapping[str, tuple[Callable[[Path, Any], None], Callable[[Path, Any], Any]]] = {
    "orbax": (_save_by_orbax, _restored_by_orbax),
    "flax": (_save_by_flax, _restored_by_flax),
}
"""What saves a state, and restores it into another one."""


def written(folder: Path, gave: list[dict[str, Any]]) -> None:
    """Write what steps gave, an array for each leaf."""
    arrays: dict[str, Any] = {}
    for number, step in enumerate(gave):
        named = {"y": step["y"], "loss": step["loss"]}
        named |= {str(each): leaf for each, leaf in enumerate(jax.tree.leaves(step["gradients"]))}
        arrays |= {f"{number}/{name}": np.asarray(value).astype(np.float32).ravel() for name, value in named.items()}
    np.savez(folder / "steps.npz", **arrays)


def main() -> None:
    """Train or resume."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "resume"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("checkpoint", type=Path, nargs="?")
    parser.add_argument("--boxed", action="store_true")
    parser.add_argument("--mlp", choices=["fused", "separate"])
    parser.add_argument("--store", choices=["orbax", "flax"], default="orbax")
    args = parser.parse_args()
    training = Training(Network(args.mlp), args.boxed)
    state = training.initial()
    save, restored = STORES[args.store]
    if args.what == "resume":
        state = restored(args.checkpoint.resolve(), state)
    else:
        for step in range(BEFORE):
            state, _ = training.step(state, step)
        save(args.folder.resolve() / "checkpoint", state)
    gave = []
    for step in range(BEFORE, BEFORE + AFTER):
        state, result = training.step(state, step)
        gave.append(result)
    written(args.folder, gave)


if __name__ == "__main__":
    main()
