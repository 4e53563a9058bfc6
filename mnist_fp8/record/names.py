"""What a Transformer Engine for JAX defines, and every name under which it can be reached: plain data."""

import abc
import dataclasses
import enum
import types
import typing
from collections.abc import Mapping
from functools import cached_property

from mnist_fp8.record.entries import Signature

PACKAGE = "transformer_engine"
_FLAX = """
    apply bind clone copy get_variable has_rng has_variable init init_with_output is_initializing is_mutable_collection
    lazy_init make_rng module_paths name param parent path perturb put_variable scope setup sow tabulate unbind variable
    variables __post_init__ __setattr__ __getattr__ __dataclass_transform__
"""
"""Public names of ``flax.linen.Module``."""


def _names_of(*classes: type) -> frozenset[str]:
    return frozenset(name for cls in classes for base in cls.__mro__ for name in vars(base))


_EVERY_MODULE = _names_of(types.ModuleType) | {
    *("__name__", "__package__", "__path__", "__file__", "__cached__", "__loader__", "__spec__"),
    *("__builtins__", "__annotations__", "__warningregistry__"),
}
_EVERY_CLASS = _names_of(type) - {"__call__"} | {"__dataclass_fields__", "__dataclass_params__", "__match_args__"}
_KNOWN_BASES = {
    "abc.ABC": _names_of(abc.ABC),
    "enum.Enum": _names_of(enum.Enum, type(enum.Enum)),
    "enum.IntEnum": _names_of(enum.IntEnum, type(enum.IntEnum)),
    "typing.NamedTuple": _names_of(tuple) | {"_asdict", "_field_defaults", "_fields", "_make", "_replace"},
    "typing.Generic": _names_of(typing.Generic),
    "flax.linen.Module": frozenset(_FLAX.split()),
}
"""Base classes from elsewhere of which all public names are known."""
_DEEPEST = 40
"""Names in a path, aliases or base classes in a row: what is deeper was not written to be used."""


@dataclasses.dataclass(frozen=True)
class Passed:
    """How Transformer Engine's own code calls a method of ``self``: what an override of it has to accept.

    Attributes:
        positional: how many arguments are given by position; the least where ``is_open``.
        keywords: names of those given by name.
        is_open: whether ``*args`` or ``**kwargs`` are passed on, so that there may be more.
        by: the class whose methods call it, on ``self``; empty where a function of the same module calls an argument of
            that name, which the method of any class may be handed to.
    """

    positional: int
    keywords: tuple[str, ...]
    is_open: bool = False
    by: str = ""


@dataclasses.dataclass(frozen=True)
class Definition:
    """What a name stands for.

    Attributes:
        signature: what it is, and what it takes. ``what`` is ``module``, ``class``, ``function``, ``method``,
            ``property``, ``attribute``, ``field`` (of a dataclass or Flax module) or ``member`` (of an enumeration).
            A class has the parameters of its constructor, inherited ones and those that Flax adds too; they are
            ``*args, **kwargs`` where it has one from elsewhere. What is bound to ``partial(f, x=1)`` or to
            ``jax.jit(f)`` is a function with the parameters that are left, and has its source as value.
        bases: of a class, dotted paths of its base classes: as they are defined in Transformer Engine, or as they are
            imported from elsewhere (``flax.linen.Module``).
        decorators: dotted paths of what decorates it, such as ``functools.partial`` or ``jax.custom_vjp``.
        returns: how many elements the tuple has that it returns; ``None`` where it returns none, or not always as many.
        raises: dotted paths of the exceptions that its own body raises, sorted.
        passed: of a method, every different way in which Transformer Engine calls it.
        is_conditional: whether it is defined only under a condition (``if``, ``try``) that is not read.
    """

    signature: Signature
    bases: tuple[str, ...] = ()
    decorators: tuple[str, ...] = ()
    returns: int | None = None
    raises: tuple[str, ...] = ()
    passed: tuple[Passed, ...] = ()
    is_conditional: bool = False


