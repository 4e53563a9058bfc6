"""Find where a change came: a binary search over an ordered list, some of whose items cannot be judged."""

import dataclasses
import enum
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mnist_fp8.core.capability import Capability
from mnist_fp8.core.errors import ConfigError, EnvError
from mnist_fp8.gate.releases.editions import parse_edition
from mnist_fp8.gate.releases.environments import Environment
from mnist_fp8.gate.runner.execution import last_line
from mnist_fp8.gate.runner.installation import Installation, examine
from mnist_fp8.gate.runner.model import Model
from mnist_fp8.gate.runner.suite import TIMEOUT_S
from mnist_fp8.record.claims import Outcome, SuiteResult
from mnist_fp8.record.entries import Text, Value

CANNOT_JUDGE = 125
"""Exit code of a command that cannot tell, as git bisect has it."""


class Finding(enum.Enum):
    """What one item shows. ``UNKNOWN`` is neither: it cannot be judged."""

    SAME = "same"
    CHANGED = "changed"
    UNKNOWN = "cannot be judged"


@dataclasses.dataclass(frozen=True)
class Answer:
    """Where the change came.

    Attributes:
        last_same: index of the last item known to be without it.
        first_changed: index of the first item known to have it.
        probed: how many items were looked at.
    """

    last_same: int
    first_changed: int
    probed: int

    @property
    def suspects(self) -> range:
        """Indices of the items that may have brought it: more than one if those between cannot be judged."""
        return range(self.last_same + 1, self.first_changed + 1)


def search(length: int, probe: Callable[[int], Finding]) -> Answer:
    """Search between the first item, known to be without the change, and the last, known to have it.

    Args:
        length: how many items there are.
        probe: looks at one; it is never asked for one of the ends, nor twice for the same.
    """
    last_same, first_changed = 0, length - 1
    unknown: set[int] = set()
    probed = 0
    while between := [index for index in range(last_same + 1, first_changed) if index not in unknown]:
        index = _nearest_to_middle(between, last_same, first_changed)
        probed += 1
        finding = probe(index)
        if finding is Finding.SAME:
            last_same = index
        elif finding is Finding.CHANGED:
            first_changed = index
        else:
            unknown.add(index)
    return Answer(last_same, first_changed, probed)


def _nearest_to_middle(candidates: Sequence[int], low: int, high: int) -> int:
    middle = (low + high) / 2
    return min(candidates, key=lambda index: (abs(index - middle), index))


# --- over releases -------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class State:
    """What one release shows.

    Attributes:
        text: in one line.
        details: what is compared, by name; ``None`` if the release cannot be judged, and ``text`` says why.
    """

    text: str
    details: Mapping[str, Value] | None


Probe = Callable[[Environment], State]
Differ = Callable[[str, Value | None, Value | None], bool]
"""Whether two values of a name differ, beyond their noise."""


@dataclasses.dataclass(frozen=True)
class Change:
    """Where a change came, the states around it, and the names of what differs between them."""

    releases: tuple[str, ...]
    answer: Answer
    before: State
    after: State
    names: tuple[str, ...]

    @property
    def suspects(self) -> tuple[str, ...]:
        """The releases that may have brought it."""
        return tuple(self.releases[index] for index in self.answer.suspects)

    @property
    def differences(self) -> list[tuple[str, Value | None, Value | None]]:
        """Name, old and new value of what differs."""
        before, after = self.before.details or {}, self.after.details or {}
        return [(name, before.get(name), after.get(name)) for name in self.names]


def _differing(before: State, after: State, differ: Differ) -> tuple[str, ...]:
    one, other = dict(before.details or {}), dict(after.details or {})
    return tuple(name for name in one | other if differ(name, one.get(name), other.get(name)))


def find_change(
    releases: Sequence[str], probe: Callable[[str], State], tell: Callable[[str], None], differ: Differ
) -> Change:
    """Search the releases, the first of which is the good one.

    Args:
        releases: in the order to search, at least two.
        probe: looks at one.
        tell: is told each step in one line.
        differ: compares values.

    Raises:
        ConfigError: an end cannot be judged, or the ends do not differ.
    """
    states: dict[int, State] = {}

    def look(index: int) -> State:
        states[index] = probe(releases[index])
        tell(f"{releases[index]}: {states[index].text}")
        return states[index]

    last = len(releases) - 1
    for index in (0, last):
        if look(index).details is None:
            raise ConfigError(f"{releases[index]} cannot be judged: {states[index].text}")
    good = states[0]
    if not _differing(good, states[last], differ):
        raise ConfigError(f"{releases[0]} and {releases[last]} do not differ: {good.text}")

    def finding(index: int) -> Finding:
        state = look(index)
        if state.details is None:
            return Finding.UNKNOWN
        return Finding.CHANGED if _differing(good, state, differ) else Finding.SAME

    answer = search(len(releases), finding)
    before, after = states[answer.last_same], states[answer.first_changed]
    return Change(tuple(releases), answer, before, after, _differing(before, after, differ))


def in_environment(
    probe: Probe, model: Model | None = None, capability: Capability | None = None
) -> Callable[[str], State]:
    """Look at a release in its environment; if that cannot be made, the release cannot be judged.

    Args:
        probe: looks at it.
        model: a user's, which is measured and held to the claims on models; ``None`` if there is none.
        capability: the compute capability that host runs pretend; ``None`` leaves it to the recipe.
    """

    def look(release: str) -> State:
        try:
            environment = Installation(parse_edition(release), model=model, capability=capability).prepare()
        except (EnvError, ConfigError) as error:  # such as a release that no JAX is known for
            return State(" ".join(str(error).split()), None)
        try:
            return probe(environment)
        except EnvError as error:
            return State(str(error), None)

    return look


def claim_probe(name: str, *, rerun: bool) -> Probe:
    """Compare how the tests of a claim end."""

    def probe(environment: Environment) -> State:
        result = examine(environment, claims=(name,), rerun=rerun).suite or SuiteResult(())
        claim = result.claim(name)
        counts = [(outcome.value, len(claim.of(outcome))) for outcome in Outcome]
        text = ", ".join(f"{count} {word}" for word, count in counts if count)
        return State(f"{claim.status.value} ({text})", {test.name: Text(test.outcome.value) for test in claim.tests})

    return probe


def entry_probe(key: str, text: Callable[[Value], str], *, rerun: bool) -> Probe:
    """Compare measured entries.

    Args:
        key: of an entry, the beginning of the keys of some, or a pattern.
        text: a value as a person reads it.
        rerun: measure again what was measured before.
    """

    def probe(environment: Environment) -> State:
        found = examine(environment, entries=(key,), rerun=rerun)
        if found.problem or not found.entries:
            return State(found.problem or f"nothing is measured under {key}", None)
        alone = found.entries.get(key)
        return State(text(alone) if alone else f"{len(found.entries)} entries", found.entries)

    return probe


def command_probe(words: Sequence[str], folder: Path) -> Probe:
    """Compare whether a command succeeds, run in a folder with the environment's interpreter first on the path."""

    def probe(environment: Environment) -> State:
        try:
            ended = environment.run(words, cwd=folder, timeout=TIMEOUT_S, environ=environment.program_environ)
        except OSError as error:
            raise ConfigError(f"the command {words[0]} cannot be run: {error.strerror}") from error
        if ended.timed_out:
            return State(f"not done after {TIMEOUT_S:.0f} s", None)
        text = f"exit code {ended.code}: {last_line(ended.err or ended.out)}"
        if ended.code == CANNOT_JUDGE:
            return State(text, None)
        return State(text, {"command": Text("bad" if ended.code else "good")})

    return probe
