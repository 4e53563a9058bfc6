"""Shells in which a verdict must stay right: each carries one variable more than a bare one, or two.

``PYTHONPATH=.:tests python -m proofs.shells`` prints ``docs/evidence/shells.md``. In every shell it compares a healthy
Transformer Engine with itself, which must never be BROKEN, and with a faulty one, which must never be SAFE. It exits 1
if a verdict is wrong, or there is none: in the bare shell, which is the control, both are told apart. What ended is
kept, so that an interrupted command goes on where it stopped.
"""

import argparse
import concurrent.futures
import dataclasses
import itertools
import random
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from mnist_fp8.cli.options import parse_count
from mnist_fp8.core.files import cache_dir
from mnist_fp8.gate.reports.markup import generated_by
from proofs.faults import FOLDER, Fault, load
from proofs.mutation import claims
from proofs.mutation.results import Notes, of_the_suite
from proofs.verdicts import ALTERED, CODES, FAULTY, Edit, edited, upgrade

INTRODUCTION = f"""\
# Verdicts in shells of every kind

{generated_by("PYTHONPATH=.:tests python -m proofs.shells > docs/evidence/shells.md")}

**{{wrong}} of {{count}} verdicts were wrong.** In each shell, a variable is set beside those of a bare one, or those of
two shells are. A healthy Transformer Engine against itself must not be BROKEN; against a copy with a fault it must not
be SAFE. {{looked_at}} was looked at.

| shell | healthy against itself | against the faulty one | seconds |
|---|---|---|---|"""
VERDICTS = {*CODES.values()} - {CODES[2]}
FAULT = "product-doubled"
"""The fault of the copy, by its name."""
BARE: Mapping[str, str] = {}
_ELSEWHERE = "/nonexistent"

