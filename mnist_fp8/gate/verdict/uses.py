"""A user's own sources in the verdict: what they use counts, and names that they do not use are only noted."""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping

from mnist_fp8.gate.uses.judge import judge
from mnist_fp8.gate.uses.judgement import Judgement
from mnist_fp8.gate.uses.ranges import Fitting, fitting
from mnist_fp8.gate.uses.use import Uses
from mnist_fp8.gate.verdict.coverage import Coverage, Effect, Gap, GapKind, by_reason
from mnist_fp8.gate.verdict.rules.rule import Difference, Severity
from mnist_fp8.gate.verdict.rules.uses import use_differences
from mnist_fp8.record.names import Names
from mnist_fp8.record.record import Record


@dataclasses.dataclass(frozen=True)
class JudgedUses:
    """What becomes of a user's own sources.

    Attributes:
        found: what they use.
        judgements: what becomes of each use; ``None`` if the names of a side are not known.
        fitting: which of all known releases they fit.
    """

    found: Uses
    judgements: tuple[Judgement, ...] | None
    fitting: Fitting

    @classmethod
    def of(cls, uses: Uses, old: Record, new: Record, releases: Mapping[str, Names]) -> "JudgedUses":
        """What becomes of uses between two records."""
        judgements = judge(uses.uses, old.names, new.names) if old.names and new.names else None
        return cls(uses, judgements, fitting(uses.uses, releases, old.version))

    @property
    def compared(self) -> dict[str, int]:
        """How many uses were judged, by the area."""
        return {"uses": len({each.use for each in self.judgements})} if self.judgements else {}

    def reach(self, differences: Iterable[Difference]) -> list[Difference]:
        """All differences: those of the uses, and of names no more than notes, as what is used of them is told here.

        Where nothing is used, nothing is told: sources of something else must not make every difference a note.
        """
        if not self.judgements:
            return list(differences)
        return [*use_differences(self.judgements), *map(_noted, differences)]

    def in_coverage(self, coverage: Coverage) -> Coverage:
        """What was looked at, with the gaps of the uses."""
        return dataclasses.replace(coverage, gaps=(*coverage.gaps, *self._gaps()))

    def _gaps(self) -> Iterator[Gap]:
        if self.judgements is None:
            yield Gap(GapKind.USES, Effect.UNVERIFIED)
        for may_use, effect in ((True, Effect.PARTIAL), (False, Effect.NOTED)):
            places = ((each.reason, each.place.where) for each in self.found.unread if each.may_use is may_use)
            yield from by_reason(GapKind.USES_UNREAD, effect, places)
        unknown = [each.use.path for each in self.judgements or () if each.is_unread]
        if unknown:
            yield Gap(GapKind.USES_NOT_READ, Effect.PARTIAL, tuple(dict.fromkeys(unknown)))


def _noted(difference: Difference) -> Difference:
    if difference.area != "api":
        return difference
    return dataclasses.replace(difference, rule=dataclasses.replace(difference.rule, severity=Severity.NOTE))