@dataclasses.dataclass(frozen=True)
class Names:
    """Every name of a Transformer Engine for JAX, private ones too.

    Attributes:
        definitions: by the dotted path where it is defined, ``module.Class.method`` for members of a class. A class
            has its own members here; inherited ones are found by `find`.
        aliases: dotted path of each import, re-export and second name, to what it stands for: a path of Transformer
            Engine's, or one from elsewhere (``jax.sharding.PartitionSpec``).
        public: paths, of definitions and aliases outside of classes, that Transformer Engine documents or exports.
        unread: what cannot be read from the source, by the path of the module, class or alias, with the reason.
    """

    definitions: Mapping[str, Definition]
    aliases: Mapping[str, str]
    public: frozenset[str]
    unread: Mapping[str, str]

    def find(self, path: str) -> "Found | None":
        """What a dotted path leads to, through aliases, packages and base classes; ``None`` where it leads nowhere.

        Where source does not tell, such as below an object that is made at run time or in a class with an unknown
        base, something is found that has no definition and is not certain.

        Args:
            path: as user code reaches it, such as ``transformer_engine.jax.attention.SequenceDescriptor.from_seqlens``.
        """
        if path not in self._found:
            self._found[path] = self._lead(path)
        return self._found[path]

    def mro(self, path: str) -> tuple[str, ...]:
        """The path of a class and of its base classes, the nearest first; those from elsewhere as they are imported."""
        return self._linear(path, ())

    @cached_property
    def members(self) -> dict[str, dict[str, Definition]]:
        """What modules and classes define themselves: by their path and by name, in the order of the source."""
        found: dict[str, dict[str, Definition]] = {}
        for path, definition in self.definitions.items():
            owner, _, name = path.rpartition(".")
            found.setdefault(owner, {})[name] = definition
        return found

    @cached_property
    def subclasses(self) -> dict[str, list[str]]:
        """Classes by each of their base classes."""
        found: dict[str, list[str]] = {}
        for path, definition in self.definitions.items():
            for base in self.mro(path)[1:] if definition.bases else ():
                found.setdefault(base, []).append(path)
        return found

    @cached_property
    def by_last(self) -> dict[str, list[str]]:
        """Paths of definitions and aliases by their last name."""
        found: dict[str, list[str]] = {}
        for path in (*self.definitions, *self.aliases):
            found.setdefault(path.rpartition(".")[2], []).append(path)
        return found

    @cached_property
    def shortest_public(self) -> dict[str, str]:
        """The shortest public path of what has one, by the path where it is defined."""
        found: dict[str, str] = {}
        for path in sorted(self.public, key=lambda each: (each.count("."), each)):
            if there := self.find(path):
                found.setdefault(there.path, path)
        return found

    @cached_property
    def _found(self) -> "dict[str, Found | None]":
        return {}

    @cached_property
    def _targets(self) -> "dict[str, Found]":
        """What aliases stand for in the end; their targets as they are written while that is looked for."""
        return {}

    @cached_property
    def _pending(self) -> list[str]:
        return []

    @cached_property
    def _linearized(self) -> dict[str, tuple[str, ...]]:
        return {}

    def _lead(self, path: str) -> "Found | None":
        root, *names = path.split(".")
        if root != PACKAGE or root not in self.definitions or len(names) > _DEEPEST:
            return Found(path, None, is_certain=False)
        found: Found | None = Found(root, self.definitions[root])
        for position, name in enumerate(names):
            if found is None:
                return None
            if found.definition is None:
                return Found(".".join((found.path, *names[position:])), None, is_certain=False)
            below = self._below(found, name, "".join(names[position + 1 : position + 2]))
            found = below if found.is_certain else below and dataclasses.replace(below, is_certain=False)
        return found

    def _below(self, found: "Found", name: str, following: str) -> "Found | None":
        """What a name means in something, of which another name may follow."""
        path = f"{found.path}.{name}"
        match found.definition and found.definition.signature.what:
            case "module":
                is_open = found.path in self.unread or path in self.unread or name in _EVERY_MODULE
                unsure = Found(path, None, is_certain=False) if is_open else None
                return self._own(path, following) or unsure
            case "class":
                return self._member(found.path, name)
            case "member":
                of_class = self._member(found.path.rpartition(".")[0], name)
                return of_class and dataclasses.replace(of_class, is_certain=False)
            case _:
                return Found(path, None, is_certain=False)

    def _own(self, path: str, following: str = "") -> "Found | None":
        """What is imported or defined under a path.

        A package can import a name that one of its modules has: what is imported from below it is in the module.
        """
        below = f"{path}.{following}"
        if path in self.aliases and not (following and (below in self.definitions or below in self.aliases)):
            return self._target(path)
        definition = self.definitions.get(path)
        return None if definition is None else Found(path, definition, is_certain=not definition.is_conditional)

    def _target(self, alias: str) -> "Found":
        """What an alias stands for; its target as it is written where that leads nowhere, or back."""
        if alias not in self._targets:
            as_written = Found(self.aliases[alias], None, is_certain=False)
            self._targets[alias] = as_written
            self._pending.append(alias)
            found = self._lead(as_written.path) if len(self._pending) < _DEEPEST else None
            self._pending.pop()
            if found and found.path != alias:
                self._targets[alias] = dataclasses.replace(
                    found, is_certain=found.is_certain and alias not in self.unread
                )
        return self._targets[alias]

    def _member(self, cls: str, name: str) -> "Found | None":
        """What a class has under a name, in its body or by a base class."""
        unsure = ""
        for owner in self.mro(cls):
            found = self._own(f"{owner}.{name}")
            if found:
                is_certain = found.is_certain and not unsure
                return dataclasses.replace(found, owner="" if owner == cls else owner, is_certain=is_certain)
            unsure = unsure or (f"{owner}.{name}" if self._may_have(owner, name) else "")
        unsure = unsure or (f"{cls}.{name}" if name in _EVERY_CLASS else "")
        return Found(unsure, None, is_certain=False) if unsure else None

    def _may_have(self, owner: str, name: str) -> bool:
        """Whether a class may have a name that is not defined in its body."""
        if owner in self.definitions:
            return owner in self.unread
        known = _KNOWN_BASES.get(owner)
        return known is None or name in known or (owner.startswith("flax.") and name.startswith("_"))

    def _linear(self, path: str, below: tuple[str, ...]) -> tuple[str, ...]:
        """A class and its base classes; of those that come twice the last, as Python has them."""
        if path in self._linearized:
            return self._linearized[path]
        definition = self.definitions.get(path)
        if definition is None or path in below or len(below) > _DEEPEST:
            return (path,)
        above = [cls for base in definition.bases for cls in self._linear(base, (*below, path)) if cls != path]
        self._linearized[path] = (path, *reversed(dict.fromkeys(reversed(above))))
        return self._linearized[path]


@dataclasses.dataclass(frozen=True)
class Found:
    """Where a dotted path leads.

    Attributes:
        path: where it is defined, or where it was imported from if that is no part of Transformer Engine.
        definition: what it is; ``None`` where it is no part of Transformer Engine.
        owner: of an inherited member, the class whose body defines it; else empty.
        is_certain: whether nothing on the way is unread, conditional or from elsewhere, so that its absence or its
            signature can be relied on.
    """

    path: str
    definition: Definition | None
    owner: str = ""
    is_certain: bool = True
