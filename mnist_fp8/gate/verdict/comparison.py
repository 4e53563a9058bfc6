"""What two records say together."""

import dataclasses
import enum
import functools
import shlex
from collections.abc import Mapping

from mnist_fp8.gate.verdict.costs import CostChange
from mnist_fp8.gate.verdict.coverage import Coverage, Effect
from mnist_fp8.gate.verdict.first_calls import FirstCalls, first_calls
from mnist_fp8.gate.verdict.roots import Root, roots
from mnist_fp8.gate.verdict.rules.rule import Difference, Severity
from mnist_fp8.gate.verdict.uses import JudgedUses
from mnist_fp8.record.record import Record


class UpgradeVerdict(enum.Enum):
    """What a comparison says to the owner of the upgrade."""

    SAFE = "SAFE"
    CHANGED = "CHANGED"
    BROKEN = "BROKEN"
    UNVERIFIED = "UNVERIFIED"
    PARTIAL = "PARTIAL"


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What two records say together.

    Attributes:
        old: the record of the release in use.
        new: the record of the release to move to.
        differences: all of them, those that break first.
        compared: how many entries were compared, by area.
        limits: what was compared only in part, or not at all, and why.
        coverage: what was looked at, and what was not.
        costs: times and memory, on which no verdict rests.
        stale: accepted differences that are no differences, or whose time is over.
        uses: what becomes of a user's own sources; ``None`` if the verdict rests on none.
    """

    old: Record
    new: Record
    differences: tuple[Difference, ...]
    compared: Mapping[str, int]
    limits: tuple[str, ...]
    coverage: Coverage
    costs: tuple[CostChange, ...]
    stale: tuple[str, ...] = ()
    uses: JudgedUses | None = None

    @property
    def verdict(self) -> UpgradeVerdict:
        """What breaks goes before what is not known, that before what changes, and that before what is partial."""
        counting = {difference.rule.severity for difference in self.differences if difference.counts}
        if Severity.BREAKS in counting:
            return UpgradeVerdict.BROKEN
        if self.coverage.of(Effect.UNVERIFIED):
            return UpgradeVerdict.UNVERIFIED
        if counting:
            return UpgradeVerdict.CHANGED
        return UpgradeVerdict.PARTIAL if self.is_partial else UpgradeVerdict.SAFE

    @functools.cached_property
    def roots(self) -> tuple[Root, ...]:
        """The differences by their root, those that break first; no verdict rests on that.

        What becomes of the user's own code is told use by use, and has none.
        """
        return roots([each for each in self.differences if each.area != "uses"], self.old.entries, self.new.entries)

    @functools.cached_property
    def first_calls(self) -> tuple[FirstCalls, ...]:
        """The first layer of a user's model that diverges, in each mode in which one does; no verdict rests on that."""
        return first_calls(self.old, self.new, self.differences)

    @property
    def is_partial(self) -> bool:
        """Whether it says nothing of the whole, whatever the verdict is."""
        return bool(self.coverage.of(Effect.PARTIAL))

    def of(self, area: str) -> tuple[Difference, ...]:
        """The differences of an area."""
        return tuple(difference for difference in self.differences if difference.area == area)

    def command(self, key: str) -> str:
        """The command that shows an entry again, measured anew on both sides."""
        paths = self.uses.found.paths if self.uses and key.startswith("uses/") else ()
        sources = [word for path in paths for word in ("--uses", path)]
        words = ["mnist-fp8", "upgrade", *_arguments(self.old, self.new), *sources]
        asked = *self.new.model_arguments(key), *self.new.capability_arguments
        return shlex.join([*words, *asked, "--only", key])


def _arguments(old: Record, new: Record) -> list[str]:
    words = list(old.arguments)
    if new.arguments != old.arguments:
        words += new.arguments
    for package in ("jax", "flax"):
        versions = [record.environment.get(package, "") for record in (old, new)]
        if all(versions) and versions[0] != versions[1]:
            words += [f"--{package}", ":".join(versions)]
    return words
