"""What an import does to its process: each thing is seen, and nothing is where there is nothing.

The packages that do something are small ones made here; that each kind of thing is seen in the real one as well, is
proven by faults (`proofs.faults`).
"""

import functools
import json
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnist_fp8.measure import imports
from mnist_fp8.te import process_state
from support.packages import package
from support.subprocesses import run_code, run_python

pytestmark = pytest.mark.host

COMMON = "import packaging\n\n\ndef load_framework_extension(framework):\n    pass\n"
QUIET = "import jax\n"
LOUD = """
import atexit, builtins, gc, importlib, logging, os, random, signal, socket, sys, threading, warnings
import flax.linen as nn
import jax
import numpy as np
from jax.interpreters import mlir

warnings.filterwarnings("ignore", "a message", DeprecationWarning)
warnings.filterwarnings("ignore", module="transformer_engine.jax")  # its own
logging.getLogger("transformer_engine.jax").setLevel(10)  # its own
logging.getLogger("jax").addHandler(logging.NullHandler())
logging.disable(40)
jax.config.update("jax_enable_x64", True)
os.environ["XLA_FLAGS"] = "--a"
os.environ["TE_HOME"] = os.path.dirname(__file__)
os.environ.pop("JAX_PLATFORMS")
signal.signal(signal.SIGTERM, signal.SIG_IGN)
threading.Thread(target=threading.Event().wait, name="telemetry", daemon=True).start()
sys.path.append("/nowhere")
sys.setrecursionlimit(5000)
sys.excepthook = print
sys.tracebacklimit = 0
socket.setdefaulttimeout(7)
random.seed(7)
np.seterr(all="ignore")
gc.disable()
importlib.import_module("hypothesis")
print("welcome")
os.write(2, b"past Python")
atexit.register(print, "goodbye")


def call(self, x):
    return x


nn.Dense.__call__ = call
nn.Module.to_fp8 = call
nn.BatchNorm.momentum = 0.5
jax.numpy.dot.__wrapped__.__kwdefaults__ = {}
mlir._lowerings[jax.lax.exp2_p] = call
"""


@functools.cache
def entries(jax_side: str) -> Mapping[str, Any]:
    """What the import of a small Transformer Engine does, as plain data without costs."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "effects.json"
        files = {"__init__.py": "from . import jax", "common/__init__.py": COMMON, "common/recipe.py": ""}
        folder = package(Path(scratch) / "site", files | {"jax/__init__.py": jax_side}).parent
        variables = {"MNIST_FP8_TE": "host", "JAX_PLATFORMS": "cpu"}
        run_python("-m", "mnist_fp8.te.importing", str(file), first_on_path=folder, variables=variables)
        document: Mapping[str, Any] = json.loads(file.read_text())
    assert {key for key in document if key.startswith("costs/")} == {"costs/import/time", "costs/import/memory"}
    return {key: value for key, value in document.items() if not key.startswith("costs/")}


def test_import_that_does_nothing_leaves_no_trace_but_its_packages() -> None:
    assert entries(QUIET) == {
        "import/packages/jax": {"kind": "imported", "declared": True},
        # There are no metadata beside this package.
        "import/packages/packaging": {"kind": "imported", "declared": None},
    }


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("warning filters/ignore DeprecationWarning a message", "in force"),
        ("logging/jax", "level 0, NullHandler of level 0"),
        ("logging/disabled up to level", "40"),
        ("JAX configuration/jax_enable_x64", "True"),
        ("environment variables/XLA_FLAGS", "--a"),
        ("environment variables/TE_HOME", "(site-packages)/transformer_engine/jax"),
        ("environment variables/JAX_PLATFORMS", "gone"),
        ("signal handlers/SIGTERM", "SIG_IGN"),
        ("threads/telemetry", "runs"),
        ("import system/sys.path /nowhere", "there"),
        ("exit handlers/number", None),
        ("settings/recursion limit", "5000"),
        ("settings/time limit of sockets", "7.0"),
        ("settings/random", None),
        ("settings/numpy errors", "{'divide': 'ignore', 'over': 'ignore', 'under': 'ignore', 'invalid': 'ignore'}"),
        ("settings/garbage collection", None),
        ("output/stdout", "welcome"),
        ("output/stderr", "past Python"),
        ("libraries/flax.linen.linear.Dense.__call__", "transformer_engine.jax.call"),
        ("libraries/flax.linen.module.Module.to_fp8", "transformer_engine.jax.call"),
        ("libraries/flax.linen.normalization.BatchNorm.momentum", "0.5"),
        ("libraries/jax._src.interpreters.mlir._lowerings[exp2]", "transformer_engine.jax.call"),
        ("libraries/sys.excepthook", "builtins.print"),
        ("libraries/sys.tracebacklimit", "0"),
    ],
)
def test_what_an_import_does_is_named(name: str, text: str | None) -> None:
    found = entries(LOUD)[f"import/{name}"]
    assert found["kind"] == "text"
    assert text is None or found["text"] == text


def test_ignored_signals_are_seen_where_a_shell_ignores_them_as_well() -> None:
    """As it has its background jobs do; a process inherits that."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        found = entries(f"{QUIET}\nimport signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n")
    finally:
        signal.signal(signal.SIGINT, before)
    assert found["import/signal handlers/SIGINT"] == {"kind": "text", "text": "SIG_IGN"}


