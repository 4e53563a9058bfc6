"""What of two records can be compared, and what cannot."""

import dataclasses
from collections import Counter
from collections.abc import Iterator

from mnist_fp8.core import capability, variables
from mnist_fp8.core.errors import RecordError
from mnist_fp8.core.model import CONTENTS, VARIABLE, VARIABLES
from mnist_fp8.core.plain import clean
from mnist_fp8.record.calls import CALLS
from mnist_fp8.record.checkpoints import CHECKPOINT_FILES, CHECKPOINTS
from mnist_fp8.record.entries import Support
from mnist_fp8.record.keys import AREAS, LAYERS, Key
from mnist_fp8.record.record import Record

OTHER_DEVICE_FLOOR = 0.02
"""Relative difference of numbers from two devices that is taken for none: they may accumulate in another order."""
TES_OWN_KEYS = ("api", "package", "recipes", "variables", "warnings", "import")
"""Areas whose keys are names of Transformer Engine's: one that comes or goes is a difference, not a gap."""
_WHOLE_OR_NOT_AT_ALL = {
    "package": "there are no package metadata of {}: whether pip can install the new one is not verified",
    "import": "what the import of {} does to its process was not measured",
}
"""Areas that a side has entries of, or was not looked at for."""
_ONE_DEVICE = ("training", "special")


def refuse_other_run(old: Record, new: Record) -> None:
    """Refuse records of different kinds of run."""
    if old.run and new.run and old.run != new.run:
        raise RecordError(
            f"{clean(old.te)} was measured in a {old.run} run and {clean(new.te)} in a {new.run} run:"
            " measure both in the same kind of run"
        )


@dataclasses.dataclass(frozen=True)
class Scope:
    """What of two records can be compared.

    Attributes:
        same_keys: both were measured by the same code, so that an entry that one lacks is a difference.
        same_stack: nothing but Transformer Engine differs.
        floor: relative difference of numbers that is taken for none.
        left_out: areas that are not compared.
        limits: all of that in words.
    """

    same_keys: bool
    same_stack: bool
    floor: float
    left_out: tuple[str, ...]
    limits: tuple[str, ...]

    @classmethod
    def of(cls, old: Record, new: Record) -> "Scope":
        """The scope of two records."""
        limits, left_out, floor = [], [], 0.0
        devices = [_device(record) for record in (old, new)]
        if devices[0] != devices[1] and not old.problem and not new.problem:
            floor, left_out = OTHER_DEVICE_FLOOR, list(_ONE_DEVICE)
            limits.append(
                f"measured on different devices ({devices[0]}; {devices[1]}): training and special numbers are not"
                f" compared, other numbers only beyond {OTHER_DEVICE_FLOOR:.0%}"
            )
        data = [record.environment.get("data", "") for record in (old, new)]
        if data[0] != data[1] and all(data):
            left_out.append("training")
            limits.append("trained on different data: training is not compared")
        written = [record.entries.get(CHECKPOINT_FILES) for record in (old, new)]
        if written[0] != written[1] and not (old.problem or new.problem):
            left_out.append(CHECKPOINTS)
            limits.append("the records are not of one upgrade: checkpoints are not compared")
        for area, missing in _WHOLE_OR_NOT_AT_ALL.items():
            there = [any(key.startswith(f"{area}/") for key in record.entries) for record in (old, new)]
            if there[0] != there[1] and not (old.problem or new.problem):
                left_out.append(area)
                limits.append(missing.format(clean((new if there[0] else old).te)))
        same_keys = old.settings == new.settings
        if not same_keys:
            limits.append("measured by different versions of mnist-fp8: what only one of them measures is not compared")
        limits += _settings_in_words(old, new)
        others = list(_other_versions(old, new))
        if others:
            limits.append(f"not only Transformer Engine differs ({', '.join(others)}): a difference may come from that")
        return cls(same_keys, not others, floor, tuple(dict.fromkeys(left_out)), tuple(limits))


