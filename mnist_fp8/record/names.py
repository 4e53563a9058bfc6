"""What a Transformer Engine for JAX defines, and every name under which it can be reached: plain data."""

import dataclasses
from collections.abc import Iterator, Mapping

from mnist_fp8.record.entries import Signature


@dataclasses.dataclass(frozen=True)
class Passed:
    """How Transformer Engine's own code calls a method of ``self``: what an override of it has to accept.

    Attributes:
        positional: how many arguments are given by position; the least where ``is_open``.
        keywords: names of those given by name.
        is_open: whether ``*args`` or ``**kwargs`` are passed on, so that there may be more.
    """

    positional: int
    keywords: tuple[str, ...]
    is_open: bool = False


@dataclasses.dataclass(frozen=True)
class Definition:
    """What a name stands for.

    Attributes:
        signature: what it is, and what it takes. ``what`` is ``module``, ``class``, ``function``, ``method``,
            ``property``, ``attribute``, ``field`` (of a dataclass or Flax module) or ``member`` (of an enumeration).
            A class has the parameters of its constructor, inherited ones too.
        bases: of a class, dotted paths of its base classes: as they are defined in Transformer Engine, or as they are
            imported from elsewhere (``flax.linen.Module``).
        decorators: dotted paths of what decorates it, such as ``functools.partial`` or ``jax.custom_vjp``.
        returns: how many elements the tuple has that it returns; ``None`` where it returns none, or not always as many.
        raises: dotted paths of the exceptions that its own body raises, sorted.
        passed: of a method, every different way in which Transformer Engine calls it on ``self``.
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
        public: paths, of definitions and aliases, that Transformer Engine documents or exports.
        unread: what cannot be read from the source, by the path of the module or class, with the reason.
    """

    definitions: Mapping[str, Definition]
    aliases: Mapping[str, str]
    public: frozenset[str]
    unread: Mapping[str, str]

    def find(self, path: str) -> "Found | None":
        """What a dotted path leads to, through aliases, packages and base classes; ``None`` where it leads nowhere.

        Args:
            path: as user code reaches it, such as ``transformer_engine.jax.attention.SequenceDescriptor.from_seqlens``.
        """
        raise NotImplementedError

    def mro(self, path: str) -> Iterator[str]:
        """The path of a class and of its base classes, the nearest first; those from elsewhere as they are imported."""
        raise NotImplementedError


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


