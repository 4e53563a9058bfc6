"""Which names of a Transformer Engine are public: what users of Transformer Engine for JAX import.

- modules: ``transformer_engine.jax``, those directly under it that are not its machinery,
  ``transformer_engine.common.recipe``, and modules that a public one names in its ``__all__``;
- in a module: the names in ``__all__``; without one, what it defines. A package without ``__all__`` also exports what
  it takes from other modules of Transformer Engine. A name with a leading underscore never is.
"""

from collections.abc import Iterable, Iterator

import griffe

from mnist_fp8.gate.names.source import Named, modules
from mnist_fp8.gate.names.values import final

_MACHINERY = {"cpp_extensions", "triton_extensions", "setup", "version_utils", "util", "utils"}
"""Modules under ``transformer_engine.jax`` that users do not import."""


def public_paths(root: griffe.Module) -> frozenset[str]:
    """The path of everything public outside of classes."""
    found = list(_public_modules(root))
    names = (f"{module.path}.{name}" for module in found for name in _exports(module))
    return frozenset((*(module.path for module in found), *names))


def _public_modules(root: griffe.Module) -> Iterator[griffe.Module]:
    jax = modules(root).get("jax")
    if jax:
        yield from _with_exported(jax, modules(jax).keys() - _MACHINERY)
    common = modules(root).get("common")
    if common and "recipe" in modules(common):
        yield modules(common)["recipe"]


def _with_exported(module: griffe.Module, names: Iterable[str]) -> Iterator[griffe.Module]:
    """A module, and those of its own modules that are named, with what these export in turn."""
    yield module
    for name in names:
        if name in modules(module) and not name.startswith("_"):
            inner = modules(module)[name]
            yield from _with_exported(inner, map(str, inner.exports or ()))


def _exports(module: griffe.Module) -> list[str]:
    if module.exports is None:
        names = [name for name, member in module.members.items() if _is_own(module, member)]
    else:
        names = [name for name in map(str, module.exports) if name in module.members]
    return [name for name in names if not name.startswith("_")]


def _is_own(module: griffe.Module, member: Named) -> bool:
    """Whether a module without ``__all__`` exports a member: it defines it, or is a package that collects names."""
    end = final(member)
    return not end.is_alias and not end.is_module and (module.is_init_module or not member.is_alias)
