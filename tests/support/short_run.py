"""The training runs of the accuracy claims, their thresholds, and the command that measured them.

``python -m support.short_run --seeds 10`` in the folder ``tests`` trains every mode with seeds 1 to 10 and prints the
table of ``docs/explanation/accuracy.md``, thresholds included; with ``--full``, that of all of MNIST on a GPU. A
threshold is the mean minus five standard deviations, pooled over the modes of eight bits and more. If accuracies are
roughly normal, a healthy mode falls below its threshold about once in 100,000 runs (Student's t with 45 degrees of
freedom, the error of the mean counted in). Four bits spread more: NVFP4 has a standard deviation of its own, and seven
of them below its mean, which is about once in 20,000 runs (9 degrees of freedom).
"""

import argparse
import contextlib
import dataclasses
import hashlib
import json
import math
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from mnist_fp8 import te
from mnist_fp8.core import variables
from mnist_fp8.core.files import cache_dir, digest_of, replace_file
from mnist_fp8.core.modes import BLOCK_SCALED, Precision, RecipeConfig
from mnist_fp8.core.processor import describe_processor
from mnist_fp8.core.run_kind import RunKind
from mnist_fp8.programs import cache
from mnist_fp8.training import data, runs, train
from mnist_fp8.training.config import TrainConfig

MODES: dict[str, tuple[Precision, RecipeConfig]] = {
    "flax-bf16": (Precision.FLAX_BF16, RecipeConfig()),
    "te-bf16": (Precision.TE_BF16, RecipeConfig()),
    "te-fp8-delayed": (Precision.TE_FP8, RecipeConfig("DelayedScaling")),
    "te-fp8-current": (Precision.TE_FP8, RecipeConfig("Float8CurrentScaling")),
    "te-mxfp8": (Precision.TE_FP8, RecipeConfig("MXFP8BlockScaling")),
    "te-nvfp4": (Precision.TE_FP8, RecipeConfig("NVFP4BlockScaling")),
}

FP8_MODES = [mode for mode, (precision, _) in MODES.items() if precision is Precision.TE_FP8]

HOPPER_MODES = [mode for mode, (_, recipe) in MODES.items() if recipe.name not in BLOCK_SCALED]
"""Those with thresholds of a full run, and of a transformer: no Blackwell has measured the others."""

FOUR_BITS = "te-nvfp4"
DEVIATIONS, DEVIATIONS_OF_FOUR_BITS = 5, 7
"""Standard deviations between mean and threshold."""

THRESHOLDS = {
    "flax-bf16": 0.888,
    "te-bf16": 0.888,
    "te-fp8-delayed": 0.885,
    "te-fp8-current": 0.887,
    "te-mxfp8": 0.887,
    "te-nvfp4": 0.768,
    "te-bf16 minus te-fp8-delayed": 0.034,
    "te-bf16 minus te-fp8-current": 0.033,
    "te-bf16 minus te-mxfp8": 0.032,
    "te-bf16 minus te-nvfp4": 0.158,
}
"""Lowest test accuracy of each mode, and largest loss of accuracy against BF16."""

FULL_THRESHOLDS = {
    "flax-bf16": 0.98,
    "te-bf16": 0.98,
    "te-fp8-delayed": 0.98,
    "te-fp8-current": 0.98,
    "te-bf16 minus te-fp8-delayed": 0.0051,
    "te-bf16 minus te-fp8-current": 0.0050,
}
"""The same of a full run, measured on an H100."""


def short_run(mode: str, seed: int = 1) -> TrainConfig:
    """400 steps of 32 images of 9 by 9 pixels, evaluated on 1,920 test images."""
    precision, recipe = MODES[mode]
    return TrainConfig(
        precision=precision,
        recipe=recipe,
        seed=seed,
        batch_size=32,
        test_batch_size=480,
        epochs=1,
        train_size=12800,
        test_size=1920,
        pooling=3,
    )


def full_run(mode: str, seed: int = 1) -> TrainConfig:
    """Two epochs of all of MNIST, 1,874 steps of 64 images."""
    precision, recipe = MODES[mode]
    return TrainConfig(precision=precision, recipe=recipe, seed=seed, epochs=2)


@dataclasses.dataclass(frozen=True)
class Trained:
    """How a run ended: `train.TrainResult.status`, and loss and accuracy on test images after its last epoch."""

    status: str
    test_loss: float
    test_accuracy: float


def trained(config: TrainConfig) -> Trained:
    """Train as configured, `once`."""
    return once(lambda: _key(config), Trained, lambda: _train(config))


Result = TypeVar("Result")


