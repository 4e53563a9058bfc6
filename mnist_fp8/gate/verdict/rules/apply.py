"""Each area of a record has its rules."""

from collections.abc import Callable, Sequence

from mnist_fp8.gate.verdict.changes import Change
from mnist_fp8.gate.verdict.rules.api import judge_api
from mnist_fp8.gate.verdict.rules.measured import (
    judge_behaviour,
    judge_bits,
    judge_float8,
    judge_metadata,
    judge_numerics,
    judge_recipes,
    judge_special,
    judge_training,
    judge_variables,
    judge_warnings,
)
from mnist_fp8.gate.verdict.rules.rule import Difference


def judge(changes: Sequence[Change]) -> list[Difference]:
    """The differences that changes come to."""
    found: list[Difference] = []
    for area, of_area in _RULES.items():
        found += of_area([change for change in changes if change.area == area])
    return found


_RULES: dict[str, Callable[[Sequence[Change]], list[Difference]]] = {
    "api": judge_api,
    "recipes": judge_recipes,
    "variables": judge_variables,
    "metadata": judge_metadata,
    "float8": judge_float8,
    "numerics": judge_numerics,
    "bits": judge_bits,
    "special": judge_special,
    "behaviour": judge_behaviour,
    "training": judge_training,
    "warnings": judge_warnings,
}
