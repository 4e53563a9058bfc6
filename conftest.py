"""Options, header, and the one place where a test's needs become a skip.

A test says what it needs with a mark; `pytest_runtest_setup` compares that with what there is. A skip is a claim that
was *not verified*: its reason reads "needs X; found Y", and the summary counts it as such.
"""

import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before JAX starts. Workers of one machine share a GPU, so none may take all of its memory beforehand.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import pytest
from _pytest.mark.expression import Expression
from hypothesis import Phase, settings

if TYPE_CHECKING:
    from mnist_fp8.core.run_kind import RunKind

CLAIMS = Path(__file__).parent / "tests" / "claims"
CPU_DEVICES = 2
"""Virtual devices on a CPU, so that data parallelism can be verified there."""

settings.register_profile("dev", max_examples=25, deadline=None)
settings.register_profile("ci", max_examples=25, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=500, deadline=None)
# Up to the first failure, which is not made smaller: that would compile a program for each attempt.
_to_the_first = [Phase.explicit, Phase.generate]
settings.register_profile("mutants", settings.get_profile("ci"), phases=_to_the_first, report_multiple_bugs=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.hookimpl(tryfirst=True)  # before pytest-timeout reads its options
def pytest_configure(config: pytest.Config) -> None:
    """Prepare JAX, and refuse to verify kernels where there are none."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if config.option.collectonly:
        return  # collecting touches no device and loads no Transformer Engine
    from mnist_fp8 import te  # noqa: PLC0415
    from mnist_fp8.core.errors import ConfigError, TeUnavailableError  # noqa: PLC0415
    from mnist_fp8.core.run_kind import RunKind  # noqa: PLC0415
    from mnist_fp8.programs import cache  # noqa: PLC0415

    _put_own_gpu_first(getattr(config, "workerinput", {}))
    _divide_cpu()
    cache.keep_programs(is_worker=hasattr(config, "workerinput"))

    try:
        kind = te.engine().kind
    except TeUnavailableError as error:
        raise pytest.UsageError(f"nothing can be verified: {_explain(error)}") from error
    except ConfigError as error:
        raise pytest.UsageError(f"nothing can be verified: {error}") from error
    if selects_gpu(config.option.markexpr) and kind is not RunKind.KERNEL:
        found = te.why_no_gpu() or "a GPU, but MNIST_FP8_TE=host"
        raise pytest.UsageError(f"-m gpu needs a kernel run: a GPU and TE's CUDA extension; found {found}")
    config.option.timeout_method = config.option.timeout_method or guard_method(kind)


def guard_method(kind: "RunKind") -> str:
    """How pytest-timeout ends a test that takes too long.

    A signal makes the test fail and nothing else, but is not seen by a process that waits for a kernel which hangs. A
    thread ends the whole process: with ``-n`` that is a worker, whose test has failed then, and which is replaced.
    """
    return "thread" if kind.value == "kernel" else "signal"


def _explain(error: Exception) -> str:
    """Why TE cannot run, and which piece of the installation does not fit, in one line."""
    from mnist_fp8.machine import checks  # noqa: PLC0415

    said = (" ".join(str(error).split()), checks.first_problem())
    return f"{'; '.join(filter(None, said))} (mnist-fp8 doctor says more)"


# --- GPUs ----------------------------------------------------------------------------------------------------------


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # noqa: ANN401 - pytest-xdist's, which need not be installed
    """Tell a worker how many GPUs there are: asking CUDA would fix their order before it has chosen its own."""
    from mnist_fp8 import te  # noqa: PLC0415
    from mnist_fp8.core.run_kind import RunKind  # noqa: PLC0415
    from mnist_fp8.machine import driver  # noqa: PLC0415

    if te.engine().kind is RunKind.KERNEL:
        node.workerinput["gpus"] = len(driver.find_driver().gpus)


def _put_own_gpu_first(workerinput: Mapping[str, Any]) -> None:
    """Have a worker compute on a GPU of its own; it sees all of them, since some tests need two."""
    if workerinput.get("gpus"):
        worker = int(workerinput["workerid"].removeprefix("gw"))
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        os.environ["CUDA_VISIBLE_DEVICES"] = rotated(visible, workerinput["gpus"], worker)


def rotated(visible: str | None, count: int, worker: int) -> str:
    """The value of ``CUDA_VISIBLE_DEVICES`` with which a worker's own GPU is the first.

    Args:
        visible: the value so far; its entries can be names, too.
        count: GPUs that CUDA sees with that. It takes entries up to the first that is none.
        worker: number of the worker, from 0.
    """
    gpus = list(map(str, range(count))) if visible is None else visible.split(",")[:count]
    own = worker % count
    return ",".join(gpus[own:] + gpus[:own])


def _divide_cpu() -> None:
    """Make virtual devices of a CPU, for sharding."""
    import jax  # noqa: PLC0415

    if "jax_num_cpu_devices" in jax.config.values:
        jax.config.update("jax_num_cpu_devices", CPU_DEVICES)
    else:  # before JAX 0.5
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={CPU_DEVICES}".strip()


def selects_gpu(expression: str) -> bool:
    """Whether a ``-m`` expression asks for GPU tests: a test is selected because of its mark ``gpu``."""
    if not expression:
        return False
    selects = Expression.compile(expression).evaluate
    return any(
        selects(lambda name, *, others=others, **_: name == "gpu" or others)
        and not selects(lambda name, *, others=others, **_: name != "gpu" and others)
        for others in (False, True)
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``-m gpu``, the claims are verified on kernels: they are GPU tests then. And what is known of a release."""
    claims = {item: f"{item.path.name}::{item.name}" for item in items if CLAIMS in item.path.parents}
    if selects_gpu(config.option.markexpr):
        for item in claims:
            item.add_marker(pytest.mark.gpu)
    whole = {item.path for item in claims} == set(CLAIMS.glob("test_*.py"))
    _expect(claims, run="" if config.option.collectonly else _kind_of_run(), whole=whole)


def _kind_of_run() -> str:
    from mnist_fp8 import te  # noqa: PLC0415

    return te.engine().kind.value


def _expect(claims: dict[pytest.Item, str], *, run: str, whole: bool) -> None:
    """Mark what the installed release is known to lack or to do wrong.

    Args:
        claims: the collected tests of claims, with their names.
        run: the kind of run; empty where nothing is run.
        whole: whether those are all there are; an entry that fits none of them is wrong then.
    """
    from mnist_fp8 import te  # noqa: PLC0415
    from support import expectations  # noqa: PLC0415

    try:
        known = expectations.load()
    except ValueError as error:
        raise pytest.UsageError(f"{expectations.FILE}: {error}") from error
    stray = expectations.unmatched(known, claims.values()) if whole else []
    if stray:
        raise pytest.UsageError(f"{expectations.FILE}: these patterns fit no test: {', '.join(stray)}")
    for item, name in claims.items():
        for mark in expectations.marks_for(name, te.version(), run, known):
            item.add_marker(mark)


# --- needs ---------------------------------------------------------------------------------------------------------


def _unmet_gpu() -> str | None:
    from mnist_fp8 import te  # noqa: PLC0415
    from mnist_fp8.core.run_kind import RunKind  # noqa: PLC0415

    kind = te.engine().kind
    return None if kind is RunKind.KERNEL else f"needs a kernel run on a GPU; found a {kind.value} run"


def _unmet_host() -> str | None:
    return None if _unmet_gpu() else "needs a host run; found a kernel run"


def _unmet_devices(count: int) -> str | None:
    import jax  # noqa: PLC0415

    found = len(jax.devices())
    return None if found >= count else f"needs {count} devices; found {found} ({jax.devices()[0].device_kind})"


def _unmet_profiler() -> str | None:
    from mnist_fp8.programs import kernels  # noqa: PLC0415

    reason = kernels.why_no_trace()
    return f"needs a trace of the kernels that run; found: {reason}" if reason else None


def _unmet_xla_sums_in_float32() -> str | None:
    from mnist_fp8 import te  # noqa: PLC0415
    from mnist_fp8.core.run_kind import RunKind  # noqa: PLC0415
    from mnist_fp8.te import xla_products  # noqa: PLC0415

    if te.engine().kind is RunKind.KERNEL:
        return None  # what multiplies there is TE's
    found = xla_products.sums()
    return None if found.are_float32 else f"needs an XLA that sums BF16 products in float32; found them {found}"


def _unmet_recipe(name: str) -> str | None:
    from mnist_fp8 import te  # noqa: PLC0415
    from mnist_fp8.core.modes import RecipeConfig  # noqa: PLC0415

    support = te.support(te.make_recipe(RecipeConfig(name)))
    return None if support.ok else f"needs recipe {name}; found: {support.reason}"


def _unmet_te_name(name: str) -> str | None:
    from mnist_fp8 import te  # noqa: PLC0415

    return None if te.has_name(name) else f"needs {name} in transformer_engine.jax; found none in {te.version()}"


NEEDS: dict[str, Callable[..., str | None]] = {
    "gpu": _unmet_gpu,
    "host": _unmet_host,
    "devices": _unmet_devices,
    "profiler": _unmet_profiler,
    "recipe": _unmet_recipe,
    "te_name": _unmet_te_name,
    "xla_sums_in_float32": _unmet_xla_sums_in_float32,
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose needs are not met, with what is needed and what was found."""
    for name, unmet in NEEDS.items():
        for mark in item.iter_markers(name):
            reason = unmet(*mark.args)
            if reason:
                pytest.skip(reason)


# --- what a person sees --------------------------------------------------------------------------------------------


def _describe_recipes() -> dict[str, str]:
    """Which recipes this machine supports. A TE that cannot even say so is for the claims to judge, not the header."""
    from mnist_fp8 import te  # noqa: PLC0415

    try:
        recipes = te.support_by_recipe()
    except Exception as error:  # noqa: BLE001 - whatever a broken TE raises
        return {"recipes": f"Transformer Engine cannot be asked: {type(error).__name__}: {error}"}
    return {
        "recipes": ", ".join(name for name, support in recipes.items() if support.ok) or "none",
        **{f"not {name}": support.reason for name, support in recipes.items() if not support.ok},
    }


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name the subject: what runs, in which kind of run, with which versions."""
    if config.option.collectonly:
        return []
    from mnist_fp8.te import provenance  # noqa: PLC0415

    facts = provenance.describe() | _describe_recipes()
    return [f"{name}: {value}" for name, value in facts.items()]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run in which every test was skipped has verified nothing: it may not look like success."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    stats = reporter.stats if reporter else {}
    if exitstatus == pytest.ExitCode.OK and stats.get("skipped") and not stats.get("passed"):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def pytest_terminal_summary(terminalreporter: Any) -> None:  # noqa: ANN401 - pytest's reporter has no public type
    """Say what this run did not verify."""
    from mnist_fp8 import te  # noqa: PLC0415

    if terminalreporter.config.option.collectonly:
        return
    skipped = len(terminalreporter.stats.get("skipped", []))
    if skipped:
        terminalreporter.write_line(f"{skipped} tests were NOT VERIFIED; the reasons are above", yellow=True)
    terminalreporter.write_line(te.engine().kind.description)
