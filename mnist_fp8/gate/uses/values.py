"""What the names in a user's sources stand for, as far as that leads to Transformer Engine."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from mnist_fp8.gate.uses.use import Call, Guard, is_below
from mnist_fp8.record.names import PACKAGE

_MOST = 12
"""Values that a name can have at a time: more come from code that is made, and say nothing."""
_OF_EVERY_OBJECT = {
    *("__name__", "__qualname__", "__module__", "__doc__", "__dict__", "__class__", "__file__", "__path__", "__spec__"),
    *("__wrapped__", "__annotations__", "__mro__", "__bases__", "__code__", "__signature__", "__defaults__"),
}
"""What Python gives to modules, classes and functions: no name of Transformer Engine's."""
_LONGEST_LINE = 40
VERSION = "__version__"
_OF_MEMBERS = {"name", "value"}
_SAME_INSTANCE = {"replace", "_replace", "clone", "copy", "bind"}
"""Methods that return another instance of the class."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reached:
    """A name of Transformer Engine.

    Attributes:
        path: its dotted path.
        optional: see `mnist_fp8.gate.uses.use.Use`.
        fallback_for: as above.
        on_instance: whether it is a member that is reached through an instance.
        is_typing: whether it was imported for type checkers only.
    """

    path: str
    optional: str = ""
    fallback_for: tuple[str, ...] = ()
    on_instance: bool = False
    is_typing: bool = False

    @property
    def name(self) -> str:
        """The last name of the path."""
        return self.path.rpartition(".")[2]

    @property
    def is_class(self) -> bool:
        """Whether it is written like a class."""
        return _is_class(self.name)

    @property
    def owner(self) -> "Reached | None":
        """The class that it is a member of, if it is written like one."""
        path = self.path.rpartition(".")[0]
        if not _is_class(path.rpartition(".")[2]):
            return None
        return Reached(path, self.optional, self.fallback_for, is_typing=self.is_typing)

    def member(self, name: str) -> "Reached | None":
        """What an attribute of it is; ``None`` where that is nothing of Transformer Engine's."""
        is_end = self.on_instance or self.name == VERSION or (self.owner is not None and not self.is_class)
        if is_end or name in _OF_EVERY_OBJECT:
            return None
        return Reached(f"{self.path}.{name}", self.optional, self.fallback_for, is_typing=self.is_typing)

    def called(self) -> "Instance | None":
        """What a call of it returns, if that is known by its name."""
        if self.is_class:
            return Instance(self)
        is_instance = self.name.startswith("from_") or (self.on_instance and self.name in _SAME_INSTANCE)
        return Instance(self.owner) if is_instance and self.owner else None

    def read(self) -> "Value":
        """What it is as a value: a member of an enumeration is an instance."""
        if self.name == VERSION:
            return Clue(Guard.VERSION)
        return Instance(self.owner, is_member=True) if self.owner and self.name.isupper() else self


def _is_class(name: str) -> bool:
    return name.lstrip("_")[:1].isupper() and not name.isupper()


@dataclasses.dataclass(frozen=True, slots=True)
class Instance:
    """An instance of a class of Transformer Engine; of an enumeration, one of its members."""

    cls: Reached
    is_member: bool = False

    def member(self, name: str) -> Reached | None:
        """What an attribute of it is."""
        if name in _OF_EVERY_OBJECT or (self.is_member and name in _OF_MEMBERS):
            return None
        cls = self.cls
        return Reached(f"{cls.path}.{name}", cls.optional, cls.fallback_for, on_instance=True, is_typing=cls.is_typing)


