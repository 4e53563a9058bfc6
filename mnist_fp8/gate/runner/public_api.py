"""The public names of a Transformer Engine and their signatures, read from its source by griffe: nothing is imported.

Public is what users of Transformer Engine for JAX import:

- modules: ``transformer_engine.jax``, those directly under it that are not its machinery,
  ``transformer_engine.common.recipe``, and modules that a public one names in its ``__all__``;
- in a module: the names in ``__all__``; without one, what it defines. A package without ``__all__`` also exports what
  it takes from other modules of Transformer Engine. A name with a leading underscore never is;
- in a class: methods, ``__call__``, properties and class attributes, such as the members of an enumeration, inherited
  ones too: they stay public if a release moves them to another base class.

A name that comes from another distribution is an attribute; its value is the path that it comes from. A name that is
set to another name (``dense = tex.dense``) is what that one is.
"""

import platform
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeGuard, cast

from mnist_fp8.core.errors import ConfigError
from mnist_fp8.record.entries import VARIADIC, Parameter, Signature

if TYPE_CHECKING:
    import griffe

    Named: TypeAlias = griffe.Object | griffe.Alias
    Expression: TypeAlias = griffe.Expr | str | None

_PACKAGE = "transformer_engine"
_MACHINERY = {"cpp_extensions", "triton_extensions", "setup", "version_utils", "util", "utils"}
"""Modules under ``transformer_engine.jax`` that users do not import."""
_MAKE_FIELDS = {"Module", "BaseLayer", "NamedTuple"}
"""Base classes (Flax's, Praxis', typing's) whose subclasses have fields without being decorated."""
_KINDS = {
    "positional-only": "positional",
    "keyword-only": "keyword",
    "positional or keyword": "either",
    "variadic positional": "*",
    "variadic keyword": "**",
}
"""Kinds of a parameter, by griffe's words for them."""


def public_api(package: Path) -> dict[str, Signature]:
    """The public names of a Transformer Engine for JAX.

    Args:
        package: the folder ``transformer_engine``.

    Returns:
        The signature of each name by its dotted path, sorted.

    Raises:
        ConfigError: the folder holds no Transformer Engine for JAX, or source that this Python cannot read.
    """
    package = package.absolute()
    if package.name != _PACKAGE or not (package / "jax" / "__init__.py").is_file():
        raise ConfigError(
            f"{package} is no Transformer Engine for JAX; expected a folder {_PACKAGE} with jax/__init__.py in it"
        )
    names = _public_names(_load(package))
    found = {path: _signature(named) for path, named in names.items()}
    for path, named in names.items():
        if _is_class(named):
            found |= {f"{path}.{name}": signature for name, signature in _members(named).items()}
    return dict(sorted(found.items()))


def _load(package: Path) -> "griffe.Module":
    """Transformer Engine as griffe reads it, without other frameworks."""
    import griffe  # noqa: PLC0415 - two signatures are compared without it

    class Finder(griffe.ModuleFinder):
        def submodules(self, module: griffe.Module) -> list[tuple[tuple[str, ...], Path]]:
            return [(parts, path) for parts, path in super().submodules(module) if _is_read(parts)]

    # Without griffe's own extension, which gives constructors to some dataclasses and not to others.
    loader = griffe.GriffeLoader(allow_inspection=False, store_source=False, extensions=griffe.Extensions())
    loader.finder = Finder([package.parent])
    try:
        with griffe.logger.disable(), warnings.catch_warnings(action="ignore"):  # of what its authors should mend
            root = cast("griffe.Module", loader.load(_PACKAGE, try_relative_path=False))
    except griffe.LoadingError as error:
        raise _unreadable(package / "__init__.py") from error
    for parts, path in loader.finder.submodules(root):
        if _is_passed_over(root, package, parts):
            raise _unreadable(path)
    return root


def _is_read(parts: Sequence[str]) -> bool:
    return parts[0] == "jax" or tuple(parts) == ("common",) or tuple(parts[:2]) == ("common", "recipe")


def _is_passed_over(root: "griffe.Module", folder: Path, parts: Sequence[str]) -> bool:
    """Whether griffe left out a module that it could not read: its names would seem to be gone."""
    modules = _modules(root)
    for part in parts:
        if part not in modules:
            return (folder / f"{part}.py").is_file() or (folder / part / "__init__.py").is_file()
        modules, folder = _modules(modules[part]), folder / part
    return False


