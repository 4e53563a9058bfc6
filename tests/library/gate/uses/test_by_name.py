"""A user's code over all releases: since when a name is there, when it changed, and what fits nowhere."""

from mnist_fp8.gate.uses.by_name import UsedName, used_names
from mnist_fp8.gate.uses.judgement import Outcome
from mnist_fp8.gate.uses.use import Guard
from support.own_code import HISTORY, JAX, of_api, use

ALL = tuple(HISTORY)


def name(path: str, *uses: object) -> UsedName:
    (found,) = (each for each in used_names([*uses], HISTORY).names if each.path == path)  # type: ignore[list-item]
    return found


def test_name_that_came_or_went_is_there_for_a_while() -> None:
    assert name(f"{JAX}.api.old", of_api("old", 1)).there == ("2.1.0",)
    came = name(f"{JAX}.api.new", of_api("new", 1))
    assert (came.there, came.fits, came.changed) == (("2.2.0", "2.3.0"), ("2.2.0", "2.3.0"), ())


def test_name_changed_where_a_use_of_it_meets_that() -> None:
    found = name(f"{JAX}.api.dense", of_api("dense", 1, "x"))
    assert (found.there, found.fits, found.changed) == (ALL, ALL[:2], ("2.3.0",))
    assert name(f"{JAX}.api.cast", of_api("cast", 1)).changed == (), "Control"


def test_protected_use_leaves_a_name_fit() -> None:
    uses = [
        of_api("dense", line, *keywords, guards=frozenset({Guard.TYPE_ERROR}))
        for line, keywords in ((1, "x"), (2, "xy"))
    ]
    assert name(f"{JAX}.api.dense", *uses).fits == ALL
    assert name(f"{JAX}.api.dense", *uses, of_api("dense", 3, "x")).fits == ALL[:2], "Control: and one that is not"


def test_public_path_is_that_of_the_newest_release_or_of_the_same_thing() -> None:
    assert name(f"{JAX}.api.dense", of_api("dense", 1, "x")).public == f"{JAX}.api.dense"
    assert name(f"{JAX}.dense", use(f"{JAX}.dense", "a.py", 1, "dense")).public == f"{JAX}.api.dense"
    assert name(f"{JAX}.api.cast", of_api("cast", 1)).public == "", "no more"
    assert name(f"{JAX}.api.never", of_api("never", 1)).public == ""


def test_call_that_fits_nowhere_is_told_by_the_newest_release() -> None:
    found = used_names([of_api("cast", 1, "z"), of_api("dense", 2, "x"), of_api("cast", 3)], HISTORY)
    assert [(each.use.place.line, each.outcome, each.subject) for each in found.misfits] == [
        (1, Outcome.BROKEN_ALREADY, "z")
    ]
    assert found.fitting.fits == ()
    assert used_names([of_api("cast", 3)], HISTORY).misfits == (), "Control"
