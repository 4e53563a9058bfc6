"""The source of a Transformer Engine as griffe reads it."""

import platform
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypeGuard, cast

import griffe

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.gate.names.notes import Notes
from mnist_fp8.record.names import PACKAGE

Named: TypeAlias = griffe.Object | griffe.Alias
Expression: TypeAlias = griffe.Expr | str | None

_READ = ("jax", "common")
"""Folders of the package that belong to Transformer Engine for JAX."""
_UNREADABLE = (
    f"cannot be read by Python {platform.python_version()}; "
    "run mnist-fp8 with the Python that this Transformer Engine is made for"
)


def load(package: Path) -> tuple[griffe.Module, Notes]:
    """Read a Transformer Engine for JAX.

    Args:
        package: the folder ``transformer_engine``.

    Raises:
        ConfigError: the folder holds no Transformer Engine for JAX, or its ``__init__.py`` cannot be read.
    """
    package = package.absolute()
    if package.name != PACKAGE or not (package / "jax" / "__init__.py").is_file():
        raise ConfigError(
            f"{package} is no Transformer Engine for JAX; expected a folder {PACKAGE} with jax/__init__.py in it"
        )
    notes = Notes()
    # Without griffe's own extension, which gives constructors to some dataclasses and not to others.
    loader = griffe.GriffeLoader(allow_inspection=False, store_source=False, extensions=griffe.Extensions(notes))
    loader.finder = _Finder([package.parent])
    try:
        with griffe.logger.disable(), warnings.catch_warnings(action="ignore"):  # of what its authors should mend
            root = cast("griffe.Module", loader.load(PACKAGE, try_relative_path=False))
    except griffe.LoadingError as error:
        raise ConfigError(f"{package / '__init__.py'} {_UNREADABLE}") from error
    notes.unread |= {f"{PACKAGE}.{name}": "no part of Transformer Engine for JAX" for name in sorted(_others(package))}
    for parts, _path in loader.finder.submodules(root):
        if unread := _passed_over(root, package, parts):
            notes.unread[unread] = _UNREADABLE
    return root, notes


class _Finder(griffe.ModuleFinder):
    """Finds no modules of other frameworks."""

    def submodules(self, module: griffe.Module) -> list[tuple[tuple[str, ...], Path]]:
        return [(parts, path) for parts, path in super().submodules(module) if parts[0] in _READ]


def _others(package: Path) -> set[str]:
    """Modules beside those that are read."""
    found = {
        path.name.partition(".")[0] for path in package.iterdir() if path.suffix in (".py", ".so") or path.is_dir()
    }
    return found - {*_READ, "__init__", "__pycache__"}


def _passed_over(root: griffe.Module, folder: Path, parts: Sequence[str]) -> str:
    """The path of a module that griffe left out since it could not read it: its names would seem to be gone."""
    module = root
    for part in parts:
        if part not in modules(module):
            is_module = (folder / f"{part}.py").is_file() or (folder / part / "__init__.py").is_file()
            return f"{module.path}.{part}" if is_module else ""
        module, folder = modules(module)[part], folder / part
    return ""


def modules(module: griffe.Module) -> Mapping[str, griffe.Module]:
    """The modules that lie in a package; not those that it imports."""
    return {name: member for name, member in module.members.items() if is_module(member)}


def is_import(named: Named) -> TypeGuard[griffe.Alias]:
    """Whether it is imported."""
    return named.is_alias


def is_module(named: Named) -> TypeGuard[griffe.Module]:
    """Whether it is a module itself, and not one that is imported."""
    return not named.is_alias and named.is_module


def is_class(named: Named) -> TypeGuard[griffe.Class]:
    """Whether it is a class itself."""
    return not named.is_alias and named.is_class


def is_function(named: Named) -> TypeGuard[griffe.Function]:
    """Whether it is a function or method itself."""
    return not named.is_alias and named.is_function


def is_attribute(named: Named) -> TypeGuard[griffe.Attribute]:
    """Whether it is a variable, a field or a property itself."""
    return not named.is_alias and named.is_attribute
