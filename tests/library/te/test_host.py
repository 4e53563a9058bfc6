"""The stand-in for TE's native module, and that loading leaves nothing behind when it fails.

Loading is tried on small packages made here, in processes of their own: this process has loaded the real one.
"""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from mnist_fp8.te import host
from mnist_fp8.te.host import NeedsCudaExtensionError, StandInModule
from support.subprocesses import run_code


@pytest.fixture
def stand_in() -> Any:
    """A new stand-in module."""
    return StandInModule("transformer_engine_jax")


@pytest.mark.parametrize("enum", ["NVTE_Activation_Type", "JAXX_Scaling_Mode", "DType"])
def test_members_of_an_enum_are_distinct_hashable_integers(stand_in: Any, enum: str) -> None:
    members = [getattr(getattr(stand_in, enum), name) for name in ("First", "Second", "Third")]
    assert len(set(members)) == 3
    assert [int(member) for member in members] == [0, 1, 2]
    assert [repr(member) for member in members] == [f"{enum}.First", f"{enum}.Second", f"{enum}.Third"]


def test_member_stays_the_same(stand_in: Any) -> None:
    """TE compares members and uses them as keys."""
    first = stand_in.DType.kFloat32
    assert stand_in.DType.kBFloat16 != first
    assert stand_in.DType.kFloat32 is first
    assert stand_in.DType is stand_in.DType


def test_enum_gives_the_member_of_a_number(stand_in: Any) -> None:
    first, second = stand_in.DType.kFloat32, stand_in.DType.kBFloat16
    assert stand_in.DType(0) is first
    assert stand_in.DType(1) is second


def test_enum_has_no_special_attributes(stand_in: Any) -> None:
    """``copy``, ``inspect`` and the like look for them, and would take a number for an answer."""
    assert not hasattr(stand_in.DType, "__members__")
    assert not hasattr(stand_in, "__path__")


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("get_device_compute_capability", 90),
        ("get_num_compute_streams", 1),
        ("registrations", {}),
        ("get_grouped_gemm_setup_workspace_size", 0),
    ],
)
def test_query_is_answered_whatever_its_arguments(stand_in: Any, query: str, answer: object) -> None:
    assert getattr(stand_in, query)() == getattr(stand_in, query)(0, device=1) == answer


def test_no_attention_is_fused(stand_in: Any) -> None:
    """Since 2.20 the question is one object, and the answer has a message."""
    none = stand_in.NVTE_Fused_Attn_Backend.NVTE_No_Backend
    assert stand_in.get_fused_attn_backend("bfloat16", "bfloat16", "bs3hd") == none
    assert stand_in.get_fused_attn_backend(object()) == (none, "this is a host run")


def test_member_of_an_enum_has_its_number_as_value(stand_in: Any) -> None:
    member = stand_in.NVTE_Mask_Type.NVTE_NO_MASK
    assert member.value == int(member)


@pytest.mark.parametrize("name", ["gemm_workspace", "get_fused_attn_fwd_workspace_sizes"])
def test_anything_else_refuses_by_its_name_when_called(stand_in: Any, name: str) -> None:
    refusal = getattr(stand_in, name)
    with pytest.raises(NeedsCudaExtensionError) as error:
        refusal(1, key=2)
    assert str(error.value) == (
        f"transformer_engine_jax.{name} needs Transformer Engine's CUDA extension; this is a host run"
    )


def test_expert_parallelism_is_absent(stand_in: Any) -> None:
    assert not hasattr(stand_in, "get_ep_instance_state_type_id")
    assert hasattr(stand_in, "get_something_else"), "Control: other names are there"


# --- loading -------------------------------------------------------------------------------------------------------

REPORT = """
    import json, os, sys
    from mnist_fp8.te import host
    before = dict(os.environ)
    try:
        host.load()
        error = None
    except BaseException as caught:
        error = f"{type(caught).__name__}: {caught}"
    print(json.dumps({
        "error": error,
        "modules": sorted(name for name in sys.modules if name.startswith("transformer_engine")),
        "changed": {name: os.environ.get(name) for name in {**before, **os.environ}
                    if before.get(name) != os.environ.get(name)},
    }))
"""

COMMON = """
import os
assert os.environ["NVTE_PROJECT_BUILDING"] == "1", "libraries would be loaded"
assert "NVTE_RELEASE_BUILD" not in os.environ
assert os.environ["NVTE_JAX_CUSTOM_CALLS"] == "false"
def load_framework_extension(framework):
    raise RuntimeError("the real one was called")
"""

INIT = """
from transformer_engine import common
common.load_framework_extension("jax")
try:
    from transformer_engine import jax
except ImportError:
    pass
"""

JAX = """
from transformer_engine.common import load_framework_extension
load_framework_extension("jax")
import transformer_engine_jax
assert transformer_engine_jax.get_device_compute_capability(0) == 90
"""


def package(folder: Path, jax: str = JAX, common: str = COMMON, init: str = INIT) -> Path:
    """Write a small ``transformer_engine`` that behaves like the real one while it is imported."""
    for name, code in {"__init__.py": init, "common/__init__.py": common, "jax/__init__.py": jax}.items():
        path = folder / "transformer_engine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    return folder


def report(folder: Path, **variables: str) -> dict[str, Any]:
    """Load that package: the error, TE's modules afterwards and the environment variables that changed."""
    found: dict[str, Any] = json.loads(run_code(REPORT, first_on_path=folder, variables=variables))
    return found


