"""Run the claims in this process, up to the first failure, and say which it was."""

import contextlib
import dataclasses
import io
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from proofs.mutation import subject

ROOT = Path(__file__).resolve().parents[3]

_FIRST = ("fp8_numerics", "fp8_metadata_update", "recipe_options", "dense_options", "sharding_options")
_NEVER = (
    "attention_kernels",
    "kernels",
    "kernel_numerics",
    "kernel_speed",
    "kernel_training",
    "short_run_accuracy",
    "transformer_short_run",
)


def _in_order() -> tuple[str, ...]:
    """The claims, those first that catch most in the shortest time; without kernels and training runs."""
    found = {path.stem.removeprefix("test_") for path in (ROOT / "tests" / "claims").glob("test_*.py")}
    return (*_FIRST, *sorted(found - {*_FIRST, *_NEVER}))


ORDER = _in_order()

_LAYERS, _ATTENTION = ("layer_numerics", "layer_metadata"), ("attention", "layer_numerics")
_AT_HOME = {
    "common/recipe/__init__.py": ("recipe_options",),
    "jax/quantize/helper.py": ("recipe_options",),
    "jax/quantize/hadamard.py": ("nvfp4_codes",),
    "jax/quantize/scaling_modes.py": ("mxfp8", "nvfp4_codes"),
    "jax/sharding.py": ("sharding_options",),
    "jax/activation.py": _LAYERS,
    "jax/layernorm.py": _LAYERS,
    "jax/layernorm_dense.py": _LAYERS,
    "jax/layernorm_mlp.py": _LAYERS,
    "jax/cpp_extensions/activation.py": _LAYERS,
    "jax/cpp_extensions/normalization.py": _LAYERS,
    "jax/flax/module.py": _LAYERS,
    "jax/attention.py": ("attention_sequences", "attention"),
    "jax/softmax.py": _ATTENTION,
    "jax/cpp_extensions/attention.py": _ATTENTION,
    "jax/cpp_extensions/softmax.py": _ATTENTION,
    "jax/flax/transformer.py": _ATTENTION,
}


def home_of(file: str) -> tuple[str, ...]:
    """The claims that are about a file of Transformer Engine."""
    return _AT_HOME.get(file, ("fp8_numerics", "fp8_metadata_update"))


def path_of(claim: str) -> str:
    """Where a claim's tests are, as node ids begin."""
    return f"tests/claims/test_{claim}.py"


def files(claims: Sequence[str] = ORDER) -> list[str]:
    """Paths of the claims' test files."""
    return [str(ROOT / path_of(claim)) for claim in claims]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the claims say.

    Attributes:
        claim: the claim whose test failed; empty if none did.
        test: the test that failed.
        message: what it said.
        silent: whether nothing raised: an assertion of ours found a wrong value, dtype or structure.
        seconds: until the first failure, or to the end.
    """

    claim: str
    test: str
    message: str
    silent: bool
    seconds: float

    @property
    def caught(self) -> bool:
        """Whether a claim failed."""
        return bool(self.claim)


class _FirstFailure:
    """Notes the first failing test."""

    def __init__(self, begin: Callable[[str], object]) -> None:
        self.test, self.claim, self.message, self.silent = "", "", "", False
        self._begin = begin

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._begin(nodeid)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
        report = yield
        if report.failed and not self.test:
            self.test, self.claim = item.name, item.path.stem.removeprefix("test_")
            # Without an exception, a test passes that has to fail: a known defect is there no more.
            self.message = without_folders(call.excinfo.exconly(tryshort=True) if call.excinfo else report.longreprtext)
            self.silent = call.excinfo is None or _is_ours(call.excinfo)
        return report

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and not self.test:
            self.claim = Path(report.nodeid).stem.removeprefix("test_")
            self.test, self.message = "(collection)", without_folders(report.longreprtext)[-300:]


def without_folders(message: str) -> str:
    """A message without where the suite and Transformer Engine lie: pages show it to readers who have neither there."""
    for folder in (subject.folder().parent, ROOT):  # the first may lie in the second
        message = message.replace(f"{folder}/", "")
    return message


def _is_ours(failure: pytest.ExceptionInfo[BaseException]) -> bool:
    """Whether an assertion of the suite failed, and not something inside Transformer Engine or JAX."""
    raised_in = Path(str(failure.traceback[-1].path))
    return ROOT in raised_in.parents and isinstance(failure.value, AssertionError | pytest.fail.Exception)


_READ_BY_JAX = (
    "JAX_NUM_CPU_DEVICES",
    "JAX_COMPILATION_CACHE_DIR",
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS",
)
_ON_HOST = {"MNIST_FP8_TE": "host", "JAX_PLATFORMS": "cpu"}


def collected() -> list[str]:
    """All tests of the claims, by their node ids."""
    seen = _Collected()
    _run([*files(), "--collect-only"], seen, on_gpu=False)
    return seen.tests


class _Collected:
    """Notes the tests that there are."""

    def __init__(self) -> None:
        self.tests: list[str] = []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.tests = [item.nodeid for item in session.items]


def judge(claims: Sequence[str] = ORDER, *, on_gpu: bool = False) -> Verdict:
    """Run claims in this process, into which Transformer Engine has not been imported yet.

    Args:
        claims: which ones.
        on_gpu: whether on kernels; else it is a host run.
    """
    return judge_tests(files(claims), on_gpu=on_gpu)


def judge_tests(
    tests: Sequence[str], begin: Callable[[str], object] = lambda _test: None, *, on_gpu: bool = False
) -> Verdict:
    """As `judge`, with files of tests, or tests by their node ids.

    Args:
        tests: which ones; none catch nothing.
        begin: is told of each test before it begins.
        on_gpu: whether on kernels.
    """
    started, first = time.monotonic(), _FirstFailure(begin)
    if tests:
        code, said = _run(tests, first, on_gpu=on_gpu)
        # Where nothing of them can be verified here, that is said by the code of no tests.
        if code not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) and not first.test:
            first.claim, first.test, first.message = "(start)", "(start)", without_folders(said)
    return Verdict(first.claim, first.test, first.message, first.silent, time.monotonic() - started)


def _run(arguments: Sequence[str], plugin: object, *, on_gpu: bool) -> tuple[int, str]:
    """The exit code of pytest, and what it prints as an error."""
    os.chdir(ROOT)
    for name in _READ_BY_JAX:  # which is imported by now: the suite would have them left out before
        os.environ.pop(name, None)
    os.environ |= {"HYPOTHESIS_PROFILE": "mutants", "COLUMNS": "400"} | ({} if on_gpu else _ON_HOST)
    # Hypothesis was imported before pytest could rewrite its assertions.
    ignored = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
    options = [
        "-x",
        "-q",
        "--tb=no",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-p",
        "no:randomly",
        "--override-ini=addopts=",
        *ignored,
        *(("-m", "gpu and not slow") if on_gpu else ()),
    ]
    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()) as printed:
        code = pytest.main([*options, *arguments], plugins=[plugin])
    return code, said.getvalue().strip() or f"{pytest.ExitCode(code).name}: {printed.getvalue().strip()[-300:]}"