@dataclasses.dataclass(frozen=True, slots=True)
class Partial:
    """A name of Transformer Engine to which ``functools.partial`` has given some arguments."""

    reached: Reached
    call: Call

    def called(self, call: Call) -> Call:
        """All arguments of a call of it."""
        return Call(
            self.call.positional + call.positional,
            tuple(dict.fromkeys(self.call.keywords + call.keywords)),
            has_args=self.call.has_args or call.has_args,
            has_kwargs=self.call.has_kwargs or call.has_kwargs,
            unpacked=call.unpacked,
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Clue:
    """What a test rests on: which Transformer Engine this is, or what a name of it is like.

    Attributes:
        guard: which of both.
        subjects: the paths that are asked for; none where that is not known.
        tells: whether it tells if the subjects are there: True or False if it is true where they are; ``None`` if it
            tells something else of them.
    """

    guard: Guard
    subjects: tuple[str, ...] = ()
    tells: bool | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Text:
    """A string."""

    text: str


@dataclasses.dataclass(frozen=True, slots=True)
class Items:
    """A list, tuple, set or dictionary that is written out.

    Attributes:
        values: what is in it.
        keywords: the keys of a dictionary, if all of them are known strings, such as may be given by ``**``.
    """

    values: "Values" = ()
    keywords: tuple[str, ...] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Foreign:
    """A name of another package, such as ``functools.partial``."""

    path: str


@dataclasses.dataclass(frozen=True, slots=True)
class OwnModule:
    """A module or package of the user's, by its path without ``.py`` or ``/__init__.py``."""

    location: str


@dataclasses.dataclass(eq=False, slots=True)
class OwnFunction:
    """A function of the user's.

    Attributes:
        returns: what it may return.
        is_property: whether reading it calls it.
        parameters: those that can be given by position, but for ``self``.
        given: what calls give to its parameters, as far as that leads to Transformer Engine.
    """

    returns: "Values" = ()
    is_property: bool = False
    parameters: tuple[str, ...] = ()
    given: "dict[str, Values]" = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(eq=False, slots=True)
class OwnClass:
    """A class of the user's.

    Attributes:
        bases: what it is derived from.
        attributes: what its body defines.
        assigned: what its methods assign to attributes of ``self``.
        fields: names that its body annotates: what a dataclass takes.
        has_constructor: whether it takes the arguments of its constructor itself.
    """

    bases: "Values" = ()
    attributes: "dict[str, Values]" = dataclasses.field(default_factory=dict)
    assigned: "dict[str, Values]" = dataclasses.field(default_factory=dict)
    fields: set[str] = dataclasses.field(default_factory=set)
    has_constructor: bool = False

    def line(self) -> "list[OwnClass | Reached]":
        """The class and what it is derived from, the nearest first."""
        if not self.bases:
            return [self]
        found: dict[OwnClass | Reached, None] = {}
        pending: list[Value] = [self]
        while pending and len(found) < _LONGEST_LINE:
            cls = pending.pop(0)
            if isinstance(cls, OwnClass) and cls not in found:
                pending[:0] = cls.bases
                found[cls] = None
            elif isinstance(cls, Reached):
                found[cls] = None
        return [*found]

    def held(self) -> "Iterator[Value]":
        """The values of all its attributes, without inherited ones."""
        for values in (*self.attributes.values(), *self.assigned.values()):
            yield from values

    def find(self, name: str, *, above: bool = False) -> "Values":
        """What the user's classes have under a name; else what each class of Transformer Engine may have.

        Args:
            name: of the attribute.
            above: look at the base classes only, as ``super()`` does.
        """
        line = self.line()[1:] if above else self.line()
        for cls in line:
            if isinstance(cls, OwnClass) and (name in cls.attributes or name in cls.assigned):
                return joined(cls.attributes.get(name, ()), cls.assigned.get(name, ()))
        members = (Instance(cls).member(name) for cls in line if isinstance(cls, Reached))
        return tuple(member for member in members if member)


@dataclasses.dataclass(frozen=True, slots=True)
class OwnInstance:
    """An instance of a class of the user's; ``super()`` in it where it is only looked at above."""

    cls: OwnClass
    above: bool = False


Value: TypeAlias = (
    Reached | Instance | Partial | Clue | Text | Items | Foreign | OwnModule | OwnFunction | OwnClass | OwnInstance
)
Values: TypeAlias = tuple[Value, ...]
"""All that a name may stand for: it can be bound in more than one branch. Empty where nothing is known."""


def joined(*several: Values) -> Values:
    """All of some values, each once."""
    found: Values = ()
    for values in several:
        if not found:
            found = values
        elif values and values != found:
            found = tuple(dict.fromkeys(found + values))[:_MOST]
    return found


def leads_to_te(value: Value, depth: int = 3) -> bool:
    """Whether a value may make a use of Transformer Engine where it is taken.

    Args:
        value: no module of the user's: what that leads to is known by `mnist_fp8.gate.uses.project`.
        depth: how far to look into classes and their attributes, which may hold each other.
    """
    match value:
        case Reached() | Instance() | Partial() | Clue():
            return True
        case OwnFunction() if depth:
            return any(leads_to_te(returned, depth - 1) for returned in value.returns)
        case OwnInstance() if depth:
            return leads_to_te(value.cls, depth - 1)
        case Items() if depth:
            return any(leads_to_te(each, depth - 1) for each in value.values)
        case OwnClass() if depth:
            line = value.line()
            held = (each for cls in line if isinstance(cls, OwnClass) for each in cls.held())
            return any(isinstance(cls, Reached) for cls in line) or any(leads_to_te(each, depth - 1) for each in held)
        case _:
            return False


def texts(values: Iterable[Value]) -> list[str]:
    """The strings among some values."""
    return [value.text for value in values if isinstance(value, Text)]


def names_of_te(values: Iterable[Value]) -> list[Reached]:
    """The names of Transformer Engine among some values."""
    return [value for value in values if isinstance(value, Reached)]


def elements(values: Iterable[Value]) -> Values:
    """What is in some lists or dictionaries."""
    return joined(*(value.values if isinstance(value, Items) else (value,) for value in values if _has_elements(value)))


def _has_elements(value: Value) -> bool:
    return isinstance(value, Items | Clue)


def keywords_of(values: Values) -> tuple[str, ...] | None:
    """The keys of a dictionary; ``None`` where they are not known."""
    return values[0].keywords if len(values) == 1 and isinstance(values[0], Items) else None


def is_te(path: str) -> bool:
    """Whether a dotted path is a name of Transformer Engine."""
    return is_below(path, PACKAGE)