def once(key: Callable[[], str], kind: type[Result], train: Callable[[], Result]) -> Result:
    """Train; on a host run, no program is run a second time on the same data.

    Two releases that train by the same program get the same numbers, so the second need not train. Kernels are not part
    of a program's text: on a kernel run everything is trained.

    Args:
        key: makes the digest of all that the numbers of a host run depend on.
        kind: dataclass of the result.
        train: makes the result.
    """
    if te.engine().kind is RunKind.KERNEL:
        return train()
    file = cache_dir() / "short_runs" / f"{key()}.json"
    result = _kept(file, kind)
    if result is None:
        result = train()
        numbers = vars(result)
        replace_file(file, json.dumps({"digest": digest_of([file.name, numbers]), "numbers": numbers}).encode())
    return result


def _kept(file: Path, kind: type[Result]) -> Result | None:
    """The result in a file, unless there is none or it was edited."""
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        document = json.loads(file.read_text())
        if document["digest"] == digest_of([file.name, document["numbers"]]):
            return kind(**document["numbers"])
    return None


def assert_trained(result: Trained, mode: str, thresholds: Mapping[str, float]) -> None:
    """Compare how a run ended with the lowest accuracy of its mode."""
    __tracebackhide__ = True
    assert result.status == "complete", f"{mode}: the run ended as {result.status}"
    threshold = thresholds[mode]
    assert result.test_accuracy >= threshold, (
        f"{mode}: test accuracy={result.test_accuracy:.4f}, but should be at least {threshold}"
        " (mean minus five standard deviations over seeds: docs/explanation/accuracy.md)"
    )
    assert math.isfinite(result.test_loss), f"{mode}: test loss={result.test_loss}"


def assert_keeps_up(bf16: Trained, fp8: Trained, mode: str, thresholds: Mapping[str, float]) -> None:
    """Compare the accuracy that a mode in FP8 loses against BF16 with the most that it may."""
    __tracebackhide__ = True
    margin, lost = thresholds[f"te-bf16 minus {mode}"], bf16.test_accuracy - fp8.test_accuracy
    assert lost <= margin, (
        f"{mode}: test accuracy={fp8.test_accuracy:.4f} is {lost:.4f} below BF16's {bf16.test_accuracy:.4f},"
        f" but should be at most {margin} (mean plus five standard deviations over seeds: docs/explanation/accuracy.md)"
    )


def _train(config: TrainConfig) -> Trained:
    result = runs.train_and_evaluate(config)
    if not result.epochs:
        return Trained(result.status, math.nan, math.nan)
    return Trained(result.status, result.epochs[-1].test_loss, result.epochs[-1].test_accuracy)


def _key(config: TrainConfig) -> str:
    """Digest of all that the numbers of a host run depend on."""
    return digest(config, (train, runs, data), train.programs(config))


def digest(config: Any, modules: Sequence[ModuleType], programs: Sequence[str]) -> str:
    """Digest of a run's configuration, its modules' source, its programs, and what runs them."""
    versions = [metadata.version(package) for package in ("jax", "jaxlib", "numpy")]
    sources = [Path(str(module.__file__)).read_text() for module in modules]
    here = [describe_processor(), repr(variables.of_this_process(os.environ))]
    parts = [repr(config), *here, *versions, *sources, *programs]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def main() -> None:
    """Measure the spread over seeds and print it as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10, help="number of seeds, from 1 (default: %(default)s)")
    parser.add_argument("--full", action="store_true", help="two epochs of all of MNIST; for a GPU")
    args = parser.parse_args()
    cache.keep_programs()
    seeds, run = range(1, args.seeds + 1), full_run if args.full else short_run
    measured: dict[str, list[float]] = {}
    for mode in HOPPER_MODES if args.full else MODES:
        measured[mode] = [trained(run(mode, seed)).test_accuracy for seed in seeds]
        print(mode, *(f"{value:.4f}" for value in measured[mode]), file=sys.stderr, flush=True)  # noqa: T201
    lost = {
        f"te-bf16 minus {mode}": [bf16 - fp8 for bf16, fp8 in zip(measured["te-bf16"], values, strict=True)]
        for mode, values in measured.items()
        if mode in FP8_MODES
    }
    print("| mode | mean | std | min | max | threshold |\n|---|---|---|---|---|---|")  # noqa: T201
    _print_rows(measured, -1)
    _print_rows(lost, 1)


def _print_rows(measured: dict[str, list[float]], sign: int) -> None:
    """Print a table's rows; thresholds lie below the means, or above them."""
    variances: dict[bool, list[float]] = {}
    for name, values in measured.items():
        variances.setdefault(FOUR_BITS in name, []).append(statistics.variance(values))
    for name, values in measured.items():
        few = FOUR_BITS in name
        allowed = sign * (DEVIATIONS_OF_FOUR_BITS if few else DEVIATIONS) * math.sqrt(statistics.mean(variances[few]))
        mean = statistics.mean(values)
        figures = (mean, statistics.stdev(values), min(values), max(values), mean + allowed)
        print(f"| {name} |", " | ".join(f"{figure:.4f}" for figure in figures), "|", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
