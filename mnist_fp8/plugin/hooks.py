"""The hooks of pytest: what happens when. What it means is in the modules beside this one.

A test says what it needs with a mark; `pytest_runtest_setup` compares that with what there is. A skip is a claim that
was *not verified*: its reason reads "needs X; found Y", and the summary counts it as such.

Hooks import what loads JAX only when they run: collecting, and asking pytest for help, do without.
"""

import os
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import pytest
from _pytest.terminal import TerminalReporter

from mnist_fp8.core import garbage, model, variables
from mnist_fp8.core.capability import HELP, OPTION
from mnist_fp8.core.plain import encodable
from mnist_fp8.plugin import expectations, judge, mappings, process, refusal, selection

LEFT_OUT = pytest.StashKey[dict[str, str]]()
"""Options of JAX, Flax and XLA that were set, and are not in this run."""
ENDED = pytest.StashKey[int]()
"""Tests that ended in this process."""
JUDGE = pytest.StashKey[Mapping[str, object]]()
"""The code that judges, before a user's model is imported; where there is one."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the suite."""
    text = "write what runs as JSON: the kind of run in words, versions, device and recipes; with -n also what of it "
    text += "each worker imported and collected, in files beside it"
    group = parser.getgroup("mnist-fp8")
    group.addoption("--mnist-fp8-json", type=Path, metavar="FILE", help=text)
    group.addoption(OPTION, metavar="X", help=HELP)
    text = "a JSON list of names of tests that need not run; those run all the same that are expected to fail"
    group.addoption("--mnist-fp8-spare", type=Path, metavar="FILE", help=text)


@pytest.hookimpl(tryfirst=True)  # before pytest-timeout reads its options
def pytest_configure(config: pytest.Config) -> None:
    """Prepare JAX, and refuse to verify kernels where there are none."""
    process.heed_interrupts()
    refusal.demand_assertions()
    if config.option.collectonly:
        return  # collecting touches no device and loads no Transformer Engine
    process.pretend(config.option.capability)
    config.stash[LEFT_OUT] = process.leave_out_options()
    refusal.check_run(config)
    process.prepare_jax(getattr(config, "workerinput", None))
    kind = refusal.kind_of_run(config.option.markexpr)
    config.option.timeout_method = config.option.timeout_method or process.guard_method(kind)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # noqa: ANN401 - pytest-xdist's, which need not be installed
    """Tell a worker how many GPUs there are: asking CUDA would fix their order before it has chosen its own."""
    from mnist_fp8 import te  # noqa: PLC0415
    from mnist_fp8.core.run_kind import RunKind  # noqa: PLC0415
    from mnist_fp8.machine import driver  # noqa: PLC0415

    if te.engine().kind is RunKind.KERNEL:
        node.workerinput["gpus"] = len(driver.find_driver().gpus)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With ``-m gpu``, do not import files without a GPU test: they may need packages that a GPU machine lacks."""
    if collection_path.suffix != ".py" or not selection.selects_gpu(config.option.markexpr):
        return None
    return not selection.has_gpu_test(collection_path, config.rootpath / "tests" / "claims") or None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``-m gpu``, the claims are verified on kernels: they are GPU tests then. And what is known of a release.

    A worker writes which tests there are and which of them are spared, first of all: whatever else leaves some out
    comes later.
    """
    from mnist_fp8 import te  # noqa: PLC0415
    from mnist_fp8.plugin import header  # noqa: PLC0415

    tests = config.rootpath / "tests"
    claims = selection.named_claims(items, tests / "claims")
    if selection.selects_gpu(config.option.markexpr):
        selection.add_mark(claims, pytest.mark.gpu)
    run = "" if config.option.collectonly else te.engine().kind.value
    whole = selection.are_all(claims, tests / "claims")
    expectations.apply(tests / expectations.FILE_NAME, claims, te.version(), run, whole=whole)
    spared = selection.spared(items, config.option.mnist_fp8_spare)
    if config.option.mnist_fp8_json and hasattr(config, "workerinput"):
        header.write_of_worker(config.option.mnist_fp8_json, config.workerinput["workerid"], items, spared)
    if spared:
        config.hook.pytest_deselected(items=spared)
        left = set(items) - set(spared)
        items[:] = [item for item in items if item in left]
    # Those that take longest begin first, and side by side: else a worker ends with one of them, and the others wait.
    items.sort(key=lambda item: item.get_closest_marker("training_run") is None)


def pytest_collection_finish(session: pytest.Session) -> None:
    """All that stays until the end is there."""
    garbage.collect_seldom()
    if os.environ.get(model.VARIABLE):
        session.config.stash[JUDGE] = judge.functions()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose needs are not met, with what is needed and what was found."""
    from mnist_fp8.plugin import needs  # noqa: PLC0415

    reason = needs.first_unmet(item)
    if reason:
        pytest.skip(reason)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
    """How a test ends is for its marks and its assertions to say: not for the code that is judged."""
    refusal.count_excuse_as_failure(call)
    if JUDGE in item.config.stash:
        refusal.count_replaced_judge_as_failure(call, judge.replaced(item.config.stash[JUDGE]))


@pytest.hookimpl(wrapper=True)
def pytest_report_to_serializable() -> Generator[None, Any, Any]:
    """Whatever the text of an exception holds, it reaches the process that has the workers."""
    return encodable((yield))


@pytest.hookimpl(trylast=True)  # when the test has undone what it replaced
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Make room for the programs of the tests to come."""
    ended = item.config.stash[ENDED] = item.config.stash.get(ENDED, 0) + 1
    if ended % mappings.EVERY == 0:
        mappings.forget_programs()


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Name the subject: what runs, in which kind of run, with which versions."""
    if config.option.collectonly:
        return []
    from mnist_fp8.plugin import header  # noqa: PLC0415

    options = config.stash[LEFT_OUT]
    return [*header.lines(), *([f"left out of this run: {variables.assignments(options)}"] if options else [])]


def pytest_sessionstart(session: pytest.Session) -> None:
    """Write the header for programs that read it; of a run with workers, the process that has them does."""
    option = session.config.option
    if option.mnist_fp8_json and not option.collectonly and not hasattr(session.config, "workerinput"):
        from mnist_fp8.plugin import header  # noqa: PLC0415

        header.write(option.mnist_fp8_json)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A run in which every test was skipped has verified nothing: it may not look like success."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    stats = reporter.stats if reporter else {}
    if exitstatus == pytest.ExitCode.OK and stats.get("skipped") and not stats.get("passed"):
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED


def pytest_terminal_summary(terminalreporter: TerminalReporter) -> None:
    """Say what this run did not verify."""
    from mnist_fp8 import te  # noqa: PLC0415

    if terminalreporter.config.option.collectonly:
        return
    skipped = len(terminalreporter.stats.get("skipped", []))
    if skipped:
        terminalreporter.write_line(f"{skipped} tests were NOT VERIFIED; the reasons are above", yellow=True)
    terminalreporter.write_line(te.engine().description)