def _unreadable(path: Path) -> ConfigError:
    return ConfigError(
        f"{path} cannot be read by Python {platform.python_version()}; "
        "run mnist-fp8 with the Python that this Transformer Engine is made for"
    )


def _is_import(named: "Named") -> "TypeGuard[griffe.Alias]":
    return named.is_alias


def _is_module(named: "Named") -> "TypeGuard[griffe.Module]":
    return not named.is_alias and named.is_module


def _is_class(named: "Named") -> "TypeGuard[griffe.Class]":
    return not named.is_alias and named.is_class


def _is_function(named: "Named") -> "TypeGuard[griffe.Function]":
    return not named.is_alias and named.is_function


def _is_attribute(named: "Named") -> "TypeGuard[griffe.Attribute]":
    return not named.is_alias and named.is_attribute


def _public_names(root: "griffe.Module") -> "dict[str, Named]":
    """Everything public outside of classes, by its path."""
    jax = _modules(root)["jax"]
    modules = list(_with_exported(jax, _modules(jax).keys() - _MACHINERY))
    if "common" in _modules(root):
        modules += [module for name, module in _modules(_modules(root)["common"]).items() if name == "recipe"]
    found: dict[str, Named] = {module.path: module for module in modules}
    for module in modules:
        found |= {f"{module.path}.{name}": _final(module.members[name]) for name in _exports(module)}
    return found


def _with_exported(module: "griffe.Module", names: Iterable[str]) -> "Iterator[griffe.Module]":
    """A module, and those of its own modules that are named, with what these export in turn."""
    yield module
    for name in names:
        if name in _modules(module) and not name.startswith("_"):
            inner = _modules(module)[name]
            yield from _with_exported(inner, map(str, inner.exports or ()))


def _modules(module: "griffe.Module") -> "dict[str, griffe.Module]":
    """The modules that lie in a package; not those that it imports."""
    return {name: member for name, member in module.members.items() if _is_module(member)}


def _exports(module: "griffe.Module") -> list[str]:
    if module.exports is None:
        names = [name for name, member in module.members.items() if _is_own(module, member)]
    else:
        names = [name for name in map(str, module.exports) if name in module.members]
    return [name for name in names if not name.startswith("_")]


def _is_own(module: "griffe.Module", member: "Named") -> bool:
    """Whether a module without ``__all__`` exports a member: it defines it, or is a package that collects names."""
    final = _final(member)
    return not final.is_alias and not final.is_module and (module.is_init_module or not member.is_alias)


def _final(named: "Named") -> "Named":
    """What a name stands for in the end; where that is no part of what was read, the last import on the way."""
    import griffe  # noqa: PLC0415

    seen: set[str] = set()
    while named.path not in seen:
        seen.add(named.path)
        try:
            named = named.final_target if _is_import(named) else _referred(named)
        except griffe.AliasResolutionError as error:
            return error.alias
        except griffe.CyclicAliasError:
            return named
    return named


def _referred(named: "Named") -> "Named":
    """What an attribute's value names; anything else as it is."""
    return _looked_up(named.value, named) or named if _is_attribute(named) else named


def _looked_up(value: "Expression", user: "griffe.Object") -> "Named | None":
    """What a value is the name of, within Transformer Engine; a member of an enumeration is more than its value."""
    import griffe  # noqa: PLC0415

    if value is None or isinstance(value, str) or not str(value).replace(".", "").isidentifier():
        return None
    try:
        found = user.modules_collection.get_member(value.canonical_path)
    except (KeyError, griffe.AliasResolutionError, griffe.CyclicAliasError):
        return None
    return None if found.parent and _is_class(found.parent) and _is_enumeration(found.parent) else found


def _is_enumeration(cls: "griffe.Class") -> bool:
    return any(_last(base).endswith(("Enum", "Flag")) for each in _mro(cls) for base in each.bases)


def _text(value: "Expression", user: "griffe.Object") -> str:
    """The source of a value; of a constant's name the constant, which may change while the name stays."""
    found = _looked_up(value, user)
    constant = _final(found) if found else user
    if found and _is_attribute(constant) and isinstance(constant.value, str):
        return constant.value
    return "" if value is None else str(value)


def _signature(named: "Named") -> Signature:
    if _is_module(named):
        return Signature("module")
    if _is_class(named):
        return Signature("class", _constructor(named))
    if _is_function(named):
        return Signature("function", _parameters(named))
    if _is_import(named):
        return Signature("attribute", value=named.target_path)
    return Signature("attribute", value=_text(named.value, named) if _is_attribute(named) else "")


