"""Code of a user made by hand, and what becomes of it."""

from typing import Any

from mnist_fp8.gate.uses.judgement import Cause, Judgement, Outcome
from mnist_fp8.gate.uses.ranges import Fitting
from mnist_fp8.gate.uses.use import Call, Guard, Place, Unread, Use, UseKind, Uses
from mnist_fp8.gate.verdict.changes import EntryChange
from mnist_fp8.gate.verdict.rules.rule import Difference
from mnist_fp8.gate.verdict.rules.uses import RULES, key_of
from mnist_fp8.gate.verdict.uses import JudgedUses
from mnist_fp8.record.entries import Parameter, Signature
from mnist_fp8.record.names import Definition, Names

JAX = "transformer_engine.jax"
DESCRIPTOR = f"{JAX}.attention.SequenceDescriptor.from_segment_ids_and_pos"


def use(path: str, file: str, line: int, source: str, kind: UseKind = UseKind.CALL, **fields: Any) -> Use:
    """One use; the place may be in a cell."""
    place = Place(file, line, 5, fields.pop("cell", 0), source)
    return Use(path, kind, place, **fields)


RELEASES = ("2.8.0", "2.9.0", "2.10.0", "2.11.0", "2.12.0")


def judged(
    *judgements: Judgement, unread: tuple[Unread, ...] = (), fits: tuple[str, ...] = RELEASES[1:4]
) -> JudgedUses:
    """What becomes of some uses."""
    found = tuple(dict.fromkeys(each.use for each in judgements))
    uses = Uses(found, unread, files=120, lines=30_211, left_out=3, paths=("src", "nb"))
    return JudgedUses(uses, judgements, Fitting(RELEASES, fits, (), ()))


TAKES = "from_segment_ids_and_pos(segment_ids, segment_pos)"
NEEDS = "from_segment_ids_and_pos(segment_ids, segment_pos, *, is_thd, is_segment_ids_reordered)"
PACKED = use(DESCRIPTOR, "src/attention.py", 41, "d = SequenceDescriptor.from_segment_ids_and_pos(ids, pos)")
PACKED_AGAIN = use(DESCRIPTOR, "src/packed.py", 108, "return from_segment_ids_and_pos(ids, pos)")
OVERRIDE = use(
    f"{JAX}.flax.module.TransformerEngineBase.generate_quantizer_set",
    "src/quant.py",
    77,
    "def generate_quantizer_set(self, postfix):",
    UseKind.OVERRIDE,
)
IN_CELL = use(f"{JAX}.attention.fused_attn", "nb/try.ipynb", 2, "out = fused_attn(q, mask)", cell=4)
PROTECTED = use(f"{JAX}.dense.dense", "src/g.py", 5, "dense(x, mask=m)", guards=frozenset({Guard.TYPE_ERROR}))
OPEN = use(f"{JAX}.dense.grouped_dense", "src/g.py", 7, "grouped_dense(x, **kw)", call=Call(1, has_kwargs=True))
NEITHER = use(f"{JAX}.quantize.QuantizerFactory", "src/g.py", 9, "QuantizerFactory(1, 2)", call=Call(2))
BETTER = use(f"{JAX}.ep.ep_bootstrap", "src/g.py", 11, "ep_bootstrap()")
SAME = use(f"{JAX}.sharding.MeshResource", "src/g.py", 13, "MeshResource()")

CODE = judged(
    *(
        Judgement(one, Outcome.BREAKS, Cause.MISSING_ARGUMENT, subject, TAKES, NEEDS)
        for one in (PACKED, PACKED_AGAIN)
        for subject in ("is_thd", "is_segment_ids_reordered")
    ),
    Judgement(OVERRIDE, Outcome.BREAKS, Cause.OVERRIDE_ARGUMENT, "n_groups"),
    Judgement(IN_CELL, Outcome.CHANGES, Cause.DEFAULT, "dropout", "0.0", "0.1"),
    Judgement(PROTECTED, Outcome.GUARDED, Cause.UNKNOWN_KEYWORD, "mask", "dense(x, mask=None)", "dense(x)"),
    Judgement(OPEN, Outcome.UNKNOWN, Cause.MISSING_ARGUMENT, "n_groups"),
    Judgement(NEITHER, Outcome.BROKEN_ALREADY, Cause.TOO_MANY_POSITIONAL),
    Judgement(BETTER, Outcome.BETTER, Cause.NAME_GONE),
    Judgement(SAME, Outcome.SAME),
    unread=(
        Unread(Place("nb/x.ipynb", 0), "it is no JSON", may_use=False),
        Unread(Place("src/bad.py", 3), "it does not parse", may_use=True),
    ),
)
"""A use with each outcome; one name that breaks in two places."""


def release(*functions: str, private: tuple[str, ...] = (), **parameters: tuple[str, ...]) -> Names:
    """A Transformer Engine with functions in ``transformer_engine.jax.api``, each with the parameters that it needs.

    Args:
        functions: their names.
        private: those of them that it does not export.
        parameters: names of a function's parameters, by the function.
    """
    modules = ("transformer_engine", JAX, f"{JAX}.api")
    definitions = {path: Definition(Signature("module")) for path in modules}
    for name in functions:
        needed = tuple(Parameter(each, "either", None) for each in parameters.get(name, ()))
        definitions[f"{JAX}.api.{name}"] = Definition(Signature("function", needed))
    public = {*modules, *(f"{JAX}.api.{name}" for name in functions if name not in private)}
    return Names(
        definitions, {f"{JAX}.dense": f"{JAX}.api.dense"} if "dense" in functions else {}, frozenset(public), {}
    )


def of_api(name: str, line: int, *keywords: str, **fields: Any) -> Use:
    """A call of one of those functions."""
    call = Call(0, keywords)
    return use(f"{JAX}.api.{name}", "src/a.py", line, f"{name}({', '.join(keywords)})", call=call, **fields)


HISTORY = {
    "2.1.0": release("old", "dense", "cast", dense=("x",)),
    "2.2.0": release("dense", "cast", "new", dense=("x",)),
    "2.3.0": release("dense", "cast", "new", dense=("x", "y"), private=("cast",)),
}
"""Releases: one function goes, one comes, one needs another argument, one is exported no more."""


def accepted(reason: str, rule: int = 0) -> Difference:
    """The difference of a use, accepted if there is a reason."""
    return Difference("uses", PACKED.path, RULES[rule], (EntryChange(key_of(PACKED), None, None),), reason)
