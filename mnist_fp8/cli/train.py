"""``mnist-fp8 train``."""

import argparse
import contextlib
import dataclasses
import enum
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnist_fp8.cli.options import Commands, add_capability, capability_to_pretend
from mnist_fp8.cli.output import DID_NOT_HOLD, INTERRUPTED, OK, RUNS, check_output, new_folder, write_files
from mnist_fp8.core import imports
from mnist_fp8.core.capability import OPTION, VARIABLE
from mnist_fp8.core.errors import ConfigError
from mnist_fp8.core.modes import BLOCK_SCALED, Precision, RecipeConfig
from mnist_fp8.training.config import TrainConfig

if TYPE_CHECKING:
    from mnist_fp8.training.runs import TrainResult

SCHEMA_VERSION = 1
"""Of ``metrics.json``; raised when a field changes its meaning."""

QUICK: dict[str, Any] = {
    "batch_size": 16,
    "test_batch_size": 400,
    "epochs": 2,
    "train_size": 6400,
    "test_size": 2000,
}
"""The ``--quick`` preset: small batches, since on a CPU a step's time follows the batch and learning the steps."""
QUICK_IN_BLOCKS = QUICK | {"batch_size": 32, "test_batch_size": 480, "test_size": 1920}
"""The same for block-scaled recipes, whose batches are multiples of a block."""


NVFP4_FLAGS = {
    "--disable-rht": "leave out the Hadamard transform",
    "--disable-stochastic-rounding": "round gradients to the nearest",
    "--disable-2d-quantization": "scale kernels in blocks of one row",
}
"""Options of a recipe that are on by default, and what is done where they are off."""


# --- arguments -------------------------------------------------------------------------------------------------------


def add(commands: Commands) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "train",
        help="train the MNIST CNN in Flax BF16 (default), TE BF16 or TE FP8",
        description="Train the MNIST CNN in Flax BF16 (default), TE BF16 (--use-te) or TE FP8 (--use-fp8).",
        argument_default=argparse.SUPPRESS,
    )
    _add_arguments(parser)
    parser.set_defaults(run=run)


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    mode = parser.add_argument_group("precision")
    mode.add_argument("--use-te", action="store_true", help="dense layers of Transformer Engine, in BF16")
    mode.add_argument("--use-fp8", action="store_true", help="dense layers of Transformer Engine, in FP8")
    mode.add_argument("--fp8-recipe", dest="name", metavar="NAME", help="recipe by TE's name (default: DelayedScaling)")
    mode.add_argument("--fp8-margin", dest="margin", type=int, metavar="N", help="divide the scale by 2**N")
    mode.add_argument("--fp8-format", metavar="FORMAT", help="E4M3 or HYBRID (E4M3 forward, E5M2 gradients)")
    mode.add_argument("--amax-history-len", type=int, metavar="N", help="steps that the amax history keeps")
    mode.add_argument("--amax-compute-algo", metavar="ALGO", help="max or most_recent")
    for flag, what in NVFP4_FLAGS.items():
        mode.add_argument(flag, action="store_true", help=f"NVFP4: {what}")
    mode.add_argument("--fp8-update-interval", type=int, metavar="N", help="update FP8 metadata every N steps (1)")
    add_capability(mode)

    run = parser.add_argument_group(
        "training (defaults of TE's own example; --quick in brackets, with more images for block-scaled recipes)"
    )
    run.add_argument("--batch-size", type=int, metavar="N", help="images in a step: 64 [16]")
    run.add_argument("--test-batch-size", type=int, metavar="N", help="images in an evaluation step: 800 [400]")
    run.add_argument("--epochs", type=int, metavar="N", help="10 [2]")
    run.add_argument("--lr", dest="learning_rate", type=float, metavar="X", help="learning rate: 0.01")
    run.add_argument("--momentum", type=float, metavar="X", help="0.9")
    run.add_argument("--seed", type=int, metavar="N", help="of parameters, order and dropout: 1")
    run.add_argument("--mesh", type=parse_mesh, metavar="AXIS=N[,AXIS=N]", help="divide the batch: dp=2 or dp=2,fsdp=2")
    run.add_argument("--train-size", type=int, metavar="N", help="training images to use: 60000 [6400]")
    run.add_argument("--test-size", type=int, metavar="N", help="test images to use: 10000 [2000]")
    run.add_argument("--quick", action="store_true", help="a small run that ends within two minutes on 2 cores")
    run.add_argument("--dry-run", action="store_true", help="one step and one evaluation batch; write nothing")

    files = parser.add_argument_group("files and output")
    of_data = "TFDS directory that holds MNIST (default: the MNIST in this package)"
    files.add_argument("--data-dir", type=Path, metavar="DIR", help=of_data)
    files.add_argument(
        "--output", type=Path, metavar="DIR", help="for metrics.json and curves.png (default: a new one)"
    )
    files.add_argument(
        "--checkpoint", type=Path, metavar="DIR", help="save after each epoch, and go on from there if run again"
    )
    files.add_argument("--show-variables", action="store_true", help="print parameters and FP8 metadata")


