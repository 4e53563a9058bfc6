"""Names read from source, against what Python makes of the installed Transformer Engine when it imports it."""

import enum
import functools
import importlib
import inspect
import operator
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest

from mnist_fp8.gate.names.reading import read_names
from mnist_fp8.record.names import Definition, Names
from mnist_fp8.te import engine
from support.packages import installed

KINDS = {
    inspect.Parameter.POSITIONAL_ONLY: "positional",
    inspect.Parameter.POSITIONAL_OR_KEYWORD: "either",
    inspect.Parameter.KEYWORD_ONLY: "keyword",
    inspect.Parameter.VAR_POSITIONAL: "*",
    inspect.Parameter.VAR_KEYWORD: "**",
}
REPLACED = "transformer_engine.common.load_framework_extension"
"""What a host run replaces when it loads Transformer Engine."""


@pytest.fixture(scope="module")
def names() -> Names:
    return read_names(installed())


@pytest.fixture(scope="module")
def imported(names: Names) -> dict[str, ModuleType]:
    """The modules that can be imported here: all but the build's own, and Triton's where that is not installed."""
    engine()
    left_out = set()
    for path, definition in names.definitions.items():
        if definition.signature.what == "module" and path.startswith("transformer_engine.jax."):
            try:
                importlib.import_module(path)
            except ImportError:
                left_out.add(path)
    assert {path for path in left_out if ".triton_extensions" not in path} == {"transformer_engine.jax.setup"}
    found = {path: module for path, module in sys.modules.items() if path in names.definitions}
    assert len(found) > 40
    return found


def objects(names: Names, imported: dict[str, ModuleType], *what: str) -> Iterator[tuple[str, Definition, object]]:
    """What was read of the imported modules, with what it is."""
    for path, definition in names.definitions.items():
        module = next((above for above in prefixes(path) if above in names.definitions and is_module(names, above)), "")
        if definition.signature.what in what and module in imported and path != REPLACED:
            attribute = path.removeprefix(f"{module}.")
            yield path, definition, operator.attrgetter(attribute)(imported[module])


def prefixes(path: str) -> list[str]:
    parts = path.split(".")
    return [".".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]


def is_module(names: Names, path: str) -> bool:
    return names.definitions[path].signature.what == "module"


def test_every_name_of_a_module_is_read(names: Names, imported: dict[str, ModuleType]) -> None:
    paths = [f"{path}.{name}" for path, module in imported.items() for name in vars(module)]
    assert len(paths) > 1500
    assert [path for path in paths if names.find(path) is None] == []


def test_every_name_of_a_class_is_read(names: Names, imported: dict[str, ModuleType]) -> None:
    paths = [
        f"{path}.{name}"
        for path, _, cls in objects(names, imported, "class")
        for name in dir(cls)
        if not name.startswith("__") and name != "_abc_impl"  # of Python, pydantic and the metaclass
    ]
    assert len(paths) > 1500
    assert [path for path in paths if names.find(path) is None] == []


def test_every_name_that_is_read_is_there(names: Names, imported: dict[str, ModuleType]) -> None:
    within = [path for path, target in names.aliases.items() if target.startswith("transformer_engine.")]
    bound = [*names.definitions, *within]
    unsure = {path for path, definition in names.definitions.items() if definition.is_conditional} | {*names.unread}
    found = [path for path in bound if path.rpartition(".")[0] in imported and path not in unsure]
    assert len(found) > 1000
    parts = [(imported[module], name) for module, _, name in (path.rpartition(".") for path in found)]
    submodules = {path for path in names.definitions if is_module(names, path)}
    missing = {f"{module.__name__}.{name}" for module, name in parts if not hasattr(module, name)}
    assert missing <= submodules - imported.keys()


def test_signature_is_the_one_that_python_has(names: Names, imported: dict[str, ModuleType]) -> None:
    different, compared = {}, 0
    for path, definition, thing in objects(names, imported, "function", "class", "method"):
        # An enumeration takes what makes a new one, too; and Triton, where it is, makes kernels of functions.
        if isinstance(thing, enum.EnumMeta) or ".triton" in path:
            continue
        assert callable(thing)
        parameters = [*inspect.signature(thing).parameters.values()]
        if definition.signature.what == "method" and not is_bound(path, thing, names, imported):
            parameters = parameters[1:]
        expected = [(each.name, KINDS[each.kind], each.default is each.empty) for each in parameters]
        read = [(each.name, each.kind, each.default is None) for each in definition.signature.parameters]
        compared += 1
        if read != expected:
            different[path] = (read, expected)
    assert compared > 900
    assert different == {}


def is_bound(path: str, thing: object, names: Names, imported: dict[str, ModuleType]) -> bool:
    """Whether a method is reached through its class without an instance."""
    if inspect.ismethod(thing):
        return True
    owner, _, name = path.rpartition(".")
    module = next(above for above in prefixes(path) if is_module(names, above))
    cls = functools.reduce(getattr, owner.removeprefix(f"{module}.").split("."), imported[module])
    return isinstance(inspect.getattr_static(cls, name), staticmethod)


def test_base_classes_and_members_are_those_that_python_has(names: Names, imported: dict[str, ModuleType]) -> None:
    enumerations = 0
    for path, _, cls in objects(names, imported, "class"):
        assert isinstance(cls, type)
        bases = [f"{base.__module__}.{base.__qualname__}" for base in cls.__mro__]
        own = [base for base in names.mro(path) if base in names.definitions]
        assert own == [base for base in bases if base.startswith("transformer_engine.")]
        if isinstance(cls, enum.EnumMeta):
            members = [name for name in cls.__members__ if f"{path}.{name}" in names.definitions]
            assert members == list(cls.__members__), path
            kinds = {names.definitions[f"{path}.{name}"].signature.what for name in members}
            assert kinds <= {"member"}
            enumerations += 1
    assert enumerations > 10
