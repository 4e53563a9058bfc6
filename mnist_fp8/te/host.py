"""Load Transformer Engine's own Python on a machine without CUDA: the host run.

The ``transformer-engine`` wheel is pure Python. Two things are missing without CUDA: the native module
``transformer_engine_jax`` (enums, device queries, workspace sizes, FFI registrations) and the shared libraries that
``transformer_engine.common`` loads. With its custom calls disabled, TE computes everything that a dense layer needs
in plain JAX, and asks the native module only for enums and for what the device can do.

What this module touches of TE, and nothing else, with the releases that need it (of 1.10 to 2.20):

==============================================  =======  ==============================================================
``sys.modules["transformer_engine_jax"]``       all      the stand-in below, for the life of the process; in 1.x also
                                                         under ``transformer_engine``
``NVTE_PROJECT_BUILDING=1``                     all      during the import, so that ``common`` loads no library
``transformer_engine.common``                   2.4 on   its ``load_framework_extension`` does nothing
``transformer_engine.jax``                      to 2.3   its own call of ``_load_library`` is left out of its source
``transformer_engine.pytorch``                  all      kept from being imported, which takes seconds where PyTorch is
``NVTE_JAX_CUSTOM_CALLS=false``                 2.6 on   for the life of the process: TE reads it whenever it is traced
``NVTE_JAX_CUSTOM_CALLS_RE='^$'``               to 2.5   the same, in words of those releases
==============================================  =======  ==============================================================

If the import fails, all of it is undone.
"""

import ast
import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import CodeType, ModuleType
from typing import Any, NoReturn

from mnist_fp8.core.capability import Capability


@dataclasses.dataclass
class Device:
    """The GPU that the host run pretends to have.

    Attributes:
        asked: the compute capability that was asked for, for all recipes; ``None`` leaves it to the recipe in force.
        capability: the one that Transformer Engine sees now.
    """

    asked: Capability | None = None
    capability: Capability = Capability.HOPPER


DEVICE = Device()
"""What the stand-in answers from; `pretended` changes it."""

_NATIVE = "transformer_engine_jax"
_NATIVE_NAMES = (_NATIVE, f"transformer_engine.{_NATIVE}")
CUSTOM_CALLS_OFF = {"NVTE_JAX_CUSTOM_CALLS": "false", "NVTE_JAX_CUSTOM_CALLS_RE": "^$"}
_ENUM_PREFIXES = ("NVTE_", "JAXX_", "DType", "QuantizeLayout")

# Versions as the libraries encode them: 13.0 of CUDA and cuBLASLt and 9.19 of cuDNN, none below what TE asks for.
_QUERIES: dict[str, Any] = {
    "get_cuda_version": 13000,
    "get_cublasLt_version": 130000,
    "get_cudnn_version": 91900,
    "get_num_compute_streams": 1,
    "get_grouped_gemm_setup_workspace_size": 0,
    "registrations": {},
}

# TE asks with hasattr() for these: absent means "built without expert parallelism".
_OPTIONAL = ("get_ep_instance_state_type_id", "get_ep_instance_state_type_info")


class NeedsCudaExtensionError(RuntimeError):
    """TE asked its native module to do something that only the CUDA extension can do."""


class _EnumMember(int):
    """A member of a stand-in enum: distinct, hashable, an integer because TE converts some members to one."""

    label: str

    @property
    def value(self) -> int:
        """The member as a number, as pybind11's members have it; TE's activations ask for it."""
        return int(self)

    def __repr__(self) -> str:
        return self.label


class _StandInEnum:
    """Stands for one of the extension's enums: any member asked for exists from then on."""

    def __init__(self, name: str) -> None:
        self.__name__ = name
        self._members: dict[str, _EnumMember] = {}

    def __getattr__(self, member: str) -> _EnumMember:
        if member.startswith("__"):
            raise AttributeError(member)
        if member not in self._members:
            created = _EnumMember(len(self._members))
            created.label = f"{self.__name__}.{member}"
            self._members[member] = created
        return self._members[member]

    def __call__(self, number: int) -> _EnumMember:
        """The member of a number, as pybind11's enums give it; TE asks for a layout so."""
        return next(member for member in self._members.values() if member == number)


