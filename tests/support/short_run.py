"""The short training run of the accuracy claim, its thresholds, and the command that measured them.

``python tests/support/short_run.py --seeds 12`` trains every mode with seeds 1 to 12 and prints the table of
``docs/accuracy.md``, thresholds included. A threshold is the mean minus five standard deviations: if accuracies
are roughly normal, a healthy mode falls below it about once in three million runs; with the standard deviation
estimated from 12 seeds (Student's t, 11 degrees of freedom), about once in five thousand.
"""

import argparse
import statistics

from mnist_fp8.config import Precision, RecipeConfig, TrainConfig
from mnist_fp8.train import train_and_evaluate

MODES: dict[str, tuple[Precision, RecipeConfig]] = {
    "flax-bf16": (Precision.FLAX_BF16, RecipeConfig()),
    "te-bf16": (Precision.TE_BF16, RecipeConfig()),
    "te-fp8-delayed": (Precision.TE_FP8, RecipeConfig("DelayedScaling")),
    "te-fp8-current": (Precision.TE_FP8, RecipeConfig("Float8CurrentScaling")),
}

DEVIATIONS = 5


def short_run(mode: str, seed: int = 1) -> TrainConfig:
    """400 steps of 16 images, evaluated on 2,000 test images."""
    precision, recipe = MODES[mode]
    return TrainConfig(
        precision=precision,
        recipe=recipe,
        seed=seed,
        batch_size=16,
        test_batch_size=400,
        epochs=1,
        train_size=6400,
        test_size=2000,
    )


def accuracy(mode: str, seed: int = 1) -> float:
    """Test accuracy of a short run."""
    return train_and_evaluate(short_run(mode, seed)).epochs[-1].test_accuracy


def main() -> None:
    """Measure the spread over seeds and print it as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=12, help="number of seeds, from 1 (default: %(default)s)")
    seeds = range(1, parser.parse_args().seeds + 1)
    measured = {mode: [accuracy(mode, seed) for seed in seeds] for mode in MODES}
    print("| mode | mean | std | min | max | threshold |\n|---|---|---|---|---|---|")  # noqa: T201
    for mode, values in measured.items():
        _print_row(mode, values, statistics.mean(values) - DEVIATIONS * statistics.stdev(values))
    for mode in [mode for mode in MODES if "fp8" in mode]:
        lost = [bf16 - fp8 for bf16, fp8 in zip(measured["te-bf16"], measured[mode], strict=True)]
        _print_row(f"te-bf16 minus {mode}", lost, statistics.mean(lost) + DEVIATIONS * statistics.stdev(lost))


def _print_row(name: str, values: list[float], threshold: float) -> None:
    figures = (statistics.mean(values), statistics.stdev(values), min(values), max(values), threshold)
    print(f"| {name} |", " | ".join(f"{figure:.4f}" for figure in figures), "|", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
