"""What is known while a module of the user's is read."""

from typing import TYPE_CHECKING

from mnist_fp8.gate.uses.findings import Findings
from mnist_fp8.gate.uses.guards import Context
from mnist_fp8.gate.uses.project import Project
from mnist_fp8.gate.uses.scopes import Scope, ScopeKind

if TYPE_CHECKING:
    from mnist_fp8.gate.uses.values import OwnClass, OwnFunction, Values


class Swapped:
    """Gives something another attribute for a while; `contextlib` takes three times as long for that."""

    __slots__ = ("_before", "_name", "_owner", "_value")

    def __init__(self, owner: object, name: str, value: object) -> None:
        self._owner, self._name, self._value = owner, name, value

    def __enter__(self) -> None:
        self._before = getattr(self._owner, self._name)
        setattr(self._owner, self._name, self._value)

    def __exit__(self, *_: object) -> None:
        setattr(self._owner, self._name, self._before)


class State:
    """Names, findings, and what was asked of the user's classes and functions.

    Attributes:
        project: the user's other modules.
        location: of the module that is read.
        findings: what was found in it.
        scope: the scope that is being evaluated.
    """

    def __init__(self, project: Project, location: str) -> None:
        self.project = project
        self.location = location
        self.findings = Findings()
        self.scope = Scope(ScopeKind.MODULE)
        self._members: dict[tuple[OwnClass, str, bool], Values] = {}
        self._returns: dict[OwnFunction, Values] = {}
        self._given: dict[OwnFunction, dict[str, Values]] = {}

    def was_early(self) -> bool:
        """Whether something was asked of a class or function before all of it was known."""
        return (
            any(function.returns != found for function, found in self._returns.items())
            or any(function.given != found for function, found in self._given.items())
            or any(cls.find(name, above=above) != found for (cls, name, above), found in self._members.items())
        )

    def at(self, context: Context) -> Swapped:
        """Evaluate what is protected in another way."""
        return Swapped(self.findings, "context", context)

    def within(self, scope: Scope) -> Swapped:
        """Evaluate what is in another scope."""
        return Swapped(self, "scope", scope)

    def at_rest(self) -> Swapped:
        """Evaluate again what was evaluated before: no use is noted."""
        findings = Findings()
        findings.context, findings.part = self.findings.context, self.findings.part
        return Swapped(self, "findings", findings)