def _settings_in_words(old: Record, new: Record) -> Iterator[str]:
    """What a reader has to know of how both were measured; nothing is left out for it."""
    switches = variables.that_decide_defaults({**old.environment, **new.environment})
    if switches:
        yield (
            f"measured with {clean(variables.assignments(switches))}; the claims were verified without, because they"
            " hold the defaults of Transformer Engine's recipes"
        )
    if old.problem or new.problem:
        return
    models = [_model(record) for record in (old, new)]
    if models[0] != models[1]:
        yield (
            f"the models are not the same ({models[0]}; {models[1]}): what differs in claims on models, and in"
            " entries of a model, may come from that"
        )
    if old.capability != new.capability:
        pretended = "; ".join(str(record.capability or capability.BY_RECIPE) for record in (old, new))
        yield (
            f"the host runs pretend different compute capabilities ({pretended}): Transformer Engine takes other"
            " paths by it, so that a difference may come from that; measure both with the same --capability"
        )


def _device(record: Record) -> str:
    return ", ".join(record.environment[name] for name in ("device", "processor") if name in record.environment)


def _model(record: Record) -> str:
    """The user's model, such that another code of it is another one."""
    name, contents = (record.environment.get(key, "") for key in (VARIABLE, CONTENTS))
    return clean(f"{name}, code {contents}" if contents else name or "the network of mnist-fp8")


_STACK = ("jax", "jaxlib", "flax", "optax", "numpy", "ml-dtypes", "python")


def _other_versions(old: Record, new: Record) -> Iterator[str]:
    known = [name for name in old.environment if name in _STACK or name.isupper()]
    names = [name for name in known if name not in (*VARIABLES, capability.VARIABLE)]  # of which is told apart
    pairs = {name: (old.environment[name], new.environment.get(name, "")) for name in names}
    yield from (f"{name} {a} → {b}" for name, (a, b) in pairs.items() if a != b and b)


def is_compared(key: str, old: Record, new: Record, scope: Scope) -> bool:
    """Whether an entry is compared: a name of ours that one side lacks may only mean that other code measured it."""
    both = key in old.entries and key in new.entries
    of_release = is_named_by_release(key, old, new)
    is_told = key.endswith(f"/{CALLS}")  # and never compared
    return not is_told and key.partition("/")[0] not in scope.left_out and (both or scope.same_keys or of_release)


def is_named_by_release(key: str, old: Record, new: Record) -> bool:
    """Whether a key is a name of Transformer Engine's. Those of a layer are, where both were measured for it."""
    parts = Key.of(key)
    case = f"{LAYERS}/{parts.subject}/{parts.case}/support"
    return parts.kind in TES_OWN_KEYS and (parts.area != LAYERS or (case in old.entries and case in new.entries))


def running(record: Record) -> set[str]:
    """The recipes that run."""
    return {Key.of(key).subject for key in supported(record) if key.startswith("recipes/")}


def supported(record: Record) -> set[str]:
    """The keys of what says that a recipe runs, or a layer is there."""
    return {key for key, value in record.entries.items() if isinstance(value, Support) and value.ok}


class OneSided:
    """What runs, or is there, on one side only: all else of it is on that side only because of that.

    A recipe that a release does not have says nothing; of a layer, both sides have to say that one has it.
    """

    def __init__(self, old: Record, new: Record) -> None:
        self._keys = {
            key for key in supported(old) ^ supported(new)
            if not key.startswith(LAYERS) or (key in old.entries and key in new.entries)
        }  # fmt: skip

    def has(self, key: str) -> bool:
        """Whether a key is of it."""
        parts = Key.of(key)
        return not self._keys.isdisjoint(
            (f"recipes/{parts.mode}/support", f"{LAYERS}/{parts.subject}/{parts.case}/support")
        )


def compared(old: Record, new: Record, scope: Scope) -> dict[str, int]:
    """How many entries are compared, by area."""
    keys = [key for key in {**old.entries, **new.entries} if is_compared(key, old, new, scope)]
    both = Counter(key.partition("/")[0] for key in keys)
    if old.suite and new.suite:
        both["claims"] = len({claim.name for claim in old.suite.claims} & {claim.name for claim in new.suite.claims})
    return {area: both[area] for area in AREAS if both[area] and area not in scope.left_out}
