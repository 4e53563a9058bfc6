"""What both sides of an upgrade ran with, and what such a run does not see."""

from mnist_fp8.core import capability
from mnist_fp8.core.model import VARIABLE
from mnist_fp8.core.run_kind import RunKind, pretended
from mnist_fp8.gate.reports.verdict.view import View

_CANNOT_SEE = {
    RunKind.HOST: "CUDA kernels, cuBLAS and the FFI are not seen: a GPU has to verify those",
    RunKind.KERNEL: "other kinds of GPU are not seen",
}
_STACK = {
    "jax": "JAX",
    "flax": "Flax",
    "python": "Python",
    "device": "on",
    capability.VARIABLE: "pretended compute capability",
    VARIABLE: "model",
}
_MISSING = {capability.VARIABLE: capability.BY_RECIPE, VARIABLE: "of mnist-fp8"}
"""What is there where a record does not say so."""


def not_seen(view: View) -> list[str]:
    """What was not looked at, a line each: on such a run never, or not this time."""
    run = view.old.run or view.new.run
    return [*([_cannot_see(view, RunKind(run))] if run else []), *view.partial, *view.unseen]


def _cannot_see(view: View, kind: RunKind) -> str:
    """What a kind of run never sees, and what it pretends instead."""
    if kind is RunKind.KERNEL:
        return _CANNOT_SEE[kind]
    old, new = (pretended(record.capability) for record in (view.old, view.new))
    said = f"A host run pretends {new}" if old == new else f"The old side pretends {old}; the new side {new}"
    return f"{_CANNOT_SEE[kind]}. {said}"


def scope(view: View) -> str:
    """The kind of run, and what that cannot see."""
    run = view.old.run or view.new.run
    if not run:
        return "The kind of run is not known: neither of the two came that far"
    kind = RunKind(run)
    said = kind.sentence
    return f"{said[0].upper()}{said[1:]}; {_cannot_see(view, kind)}"


def stack(view: View) -> str:
    """What both ran with, and where they differ."""
    found = [(name, old, new, _MISSING.get(name, "unknown")) for name, old, new in environment(view) if name in _STACK]
    return ", ".join(
        f"{_STACK[name]} {old}" if old == new else f"{_STACK[name]} {old or missing} → {new or missing}"
        for name, old, new, missing in found
    )


def environment(view: View) -> list[tuple[str, str, str]]:
    """Name, old and new value of everything that a record says of its environment."""
    old, new = view.old.environment, view.new.environment
    return [(name, old.get(name, ""), new.get(name, "")) for name in dict.fromkeys([*old, *new])]