def parse_mesh(text: str) -> tuple[tuple[str, int], ...]:
    """Parse ``dp=2,fsdp=4``.

    Raises:
        argparse.ArgumentTypeError: it is not of that form.
    """
    axes = [part.partition("=") for part in text.split(",")]
    if not all(axis.isidentifier() and size.isdecimal() and int(size) > 0 for axis, _, size in axes):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form AXIS=N[,AXIS=N], such as dp=2")
    if len({axis for axis, _, _ in axes}) < len(axes):
        raise argparse.ArgumentTypeError(f"{text!r} names an axis twice")
    return tuple((axis, int(size)) for axis, _, size in axes)


def build_config(args: Mapping[str, Any]) -> TrainConfig:
    """Make the configuration from the arguments that were given: they go before ``--quick``'s, and those before ours.

    Raises:
        ConfigError: a value is wrong, or an FP8 option is given without FP8.
    """
    recipe_fields = [field.name for field in dataclasses.fields(RecipeConfig)]
    recipe = {name: args[name] for name in recipe_fields if name in args}
    if (recipe or "fp8_update_interval" in args) and "use_fp8" not in args:
        given = [_flag(name) for name in (*recipe, "fp8_update_interval") if name in args]
        raise ConfigError(f"{', '.join(given)} {'needs' if len(given) == 1 else 'need'} --use-fp8")
    values = {
        "precision": _precision(args),
        "recipe": RecipeConfig(**recipe),
        **((QUICK_IN_BLOCKS if recipe.get("name") in BLOCK_SCALED else QUICK) if "quick" in args else {}),
        **{name: args[name] for name in args if name in {field.name for field in dataclasses.fields(TrainConfig)}},
    }
    return TrainConfig(**values)


def _flag(name: str) -> str:
    flags = {"name": "--fp8-recipe", "margin": "--fp8-margin"}
    return flags.get(name, "--" + name.replace("_", "-"))


def _precision(args: Mapping[str, Any]) -> Precision:
    if "use_fp8" in args:
        return Precision.TE_FP8
    return Precision.TE_BF16 if "use_te" in args else Precision.FLAX_BF16


# --- run -------------------------------------------------------------------------------------------------------------


def run(args: argparse.Namespace) -> int:
    """Train as the arguments say; returns the exit code."""
    given = vars(args)
    config = build_config(given)
    _pretend(given, config)
    dry_run = "dry_run" in given
    output: Path | None = given.get("output")
    check_output(output or RUNS)
    folder: Path | None = given.get("checkpoint")
    imports.require("jax", "flax.linen", "optax")

    from mnist_fp8.cli import training_progress  # noqa: PLC0415 - importing JAX takes half a second
    from mnist_fp8.cli.training_progress import ConsoleWatcher  # noqa: PLC0415 - importing JAX takes half a second
    from mnist_fp8.programs import cache  # noqa: PLC0415 - importing JAX takes half a second
    from mnist_fp8.te import provenance  # noqa: PLC0415 - importing JAX takes half a second
    from mnist_fp8.training import checkpoints, feasible, runs  # noqa: PLC0415 - importing JAX takes half a second

    feasible.check_feasible(config)
    cache.keep_programs()
    if dry_run:
        one_batch, one_test_batch = config.batch_size, config.test_batch_size
        config = dataclasses.replace(config, epochs=1, train_size=one_batch, test_size=one_test_batch)
    facts = provenance.describe(config.precision)
    with contextlib.ExitStack() as stack:
        checkpoint = stack.enter_context(checkpoints.opened(folder, config)) if folder and not dry_run else None
        watcher = stack.enter_context(ConsoleWatcher(config, show_variables="show_variables" in given))
        result = runs.train_and_evaluate(config, watcher, checkpoint)
    written = [] if dry_run or not result.epochs else _write_results(output, config, facts, result)
    training_progress.print_summary(config, facts, result.status, len(result.epochs), written)
    return {"complete": OK, "interrupted": INTERRUPTED}.get(result.status, DID_NOT_HOLD)


def _pretend(given: Mapping[str, Any], config: TrainConfig) -> None:
    """Have a host run of this process pretend the compute capability that is asked for."""
    if not config.precision.uses_te:
        if "capability" in given:
            raise ConfigError(f"{OPTION} needs --use-te or --use-fp8")
        return
    if capability := capability_to_pretend(given.get("capability")):
        os.environ[VARIABLE] = str(capability)


def _write_results(
    output: Path | None, config: TrainConfig, facts: Mapping[str, str], result: "TrainResult"
) -> list[Path]:
    from mnist_fp8.training import curves  # noqa: PLC0415 - drags in matplotlib

    document = {
        "schema_version": SCHEMA_VERSION,
        "status": result.status,
        "mode": config.mode,
        "environment": dict(facts),
        "config": dataclasses.asdict(config),
        "epochs": [dataclasses.asdict(metrics) for metrics in result.epochs],
    }
    title = f"{config.mode}; Transformer Engine {facts['transformer-engine']}\n{facts['run']}"
    folder = output or new_folder(config.precision.value)
    metrics = {"metrics.json": json.dumps(document, indent=2, default=_plain, allow_nan=False) + "\n"}
    return write_files(folder, metrics) + write_files(folder, {"curves.png": curves.picture(result.epochs, title)})


def _plain(value: object) -> object:
    return value.value if isinstance(value, enum.Enum) else str(value)