SHELLS: tuple[Mapping[str, str], ...] = (
    *({name: "1"} for name in ("JAX_ENABLE_X64", "JAX_DEBUG_NANS", "JAX_DEBUG_INFS", "JAX_DISABLE_JIT")),
    *({name: "1"} for name in ("JAX_CHECK_TRACER_LEAKS", "JAX_ENABLE_CHECKS", "JAX_LOG_COMPILES", "JAX_NO_TRACING")),
    {"JAX_NUMPY_RANK_PROMOTION": "raise"},
    {"JAX_NUMPY_DTYPE_PROMOTION": "strict"},
    {"JAX_DEFAULT_PRNG_IMPL": "rbg"},
    {"JAX_DEFAULT_MATMUL_PRECISION": "bfloat16"},
    {"JAX_THREEFRY_PARTITIONABLE": "0"},
    {"JAX_TRANSFER_GUARD": "disallow"},
    {"JAX_ENABLE_COMPILATION_CACHE": "0"},
    {"JAX_COMPILATION_CACHE_DIR": _ELSEWHERE},
    {"JAX_PLATFORMS": "cpu"},
    {"JAX_USE_SHARDY_PARTITIONER": "0"},
    {"JAX_NUM_CPU_DEVICES": "2"},
    {"FLAX_RETURN_FROZEN_DICT": "1"},
    {"FLAX_LAZY_RNG": "0"},
    {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
    {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"},
    {"XLA_FLAGS": "--xla_backend_optimization_level=0"},
    {"XLA_FLAGS": "--xla_allow_excess_precision=false"},
    {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"},
    {"NVTE_FUSED_ATTN": "0"},
    {"NVTE_JAX_UNITTEST_LEVEL": "L1"},
    {"NVTE_JAX_CUSTOM_CALLS": "true"},
    {"NVTE_DEBUG": "1"},
    {"NVTE_ALLOW_NONDETERMINISTIC_ALGO": "0"},
    {"NVTE_JAX_ALL_REDUCE_IN_FP32": "1"},
    {"NVTE_ZERO_CENTERED_GAMMA_IN_WTYPE": "1"},
    {"NVTE_BACKWARD_OVERRIDE": "dequantized"},
    {"NVTE_FP8_GEMM_HIGH_PRECISION_ACCUMULATION": "1"},
    {"NVTE_FP8_CURRENT_SCALING_POWER_2_SCALES": "1"},
    {"NVTE_FP8_BLOCK_SCALING_FP32_SCALES": "1"},
    {"NVTE_NVFP4_DISABLE_RHT": "1"},
    {"NVTE_NVFP4_4OVER6": "all"},
    {"TF_CPP_MIN_LOG_LEVEL": "3"},
    {"OMP_NUM_THREADS": "1"},
    {"CUDA_VISIBLE_DEVICES": ""},
    {"PYTHONOPTIMIZE": "2"},
    {"PYTHONWARNINGS": "error"},
    {"PYTHONHASHSEED": "7"},
    {"PYTHONUTF8": "0"},
    {"PYTEST_ADDOPTS": "-k nothing"},
    {"PYTEST_PLUGINS": "nothing"},
    {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    {"HYPOTHESIS_PROFILE": "nothing"},
    {"COVERAGE_PROCESS_START": _ELSEWHERE},
    {"LD_PRELOAD": _ELSEWHERE},
    {"LC_ALL": "C", "LANG": "C"},
    {"LC_ALL": "tr_TR.UTF-8"},
    {"TERM": "dumb", "COLUMNS": "20", "NO_COLOR": "1"},
    {"MNIST_FP8_TE": "host"},
    {"PAGER": "false", "GIT_DIR": _ELSEWHERE},
    {"SOURCE_DATE_EPOCH": "0", "TZ": "Pacific/Kiritimati"},
)
PAIRS: tuple[Mapping[str, str], ...] = tuple(
    {**first, **second}
    for first, second in random.Random(0).sample(list(itertools.combinations(SHELLS, 2)), 16)  # noqa: S311 - no secret
)
"""Two of them at a time, drawn once; where both set a variable, the second one does."""


@dataclasses.dataclass(frozen=True)
class Question:
    """What is asked in every shell.

    Attributes:
        healthy: a Transformer Engine as ``mnist-fp8 upgrade`` takes it.
        faulty: a copy of it with a fault that a record shows.
        only: parts of the record; all of it if empty.
    """

    healthy: str
    faulty: str
    only: tuple[str, ...] = ()

    @property
    def unchanged(self) -> str:
        """The verdict where nothing differs; of a part, that is no pass."""
        return "PARTIAL" if self.only else "SAFE"

    def ask(self, shell: Mapping[str, str], new: str) -> str:
        """The verdict in a shell, by `CODES`; with the last line of what was said where there is none."""
        only = ["--only", *self.only] if self.only else []
        with tempfile.TemporaryDirectory() as folder:
            answer, words = upgrade(self.healthy, new, "-o", folder, *only, variables=shell)
        last = words.rpartition("\n")[2]
        return answer if answer in VERDICTS else f"{answer}: {last}"


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The verdicts in a shell, and the seconds that both took."""

    healthy: str
    faulty: str
    seconds: float

    def wrong(self, question: Question) -> int:
        """How many of the two are; none at all is wrong, too, as the bare shell has both."""
        right = VERDICTS - {"BROKEN"}, VERDICTS - {"SAFE", question.unchanged}
        return sum(verdict not in these for verdict, these in zip((self.healthy, self.faulty), right, strict=True))


def attempt(shell: Mapping[str, str], question: Question) -> Outcome:
    """Both verdicts in a shell."""
    begin = time.monotonic()
    healthy, faulty = (question.ask(shell, new) for new in (question.healthy, question.faulty))
    return Outcome(healthy, faulty, time.monotonic() - begin)


def noted(shell: Mapping[str, str], question: Question, notes: Notes) -> Outcome:
    """`attempt`, unless its outcome is kept."""
    name = " ".join([_shown(shell), *question.only])
    if name not in notes:
        outcome = attempt(shell, question)
        notes.add(name, dataclasses.asdict(outcome))
        print(f"{_shown(shell)}: {outcome}", file=sys.stderr, flush=True)
    return Outcome(**notes[name])


def try_all(question: Question, jobs: int, notes: Notes) -> dict[str, Outcome]:
    """The outcomes in the bare shell and in all others.

    The bare one is tried first and alone: what it measures is in the cache for all whose variables reach no run.

    Raises:
        SystemExit: the bare shell does not tell the two apart, so that the others would show nothing.
    """
    bare = noted(BARE, question, notes)
    if bare.healthy != question.unchanged or bare.faulty not in ALTERED:
        expected = f"expected {question.unchanged} and {' or '.join(sorted(ALTERED))}"
        sys.exit(f"control: the verdicts in the bare shell are {bare.healthy} and {bare.faulty}; {expected}")
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        others = list(pool.map(lambda shell: noted(shell, question, notes), (*SHELLS, *PAIRS)))
    return {_shown(shell): outcome for shell, outcome in zip((BARE, *SHELLS, *PAIRS), (bare, *others), strict=True)}


def _shown(shell: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in shell.items()) or "bare"


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="KEY", help="a part of the record (default: all of it)"
    )
    parser.add_argument("--jobs", type=parse_count, default=1, help="shells side by side (default: %(default)s)")
    args = parser.parse_args()
    (fault,) = (fault for fault in load(FOLDER, Fault) if fault.name == FAULT)
    with tempfile.TemporaryDirectory() as scratch:
        faulty = edited((Edit(fault.file, fault.old, fault.new),), Path(scratch))
        question = Question(FAULTY, str(faulty), tuple(args.only))
        notes = Notes(cache_dir() / "shells" / f"{of_the_suite(claims.ROOT)}.jsonl")
        outcomes = try_all(question, args.jobs, notes)
    wrong = sum(outcome.wrong(question) for outcome in outcomes.values())
    looked_at = ", ".join(f"`{key}`" for key in args.only) or "Everything"
    print(INTRODUCTION.format(wrong=wrong, count=2 * len(outcomes), looked_at=looked_at))
    for shell, outcome in outcomes.items():
        print(f"| `{shell}` | {outcome.healthy} | {outcome.faulty} | {outcome.seconds:.0f} |")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
