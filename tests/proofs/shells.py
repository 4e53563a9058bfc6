"""Shells in which a verdict must stay right: each carries one variable more than a bare one.

``PYTHONPATH=.:tests python -m proofs.shells HEALTHY FAULTY`` prints ``docs/evidence/shells.md``. In every shell it
compares a healthy Transformer Engine with itself, which must never be BROKEN, and with a faulty one, which must never
be SAFE. It exits 1 if a verdict is wrong. Shells whose variables reach no run take their results from the cache.
"""

import argparse
import concurrent.futures
import dataclasses
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping

from mnist_fp8.gate.reports.markup import generated_by
from proofs.verdicts import CODES

INTRODUCTION = f"""\
# Verdicts in shells of every kind

{generated_by("PYTHONPATH=.:tests python -m proofs.shells HEALTHY FAULTY > docs/evidence/shells.md")}

**{{wrong}} of {{count}} verdicts were wrong.** In each shell, one variable is set beside those of a bare one. A healthy
Transformer Engine against itself must not be BROKEN; against a copy with a fault it must not be SAFE.

| shell | healthy against itself | against the faulty one | seconds |
|---|---|---|---|"""
_ELSEWHERE = "/nonexistent"

SHELLS: tuple[Mapping[str, str], ...] = (
    {},
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


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The verdicts in a shell, by `CODES`, with the last line where it could not be done, and the seconds."""

    healthy: str
    faulty: str
    seconds: float

    @property
    def wrong(self) -> int:
        """How many of the two are."""
        known = CODES.values()
        lies = [self.healthy == "BROKEN", self.faulty == "SAFE"]
        return sum(lies) + sum(verdict.partition(":")[0] not in known for verdict in (self.healthy, self.faulty))


def attempt(shell: Mapping[str, str], healthy: str, faulty: str, only: list[str]) -> Outcome:
    """Both verdicts in a shell."""
    started = time.monotonic()
    of_healthy, of_faulty = (_verdict(shell, healthy, new, only) for new in (healthy, faulty))
    outcome = Outcome(of_healthy, of_faulty, time.monotonic() - started)
    print(f"{_shown(shell)}: {outcome}", file=sys.stderr, flush=True)
    return outcome


def _verdict(shell: Mapping[str, str], old: str, new: str, only: list[str]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "mnist_fp8",
            "upgrade",
            old,
            new,
            "-o",
            folder,
            *(["--only", *only] if only else []),
        ]
        # Python reads its own variables when it starts: they reach the command, as they would a user's.
        done = subprocess.run(command, env=os.environ | shell, capture_output=True, text=True, check=False)  # noqa: S603
    said = CODES.get(done.returncode, f"exit code {done.returncode}")
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return said if done.returncode != 2 and said in CODES.values() else f"{said}: {last}"


def _shown(shell: Mapping[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in shell.items()) or "bare"


def main() -> None:
    """Run all and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("healthy", help="as mnist-fp8 upgrade takes it")
    parser.add_argument("faulty", help="a copy of it with a fault that a record shows")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="KEY", help="a part of the record (default: all of it)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="shells side by side (default: %(default)s)")
    args = parser.parse_args()
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        outcomes = list(pool.map(lambda shell: attempt(shell, args.healthy, args.faulty, args.only), SHELLS))
    wrong = sum(outcome.wrong for outcome in outcomes)
    print(INTRODUCTION.format(wrong=wrong, count=2 * len(outcomes)))
    for shell, outcome in zip(SHELLS, outcomes, strict=True):
        print(f"| `{_shown(shell)}` | {outcome.healthy} | {outcome.faulty} | {outcome.seconds:.0f} |")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
