"""What does not hold of a model, and where."""

import dataclasses
from collections.abc import Iterable


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something that has to hold and does not.

    Attributes:
        where: the layer, the leaf of the state, or the step.
        what: what was found there, and what was expected.
    """

    where: str
    what: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.where}: {self.what}"


def require_none(problems: Iterable[Problem], most: int = 8) -> None:
    """Fail with a line for each problem.

    Raises:
        AssertionError: there is one.
    """
    __tracebackhide__ = True
    lines = [str(problem) for problem in dict.fromkeys(problems)]
    more = [f"and {len(lines) - most} more"] if len(lines) > most else []
    if lines:
        raise AssertionError("\n".join([*lines[:most], *more]))