VARIABLES = {
    "NVTE_JAX_CUSTOM_CALLS": "before",
    "NVTE_JAX_CUSTOM_CALLS_RE": "before",
    "NVTE_PROJECT_BUILDING": "0",
    "NVTE_RELEASE_BUILD": "1",
}


def test_package_loads_with_the_stand_in(tmp_path: Path) -> None:
    found = report(package(tmp_path), **VARIABLES)
    assert found["error"] is None
    te = "transformer_engine"
    assert set(found["modules"]) == {te, f"{te}.common", f"{te}.jax", f"{te}_jax", f"{te}.{te}_jax"}
    assert found["changed"] == {"NVTE_JAX_CUSTOM_CALLS": "false", "NVTE_JAX_CUSTOM_CALLS_RE": "^$"}


OLD_COMMON = """
def is_package_installed(name):
    raise RuntimeError("pip would be asked, which takes seconds")
"""
OLD_INIT = """
import transformer_engine.common
try:
    from . import jax
except (ImportError, StopIteration):
    pass
"""
OLD_JAX = """
from transformer_engine.common import is_package_installed
def _load_library():
    is_package_installed("transformer_engine_jax")
    raise StopIteration("there is no such file")
{call}
from transformer_engine.transformer_engine_jax import DType, get_device_compute_capability
assert get_device_compute_capability(0) == 90
"""


@pytest.mark.parametrize("call", ["_load_library()", "_LIBRARY = _load_library()"], ids=["2.1 to 2.3", "1.x"])
def test_package_that_looks_for_its_extension_itself_loads_without(tmp_path: Path, call: str) -> None:
    """Releases up to 2.3."""
    folder = package(tmp_path, jax=OLD_JAX.format(call=call), common=OLD_COMMON, init=OLD_INIT)
    found = report(folder, **VARIABLES)
    assert found["error"] is None
    assert "transformer_engine.jax" in found["modules"]
    assert not list(folder.rglob("jax/__pycache__")), "the source without its call may not be kept as the real one"


def test_other_statements_of_such_a_package_still_count(tmp_path: Path) -> None:
    # Control.
    broken = OLD_JAX.format(call="_load_library") + "raise ValueError('executed')"
    found = report(package(tmp_path, jax=broken, common=OLD_COMMON, init=OLD_INIT), **VARIABLES)
    assert found == {"error": "ValueError: executed", "modules": [], "changed": {}}


def test_package_loads_in_an_empty_environment(tmp_path: Path) -> None:
    names = "NVTE_JAX_CUSTOM_CALLS", "NVTE_PROJECT_BUILDING", "NVTE_RELEASE_BUILD"
    unset = "import os\n" + "".join(f"os.environ.pop({name!r}, None)\n" for name in names)
    code = f"{unset}from mnist_fp8.te import host\nhost.load()\nprint([os.environ.get(name) for name in {names!r}])"
    assert run_code(code, first_on_path=package(tmp_path)).strip() == "['false', None, None]"


@pytest.mark.parametrize(
    ("parts", "error"),
    [
        ({"jax": "import no_such_module"}, "ModuleNotFoundError: No module named 'no_such_module'"),
        ({"jax": "raise ValueError('wrong enum')"}, "ValueError: wrong enum"),
        ({"common": "raise KeyboardInterrupt"}, "KeyboardInterrupt: "),
        ({"init": "raise RuntimeError('broken')"}, "RuntimeError: broken"),
    ],
    ids=["missing dependency", "error in jax", "Ctrl-C in common", "error in the package"],
)
def test_failing_import_leaves_neither_modules_nor_variables(tmp_path: Path, parts: dict[str, str], error: str) -> None:
    found = report(package(tmp_path, **parts), **VARIABLES)
    assert found == {"error": error, "modules": [], "changed": {}}


def test_missing_package_is_said_to_be_missing() -> None:
    code = """
        import importlib.util
        importlib.util.find_spec = lambda name: None
        from mnist_fp8.te import host
        try:
            host.load()
        except ModuleNotFoundError as error:
            print(error)
    """
    assert run_code(code).strip() == "No module named 'transformer_engine'"


def test_pytorch_side_is_kept_out_while_transformer_engine_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "transformer_engine.pytorch"
    monkeypatch.delitem(sys.modules, name, raising=False)
    with host.without_pytorch():
        assert sys.modules[name] is None, "an import of it would fail as if it was not installed"
    assert name not in sys.modules


def test_pytorch_side_that_is_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("transformer_engine.pytorch")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    with host.without_pytorch():
        pass
    assert sys.modules[module.__name__] is module


def test_broken_package_is_one_line_for_the_person_who_asked(tmp_path: Path) -> None:
    code = """
        import sys
        from mnist_fp8.cli.main import main
        sys.stderr = sys.stdout
        print(main(["train", "--use-te", "--output", "nowhere"]))
    """
    broken = package(tmp_path, jax="raise ImportError('a broken\\n transformer_engine')")
    variables = {"JAX_PLATFORMS": "cpu", "MNIST_FP8_TE": ""}
    lines = run_code(code, cwd=tmp_path, first_on_path=broken, variables=variables).splitlines()
    assert lines == [
        "mnist-fp8: error: Transformer Engine does not import (host run): ImportError: a broken transformer_engine",
        "2",
    ]
