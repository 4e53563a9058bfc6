"""Records made by hand, and what their comparison comes to; for the tests of comparing."""

import dataclasses
import datetime as dt
import math
from collections.abc import Mapping
from typing import Any

from mnist_fp8.core.subjects import SUBJECTS
from mnist_fp8.gate.verdict.compare import compare
from mnist_fp8.gate.verdict.comparison import Comparison
from mnist_fp8.gate.verdict.rules.rule import Difference
from mnist_fp8.record.checkpoints import CHECKPOINT_FILES
from mnist_fp8.record.claims import ClaimResult, Outcome, SuiteResult, TestResult
from mnist_fp8.record.entries import (
    Codes,
    Contents,
    Cost,
    Curves,
    Failure,
    Formats,
    Numbers,
    Parameter,
    Quantity,
    Signature,
    Special,
    Support,
    Text,
    Value,
)
from mnist_fp8.record.record import Record

TODAY = dt.date(2026, 11, 25)
HOST = {"device": "1 x cpu", "processor": "one", "jax": "0.10.2", "flax": "0.12.8", "data": "d"}


SUITE = SuiteResult((ClaimResult("a", (TestResult("tests/claims/test_a.py::test_a", Outcome.PASSED),)),), "host run")


def record(te: str = "2.0.0", entries: Mapping[str, Value] | None = None, **fields: Any) -> Record:
    whole: dict[str, Any] = {
        "run": "host",
        "environment": HOST,
        "settings": "s",
        "arguments": (te,),
        "seconds": 1.0,
        "suite": SUITE,
    } | fields
    return Record(te=te, version=te, entries=entries or {}, **whole)


def compared(old: Mapping[str, Value], new: Mapping[str, Value], **fields: Any) -> Comparison:
    return compare(record("1.0.0", old, **fields), record("2.0.0", new, **fields), (), TODAY)


def one(old: Value | None, new: Value | None, key: str = "behaviour/layers/x") -> Difference:
    """The only difference between two records of one entry, whose import does nothing else."""
    alone = {"import/end/exit code": Text("0")}
    sides = [alone | {key: value} if value else alone for value in (old, new)]
    (difference,) = compared(*sides).differences
    return difference


def numbers(*values: float, noise: float = 0.0) -> Numbers:
    return Numbers(values, tuple(f"step {index}" for index in range(len(values))), noise)


def curves(*ends: float, noise: float = 0.0) -> Curves:
    return Curves((1, 2), tuple((3.0, end) for end in ends), noise)


WHOLE: dict[str, Value] = {
    "api/transformer_engine.jax.flax.DenseGeneral": Signature("class"),
    "recipes/R/support": Support(ok=True),
    "behaviour/layers/kernel after init": Text("Array"),
    "import/end/exit code": Text("0"),
    CHECKPOINT_FILES: Text("d"),
    "training/TE BF16/loss": Curves((1,), ((1.0,),)),
    "bits/R/tensor 1": Codes("a", 1, 0),
    **{f"variables/{mode}/params/dense/kernel": Text("float32[1]") for mode in ("BF16", "R")},
    **{f"float8/{mode}/types": Formats(()) for mode in ("outside autocast", "R")},
    **{f"numerics/{mode}/distribution": Numbers((0.5,), ("2^0",), 0.0, Quantity.SHARE) for mode in ("BF16", "R")},
    **{f"special/{mode}/ones": Special((Contents("output", 0, 0, 1.0),)) for mode in ("BF16", "R")},
    **{f"layers/{name}/plain/support": Support(ok=True) for name in SUBJECTS},
    **{
        f"layers/DenseGeneral/plain/{mode}/numerics/errors": Numbers((0.5,), ("output 0",), 0.0, Quantity.ERROR)
        for mode in ("BF16", "R")
    },
}
"""As few entries as a record of everything has: those of one recipe, and of BF16."""
EVERY_KIND: dict[str, Value] = WHOLE | {
    "api/transformer_engine.jax.f": Signature("function", (Parameter("x", "either", None),)),
    "recipes/R/support": Support(ok=True),
    "numerics/R/output against float64": numbers(0.1, math.nan, math.inf),
    "training/TE/loss": curves(1, 2, 3),
    "special/R/zeros": Failure("ValueError", "no"),
    "costs/import/time": Cost((1.0, 2.0), "s"),
}

F = Signature("function", (Parameter("x", "either", None), Parameter("recipe", "either", "None")))


def changed(**fields: Any) -> Signature:
    """`F` with other fields."""
    return dataclasses.replace(F, **fields)
