"""Calls are bound to parameters as Python binds them."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from mnist_fp8.gate.uses.binding import Parameters, misfits, risks
from mnist_fp8.gate.uses.use import Call
from mnist_fp8.record.entries import Parameter, Signature

KINDS = ["positional", "either", "*", "keyword", "**"]
"""Kinds of parameters, in the order in which a signature has them."""
NAMES = list("abcdef")


@st.composite
def signatures(draw: st.DrawFn) -> tuple[Parameter, ...]:
    """Parameters that a function can have."""
    names = draw(st.permutations(NAMES))[: draw(st.integers(0, len(NAMES)))]
    kinds = sorted((draw(st.sampled_from(["positional", "either", "keyword"])) for _ in names), key=KINDS.index)
    first_default = draw(st.integers(0, len(names)))
    found = [
        Parameter(name, kind, "0" if (draw(st.booleans()) if kind == "keyword" else place >= first_default) else None)
        for place, (name, kind) in enumerate(zip(names, kinds, strict=True))
    ]
    found += [Parameter("xy"[len(kind) - 1], kind, None) for kind in ("*", "**") if draw(st.booleans())]
    return tuple(sorted(found, key=lambda each: KINDS.index(each.kind)))


def calls(**unknown: bool) -> st.SearchStrategy[Call]:
    keywords = st.lists(st.sampled_from([*NAMES, "g"]), unique=True, max_size=4).map(tuple)
    return st.builds(Call, st.integers(0, 6), keywords, **{name: st.just(value) for name, value in unknown.items()})


def binds(parameters: tuple[Parameter, ...], call: Call, more: int = 0, names: tuple[str, ...] = ()) -> bool:
    """Whether Python binds a call, with some more arguments."""
    function = eval(f"lambda {Signature('function', parameters).as_source[1:-1]}: None")  # noqa: S307 - ours
    try:
        function(*range(call.positional + more), **dict.fromkeys((*call.keywords, *names), 0))
    except TypeError:
        return False
    return True


@given(signatures(), calls())
def test_call_fits_where_python_binds_it(parameters: tuple[Parameter, ...], call: Call) -> None:
    assert any(misfits(call, Parameters.of(parameters))) != binds(parameters, call)


COMPLETIONS = [
    (more, tuple(name for place, name in enumerate(NAMES) if bits >> place & 1))
    for more, bits in itertools.product(range(7), range(2 ** len(NAMES)))
]
"""Numbers of arguments by position, and names of others, that may come on top."""


@given(signatures(), calls(has_args=True, has_kwargs=True))
def test_call_with_unknown_arguments_is_a_misfit_only_if_no_arguments_make_it_fit(
    parameters: tuple[Parameter, ...], call: Call
) -> None:
    if any(misfits(call, Parameters.of(parameters))):
        assert not any(
            binds(parameters, call, more, names) for more, names in COMPLETIONS if not {*names} & {*call.keywords}
        )


@given(signatures(), signatures(), calls(has_kwargs=True))
def test_unknown_arguments_that_only_the_old_takes_are_a_risk(
    old: tuple[Parameter, ...], new: tuple[Parameter, ...], call: Call
) -> None:
    before, after = Parameters.of(old), Parameters.of(new)
    if any(misfits(call, after)) or any(risks(call, before, after)):
        return
    for _, names in COMPLETIONS:
        if not {*names} & {*call.keywords} and binds(old, call, 0, names):
            assert binds(new, call, 0, names)
