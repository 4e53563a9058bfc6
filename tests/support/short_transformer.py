"""The transformer's training runs, their thresholds, and the command that measured them.

``python -m support.short_transformer --seeds 10`` in the folder ``tests`` trains every mode with seeds 1 to 10 and
prints the table of ``docs/explanation/accuracy.md``. The figures are positive and spread by factors, so a threshold is
the mean of the logarithms plus five standard deviations, pooled over the modes.
"""

import argparse
import functools
import math
import statistics
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from mnist_fp8.programs import cache
from mnist_fp8.training import train, transformer
from mnist_fp8.training.transformer import CopyConfig, Learned
from support.short_run import DEVIATIONS, HOPPER_MODES, MODES, digest, once

EARLY_STEPS = 40
"""Then the layer begins to copy, and every rounding makes that a little earlier or later."""

COPY_LOSS = {"flax-bf16": 0.0213, "te-bf16": 0.0222, "te-fp8-delayed": 0.0228, "te-fp8-current": 0.0230}
"""Largest loss on copied tokens, in nats; guessing costs 3.43."""

DISTANCE = {"te-bf16": 0.00067, "te-fp8-delayed": 0.0058, "te-fp8-current": 0.0060}
"""Largest mean difference of the first losses from those of Flax's layers, in nats."""

GUESSED = 1 / 31 + DEVIATIONS * math.sqrt(30 / 31**2 / (transformer.TEST_SEQUENCES * transformer.COPIED))
"""Largest share of random tokens that may be predicted: 31 are equally likely. Five standard deviations of so many."""


def short_run(mode: str, seed: int = 1) -> CopyConfig:
    """200 steps of 16 sequences of 16 tokens, evaluated on 512 new ones."""
    return CopyConfig(*MODES[mode], seed=seed)


@functools.cache
def learned(config: CopyConfig) -> Learned:
    """Train as configured, `once`."""
    prepared = transformer.prepare(config)
    return once(lambda: digest(config, (transformer, train), prepared.programs()), Learned, prepared.run)


def distance(result: Learned, reference: Learned) -> float:
    """Mean absolute difference of the losses of the first steps; NaN if one is."""
    pairs = zip(result.losses[:EARLY_STEPS], reference.losses[:EARLY_STEPS], strict=True)
    return float(np.mean([abs(loss - expected) for loss, expected in pairs]))


def main() -> None:
    """Measure the spread over seeds and print it as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds, from 1 (default: %(default)s)")
    seeds = range(1, parser.parse_args().seeds + 1)
    cache.keep_programs()
    results = {mode: [learned(short_run(mode, seed)) for seed in seeds] for mode in HOPPER_MODES}
    guessed = [result.guessed for of_mode in results.values() for result in of_mode]
    print(f"guessed: {min(guessed):.4f} to {max(guessed):.4f}, at most {GUESSED:.4f}", file=sys.stderr)  # noqa: T201
    losses = {f"{mode}: loss on copied tokens": [one.copy_loss for one in of] for mode, of in results.items()}
    reference = results.pop("flax-bf16")
    apart = {
        f"{mode}: distance from flax-bf16": [distance(*pair) for pair in zip(of, reference, strict=True)]
        for mode, of in results.items()
    }
    print("| figure | median | factor | min | max | threshold |\n|---|---|---|---|---|---|")  # noqa: T201
    _print_rows(losses)
    _print_rows(apart)


def _print_rows(measured: Mapping[str, Sequence[float]]) -> None:
    logarithms = {name: [math.log(value) for value in values] for name, values in measured.items()}
    pooled = math.sqrt(statistics.mean(statistics.variance(values) for values in logarithms.values()))
    for name, values in measured.items():
        middle, spread = statistics.mean(logarithms[name]), statistics.stdev(logarithms[name])
        figures = [math.exp(middle), math.exp(spread), min(values), max(values), math.exp(middle + DEVIATIONS * pooled)]
        print(f"| {name} |", " | ".join(f"{figure:.3g}" for figure in figures), "|", flush=True)  # noqa: T201
    print(f"pooled factor {math.exp(pooled):.3f}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    main()