def test_package_that_is_loaded_by_its_name_is_seen_and_not_what_those_need_that_are_named() -> None:
    names = {key.removeprefix("import/packages/") for key in entries(LOUD) if key.startswith("import/packages/")}
    assert names == {"flax", "jax", "numpy", "packaging", "hypothesis", "sortedcontainers"}, "Flax needs msgpack"


def test_what_concerns_itself_alone_is_not_counted() -> None:
    assert not [key for key in entries(LOUD) if "transformer_engine" in key.partition("/")[2]]


def test_function_that_is_changed_in_place_is_seen() -> None:
    def function(x: int = 1) -> int:
        return x

    before = {process_state.LIBRARIES: dict(process_state._of_attribute("f", "f", function))}
    function.__defaults__ = (2,)
    after = {process_state.LIBRARIES: dict(process_state._of_attribute("f", "f", function))}
    ((kind, name, now),) = process_state.changes(before, after)
    assert (kind, name) == ("libraries", "f")
    assert now.endswith("function")


def test_tables_of_numbers_are_compared_without_asking_whether_they_are_true() -> None:
    before, after = ({"settings": {"x": (np.zeros(2), size)}} for size in (1, 1))
    assert [name for _, name, _ in process_state.changes(before, after)] == ["x"], "other arrays are others"
    assert not list(process_state.changes(before, before)), "Control"


def test_looking_changes_nothing_and_does_not_start_jax() -> None:
    code = """
        from mnist_fp8.te.process_state import changes, state
        before = state()
        after = state()
        print(after["JAX"], list(changes(before, after)))
    """
    assert run_code(code).strip() == "{'has started': False} []"


# --- the process that measures -------------------------------------------------------------------------------------


def ended(monkeypatch: pytest.MonkeyPatch, code: str) -> Mapping[str, Any]:
    """What is measured if the process runs this code, whose ``file`` is where its entries belong."""
    program = f"import sys; file = sys.argv[-1]\n{code}"
    run = subprocess.run

    def instead(command: list[str], **options: Any) -> Any:
        return run([command[0], "-c", program, command[-1]], **options)

    monkeypatch.setattr(subprocess, "run", instead)
    return imports.effects()


WRITES = 'open(file, "w").write("{}")\n'


def test_exit_code_and_last_words_of_the_process_are_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    found = ended(monkeypatch, f'{WRITES}print("bye"); sys.exit(3)')
    assert {key: value.text for key, value in found.items()} == {
        "import/end/exit code": "3",
        "import/end/output": "bye",
    }


def test_process_that_says_nothing_is_an_error_in_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RuntimeError, match=r"^ValueError: no libfoo$"):
        ended(monkeypatch, 'raise ValueError("no libfoo")')


def test_process_that_was_ended_from_outside_ends_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    signals: list[int] = []
    monkeypatch.setattr(os, "kill", lambda _pid, number: signals.append(number))
    ended(monkeypatch, f"{WRITES}import os; os.kill(os.getpid(), 15)")
    assert signals == [15]