class StandInModule(ModuleType):
    """Stands for ``transformer_engine_jax``: answers what the device can do and computes nothing."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - an enum or a function
        if name.startswith("__") or name in _OPTIONAL:
            raise AttributeError(name)
        if name.startswith(_ENUM_PREFIXES):
            value: Any = _StandInEnum(name)
        elif name in _QUERIES:
            value = _constant(_QUERIES[name])
        elif name == "get_device_compute_capability":
            value = _capability
        elif name == "get_fused_attn_backend":
            value = functools.partial(_no_fused_attention, self)
        else:
            value = _refusal(name)
        setattr(self, name, value)
        return value


def _no_fused_attention(native: StandInModule, *question: object) -> object:
    """What TE gets to know when it asks for an attention kernel: there is none, so that it takes its JAX path.

    Since 2.20 the question is one object, and the answer has a message with it.
    """
    backend = native.NVTE_Fused_Attn_Backend.NVTE_No_Backend
    return (backend, "this is a host run") if len(question) == 1 else backend


def _capability(*_args: object, **_kwargs: object) -> int:
    return int(DEVICE.capability)


def _constant(answer: object) -> Callable[..., object]:
    return lambda *_args, **_kwargs: answer


def _refusal(name: str) -> Callable[..., NoReturn]:
    def refuse(*_args: object, **_kwargs: object) -> NoReturn:
        message = f"transformer_engine_jax.{name} needs Transformer Engine's CUDA extension; this is a host run"
        raise NeedsCudaExtensionError(message)

    return refuse


def load() -> ModuleType:
    """Import ``transformer_engine.jax`` without CUDA and return it.

    Raises:
        ImportError: there is no ``transformer_engine``, or its Python does not import.
    """
    spec = importlib.util.find_spec("transformer_engine")
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError("No module named 'transformer_engine'", name="transformer_engine")
    with _undone_on_error():
        sys.modules.update(dict.fromkeys(_NATIVE_NAMES, StandInModule(_NATIVE)))
        os.environ.update(CUSTOM_CALLS_OFF)
        # The package's own __init__ imports .jax, so `common` has to be prepared before __init__ runs.
        package = importlib.util.module_from_spec(spec)
        sys.modules["transformer_engine"] = package
        with _project_building():
            common = importlib.import_module("transformer_engine.common")
            with _nothing_loaded_by(common):
                spec.loader.exec_module(package)
                # __init__ swallows an ImportError of .jax; asking again raises it.
                return importlib.import_module("transformer_engine.jax")


@contextlib.contextmanager
def _nothing_loaded_by(common: ModuleType) -> Iterator[None]:
    """Keep TE from loading its extension, wherever the release does that."""
    if hasattr(common, "load_framework_extension"):
        vars(common)["load_framework_extension"] = lambda _framework: None
        yield
        return
    sys.meta_path.insert(0, _JaxFinder)
    try:
        yield
    finally:
        sys.meta_path.remove(_JaxFinder)


class _JaxFinder:
    """Finds ``transformer_engine.jax``, to be executed without its call of ``_load_library``."""

    @staticmethod
    def find_spec(name: str, path: Sequence[str] | None, _target: ModuleType | None = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path) if name == "transformer_engine.jax" else None
        if spec is not None and spec.origin is not None:
            spec.loader = _WithoutLibrary(name, spec.origin)
        return spec


class _WithoutLibrary(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        """Compile the source without the statements that call ``_load_library``; nothing is cached."""
        path = self.get_filename(fullname)
        tree = ast.parse(self.get_data(path), path)
        tree.body = [statement for statement in tree.body if not _calls_load_library(statement)]
        return compile(tree, path, "exec", dont_inherit=True)


def _calls_load_library(statement: ast.stmt) -> bool:
    value = statement.value if isinstance(statement, (ast.Assign, ast.Expr)) else None
    return isinstance(value, ast.Call) and ast.unparse(value.func) == "_load_library"


@contextlib.contextmanager
def without_pytorch() -> Iterator[None]:
    """Keep TE from importing its PyTorch side, which it tries to where PyTorch is installed."""
    name = "transformer_engine.pytorch"
    if name in sys.modules:
        yield
        return
    vars(sys)["modules"][name] = None  # what makes an import fail as if there was no such module
    try:
        yield
    finally:
        sys.modules.pop(name, None)


@contextlib.contextmanager
def _project_building() -> Iterator[None]:
    before = {name: os.environ.pop(name, None) for name in ("NVTE_PROJECT_BUILDING", "NVTE_RELEASE_BUILD")}
    os.environ["NVTE_PROJECT_BUILDING"] = "1"
    try:
        yield
    finally:
        _restore_environment(before)


@contextlib.contextmanager
def _undone_on_error() -> Iterator[None]:
    modules = set(sys.modules)
    before = {name: os.environ.get(name) for name in CUSTOM_CALLS_OFF}
    try:
        yield
    except BaseException:
        for name in set(sys.modules) - modules:
            if name == _NATIVE or name.split(".")[0] == "transformer_engine":
                del sys.modules[name]
        _restore_environment(before)
        raise


def _restore_environment(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
