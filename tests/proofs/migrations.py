"""Checkpoints of real releases, migrated: whether the new release trains on as the old one would have.

``PYTHONPATH=.:tests python -m proofs.migrations > docs/evidence/migrations.md`` trains under the old release of each
pair, saves, runs ``mnist-fp8 migrate``, restores under the new release, and compares further steps with the old
release's own. It exits 1 if a pair is further off than it may be.
"""

import argparse
import contextlib
import dataclasses
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from mnist_fp8.cli import main as command
from mnist_fp8.gate.releases.editions import parse_edition
from mnist_fp8.gate.releases.environments import Environment, prepare
from mnist_fp8.gate.reports.markup import generated_by

WORKER = Path(__file__).with_name("resumed_steps.py")
TIMEOUT_S = 600

INTRODUCTION = f"""\
# Migrated checkpoints

{generated_by("PYTHONPATH=.:tests python -m proofs.migrations > docs/evidence/migrations.md")}

Each row is a network that trained for 6 steps with DelayedScaling under the old release, was saved, migrated by
`mnist-fp8 migrate`, restored into what the new release initialises, and trained for 4 more steps. What these gave is
compared with what the old release's own 4 further steps gave: the outputs and the loss, and the gradients of all
parameters, each relative to the largest number. The network has dense layers with several features and with several
contracted axes, biases, and momentum in the optimizer; float32 input. Host runs. "0" is the same to the bit.

{{remarks}}

| old | new | saved | result | outputs, step by step | gradients, step by step |
|---|---|---|---|---|---|"""


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two releases.

    Attributes:
        old: saves.
        new: restores.
        worst: the largest difference that what the new environment computes otherwise explains; zero is to the bit.
        boxed: whether the old one's parameters are saved in their boxes.
        mlp: whether the network has a LayerNormMLP, and as what it runs: ``fused`` or ``separate``.
        store: what saves it.
        options: of the command.
        jax: version of JAX that the new one runs with; empty is the newest that it works with.
    """

    old: str
    new: str
    worst: float = 0.0
    boxed: bool = False
    mlp: str = ""
    store: str = "orbax"
    options: tuple[str, ...] = ()
    jax: str = ""

    @property
    def saved(self) -> str:
        """What was saved, in words."""
        words = ["Orbax" if self.store == "orbax" else "MessagePack"]
        if self.boxed:
            words.append("boxed")
        if self.mlp:
            words.append(f"LayerNormMLP ({self.mlp})")
        return ", ".join(words)

    @property
    def network(self) -> list[str]:
        """Options of the file that trains."""
        chosen = {"--boxed": self.boxed, "--mlp": self.mlp, "--store": self.store}
        words = [[name] if value is True else [name, str(value)] for name, value in chosen.items() if value]
        return [word for each in words for word in each]

    @property
    def migration(self) -> list[str]:
        """Options of ``mnist-fp8 migrate``."""
        mlp = [f"--{self.mlp}-mlp", "fp8_metas/*"] if self.mlp else []
        return ["--from", self.old, "--to", self.new, *mlp, *self.options]


_KERNEL = ("--kernel", "out/kernel=4x16x32")
PAIRS = (
    Pair("2.2.0", "2.3.0"),
    Pair("2.2.0", "2.3.0", mlp="fused"),
    Pair("2.2.0", "2.3.0", mlp="separate"),
    Pair("2.3.0", "2.4.0"),
    Pair("2.8.0", "2.20.2"),
    Pair("2.8.0", "2.20.2", boxed=True),
    Pair("2.2.0", "2.20.2", worst=2e-6),
    Pair("1.13.0", "2.2.0", jax="0.5.3", store="flax", options=_KERNEL),
    Pair("1.13.0", "2.20.2", worst=0.15, store="flax", options=_KERNEL),
)
REMARKS = """\
From 2.2 to 2.20.2 the products themselves are computed in another order (since 2.5). 1.13 runs with JAX 0.5.3, which
rounds float32 to float8 by way of float16: with that JAX, the new release goes on to the bit; with a newer one, four
codes in a thousand are others."""


@dataclasses.dataclass(frozen=True)
class Found:
    """How far further steps are from the old release's own, relative to the largest number.

    Attributes:
        pair: the releases.
        y: of the outputs, by step.
        gradients: the same, of all parameters.
    """

    pair: Pair
    y: Sequence[float]
    gradients: Sequence[float]

    @property
    def holds(self) -> bool:
        """Whether it is as near as it has to be."""
        return max(*self.y, *self.gradients) <= self.pair.worst


def tried(pair: Pair) -> Found:
    """Train, migrate and train on.

    Raises:
        RuntimeError: one of these failed.
    """
    with tempfile.TemporaryDirectory() as name:
        old, new = Path(name) / "old", Path(name) / "new"
        for folder in (old, new):
            folder.mkdir()
        _run(prepare(parse_edition(pair.old)), "train", str(old), *pair.network)
        with contextlib.redirect_stdout(sys.stderr):
            code = command.main(["migrate", f"{old}/checkpoint", "-o", f"{new}/checkpoint", *pair.migration])
        if code:
            raise RuntimeError(f"migrate from {pair.old} to {pair.new} ended with {code}")
        going_on = prepare(parse_edition(pair.new), jax=pair.jax or None)
        _run(going_on, "resume", str(new), f"{new}/checkpoint", *pair.network)
        return Found(pair, *_differences(*(dict(np.load(folder / "steps.npz")) for folder in (old, new))))


def _run(environment: Environment, *arguments: str) -> None:
    ended = environment.run(["python", str(WORKER), *arguments], cwd=WORKER.parent, timeout=TIMEOUT_S)
    if ended.code:
        raise RuntimeError(f"{environment.edition.label} {arguments[0]}: {ended.err[-2000:]}")


def _differences(
    old: Mapping[str, npt.NDArray[np.float32]], new: Mapping[str, npt.NDArray[np.float32]]
) -> tuple[list[float], list[float]]:
    """Largest differences of the outputs and of the gradients, by step."""
    if old.keys() != new.keys():
        raise RuntimeError("the releases have other parameters")
    y: dict[str, float] = {}
    gradients: dict[str, float] = {}
    for name, value in old.items():
        step, what = name.split("/")
        into = y if what in ("y", "loss") else gradients
        apart = float(np.max(np.abs(value - new[name])) / max(float(np.max(np.abs(value))), 1e-30))
        apart = apart if np.isfinite(apart) else np.inf  # NaN is smaller than nothing
        into[step] = max(into.get(step, 0.0), apart)
    return list(y.values()), list(gradients.values())


def page(found: Sequence[Found]) -> str:
    """The page, in Markdown."""
    return "\n".join([INTRODUCTION.format(remarks=REMARKS), *map(_row, found)]) + "\n"


def _row(found: Found) -> str:
    pair = found.pair
    result = "bit-identical" if not max(*found.y, *found.gradients) else f"below {pair.worst:g}"
    if not found.holds:
        result = "**too far off**"
    steps = (", ".join(f"{value:.1e}" if value else "0" for value in each) for each in (found.y, found.gradients))
    new = f"{pair.new} with JAX {pair.jax}" if pair.jax else pair.new
    return f"| {pair.old} | {new} | {pair.saved} | {result} | {' | '.join(steps)} |"


def main() -> None:
    """Try all pairs and print the page; exits 1 if one is further off than it may be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    found = [tried(pair) for pair in PAIRS]
    print(page(found), end="")
    sys.exit(not all(each.holds for each in found))


if __name__ == "__main__":
    main()