def _parameters(function: "griffe.Function") -> tuple[Parameter, ...]:
    found = []
    for each in function.parameters:
        kind = _KINDS[each.kind.value]
        has_default = kind not in VARIADIC and each.default is not None  # griffe gives () and {} to variadic ones
        found.append(Parameter(each.name, kind, _text(each.default, function) if has_default else None))
    return tuple(found)


def _bound(method: "griffe.Function") -> tuple[Parameter, ...]:
    """The parameters of a method as its caller sees them."""
    parameters = _parameters(method)
    takes_self = "staticmethod" not in method.labels and parameters and parameters[0].kind not in VARIADIC
    return parameters[1:] if takes_self else parameters


def _constructor(cls: "griffe.Class") -> tuple[Parameter, ...]:
    """What the nearest class takes that says so, by an ``__init__`` or by fields."""
    for each in _mro(cls):
        init = each.members.get("__init__")
        if init and _is_function(init):
            return _bound(init)
        if _makes_fields(each):
            return _fields(each)
    return ()


def _mro(cls: "griffe.Class") -> "list[griffe.Class]":
    """The class and its bases within Transformer Engine."""
    try:
        return [cls, *cls.mro()]
    except ValueError:  # such as a class that is named like the imported class that it derives from
        return [cls]


def _makes_fields(cls: "griffe.Class") -> bool:
    """Whether annotated names in its body are fields, which the constructor takes."""
    bases = {_last(base) for each in _mro(cls) for base in each.bases}
    return bool(bases & _MAKE_FIELDS) or _dataclass(cls) is not None


def _dataclass(cls: "griffe.Class") -> "Expression":
    """The decorator, of the standard library, pydantic or Flax, that makes it a dataclass."""
    return next((each.value for each in cls.decorators if _last(each.value) == "dataclass"), None)


def _last(expression: "griffe.Expr | str") -> str:
    """The last part of a name in an expression, as it was called where it was imported from."""
    path = expression if isinstance(expression, str) else expression.canonical_path
    return path.rpartition(".")[2]


def _fields(cls: "griffe.Class") -> tuple[Parameter, ...]:
    found: dict[str, Parameter] = {}
    for owner in reversed(_mro(cls)):
        if _makes_fields(owner):  # a field that is defined again keeps its place
            found |= {field.name: field for field in _own_fields(owner)}
    return tuple(sorted(found.values(), key=lambda field: field.kind == "keyword"))


def _own_fields(cls: "griffe.Class") -> Iterator[Parameter]:
    of_class = _arguments(_dataclass(cls))
    for member in cls.members.values():
        if not _is_attribute(member) or not _is_field(member) or member.name.startswith("_"):
            continue
        options = _arguments(member.value) if _calls_field(member.value) else {"default": _text(member.value, member)}
        kind = "keyword" if "True" in (of_class.get("kw_only"), options.get("kw_only")) else "either"
        if options.get("init") != "False":
            yield Parameter(member.name, kind, _default(options))


def _is_field(attribute: "griffe.Attribute") -> bool:
    # griffe takes ClassVar off an annotation, and leaves no more than this label.
    return attribute.annotation is not None and "instance-attribute" in attribute.labels


def _calls_field(value: "Expression") -> bool:
    return value is not None and hasattr(value, "arguments") and _last(value) == "field"


def _arguments(call: "Expression") -> dict[str, str]:
    """Keyword arguments of a call, as text; none of anything else."""
    arguments = [each for each in getattr(call, "arguments", ()) if type(each).__name__ == "ExprKeyword"]
    return {each.name: str(each.value) for each in arguments}


def _default(options: Mapping[str, str]) -> str | None:
    if "default_factory" in options:
        return f"field(default_factory={options['default_factory']})"
    return options.get("default") or None


def _members(cls: "griffe.Class") -> dict[str, Signature]:
    """What a public class has besides fields."""
    found: dict[str, Signature] = {}
    for owner in reversed(_mro(cls)):
        found |= {name: _member(member) for name, member in owner.members.items() if _is_listed(owner, member)}
    return found


def _is_listed(cls: "griffe.Class", member: "Named") -> bool:
    if member.name.startswith("_") and member.name != "__call__":
        return False
    if _is_attribute(member):
        is_set = bool(member.labels & {"property", "class-attribute"})
        return is_set and not (_is_field(member) and _makes_fields(cls))
    return _is_function(member)


def _member(member: "Named") -> Signature:
    return Signature("method", _bound(member)) if _is_function(member) else _signature(member)
