"""What becomes of each leaf: planned without reading any."""

from typing import Any

import numpy as np
import pytest

from mnist_fp8.checkpoints.formats import Crossing
from mnist_fp8.checkpoints.metadata import Mlps
from mnist_fp8.checkpoints.migration import Wishes, document, plan
from mnist_fp8.checkpoints.parameters import Shapes
from mnist_fp8.checkpoints.tree import Leaf, Leaves, Path, Plan, path_of, text_of
from mnist_fp8.core.errors import ConfigError
from support.checkpoints import boxed, flat, numbers, old_state

KERNEL: Shapes = {("out", "kernel"): (4, 16, 32)}


def leaves_of(tree: Any) -> Leaves:
    return {
        tuple(path.split("/")): Leaf(None if value is None or isinstance(value, dict) else np.shape(value))
        for path, value in flat(tree).items()
    }


def planned(tree: Any, old: str, new: str, **wishes: Any) -> Plan:
    return plan(leaves_of(tree), Crossing(old, new), Wishes(**wishes))


def changes(made: Plan) -> dict[str, str]:
    return {"/".join(leaf.sources[0]): "/".join(leaf.path) for leaf in made.changed}


def test_a_kernel_and_its_moments_get_its_shape() -> None:
    made = planned(old_state(), "2.0", "2.1.0", kernels=KERNEL)
    places = ["params", "opt_state/0/mu", "opt_state/0/nu"]
    assert changes(made) == {f"{place}/out/kernel": f"{place}/out/kernel" for place in places}
    assert {leaf.shape for leaf in made.changed} == {(4, 16, 32)}
    assert not made.dropped


def test_axes_go_with_2_4() -> None:
    made = (
        planned(old_state(), "2.3.0", "2.4.0")
        if False
        else planned({"params": {"a": 1}, "params_axes": {"a": 2}}, "2.3", "2.4")
    )
    assert list(made.dropped) == [("params_axes", "a")]


def test_a_kernel_without_a_shape_is_kept_and_named() -> None:
    made = planned(old_state(), "1.13", "2.2")
    assert not made.changed
    (note, copied) = made.notes
    assert "1 (out/kernel)" in note
    assert "--kernel" in note
    assert "a copy" in copied


def test_what_a_file_of_shapes_has_besides_is_no_matter() -> None:
    made = planned(old_state(), "2.0", "2.1", like={("params", "out", "kernel"): (4, 16, 32), ("a", "b"): (1,)})
    assert len(made.changed) == 3
    assert not made.notes


@pytest.mark.parametrize("outer", ["", "variables", "params"])
def test_boxes_are_put_on_and_taken_off_parameters_and_moments_alone(outer: str) -> None:
    state = old_state()
    variables = {"params": state["params"], "stats": {"m": 1}}
    inner = f"{outer}/params".strip("/")
    tree = {
        **({outer: variables} if outer else variables),
        "opt": {"mu": state["params"]},
        "fp8_metas": {"out": {"x_scale": np.ones(1), "x_amax_history": np.ones(8)}},
        "step": 1,
    }
    on = planned(tree, "2.8.0", "2.20.2", boxed=True)
    assert set(changes(on).values()) == {
        f"{place}/{leaf}/value" for place in (inner, "opt/mu") for leaf in ("out/kernel", "out/bias", "norm/scale")
    }
    saved = {"params": boxed(state["params"]), "opt": {"mu": boxed(state["params"])}, "odd": {"value": 1}}
    off = planned(saved, "2.8.0", "2.20.2", boxed=False)
    assert set(changes(off).values()) == {
        f"{place}/{leaf}" for place in ("params", "opt/mu") for leaf in ("out/kernel", "out/bias", "norm/scale")
    }
    assert not planned(saved, "2.8.0", "2.20.2").changed
    assert changes(planned(saved, "2.8.0", "2.3.0")) == changes(off)


def test_boxes_are_put_on_just_the_parameters_that_a_file_of_shapes_has_in_boxes() -> None:
    """Layers of Flax beside those of Transformer Engine have none."""
    params = {"out": {"kernel": numbers(4)}, "conv": {"kernel": numbers(4), "bias": numbers(4)}}
    like: Shapes = {("state", "params", *path): (4,) for path in (("out", "kernel", "value"), ("conv", "kernel"))}
    tree = {"state": {"params": params, "opt": {"mu": params}}, "fp8_metas": {"out": {"x_scale": numbers(1)}}}
    made = planned(tree, "2.3", "2.4", like=like)
    places = ["state/params/out/kernel", "state/opt/mu/out/kernel"]
    assert changes(made) == {place: f"{place}/value" for place in places}
    tree["state"]["params"] = boxed(params)
    again = changes(planned(tree, "2.8", "2.20.2", like=like))
    assert again.pop("state/opt/mu/out/kernel") == "state/opt/mu/out/kernel/value"
    assert again == {f"state/params/conv/{leaf}/value": f"state/params/conv/{leaf}" for leaf in ("kernel", "bias")}
    assert not changes(planned(tree, "2.8", "2.20.2", like={("out", "kernel"): (4,)})), "Control: it has no boxes"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("params", "out", "kernel"), "params/out/kernel"),
        (("a/b", "c"), r"a\/b/c"),
        (("a\\", "b"), r"a\\/b"),
        (("a", "", "b"), "a//b"),
    ],
)
def test_paths_are_told_apart_whatever_is_in_a_key(path: Path, text: str) -> None:
    assert (text_of(path), path_of(text)) == (text, path)


def test_the_same_format_is_copied() -> None:
    made = planned({"params": {"a": np.ones(2)}}, "2.8.0", "2.20.2")
    assert not made.changed
    assert made.notes == ["nothing to change from TE 2.8.0 to 2.20.2: the new checkpoint is a copy"]


@pytest.mark.parametrize(
    ("tree", "releases", "wishes", "line"),
    [
        ({"a": 1}, ("2.3.0", "2.2.0"), {}, "TE 2.3.0 cannot be made one of 2.2.0"),
        ({"a": 1}, ("2.1", "1.13"), {}, "since 2.1 kernels have no flat form"),
        ({"a": 1}, ("1.7", "2.4"), {}, "TE 1.7 keeps FP8 metadata in another form"),
        ({"a": 1}, ("two", "2.4"), {}, "'two' is not a release"),
        ({"a": 1}, ("2.2", "2.3"), {"boxed": True}, "TE 2.3 has no boxes"),
        ({"a": 1}, ("2.2", "2.3"), {"kernels": KERNEL}, "kernels keep their shape from TE 2.2 to 2.3"),
        ({"a": 1}, ("2.0", "2.3"), {"kernels": KERNEL}, "--kernel out/kernel names no parameter"),
        (old_state(), ("2.0", "2.1"), {"kernels": {("out", "kernel"): (5, 5)}}, r"cannot become \(5, 5\)"),
        (
            {"params": {"out": {"kernel": np.ones((8, 4))}}, "v_row": {"out": {"kernel": np.ones(8)}}},
            ("2.0", "2.1"),
            {"kernels": {("out", "kernel"): (2, 4, 4)}},
            "v_row/out/kernel of shape .* without the optimizer's state",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(tree: Any, releases: tuple[str, str], wishes: Any, line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        planned(tree, *releases, **wishes)


def test_leaves_that_would_fall_together_are_refused() -> None:
    tree = {"fp8_metas": {"d": {f"{kind}_{each}_0": np.ones(1) for kind in ("amax", "scale") for each in "iwg"}}}
    mixed = {**tree, "d": {**tree["fp8_metas"]["d"], "x_scale": np.ones(1)}}
    with pytest.raises(ConfigError, match="d/scale_i_0 and d/x_scale would both become d/x_scale"):
        planned(mixed, "2.2", "2.3")


def test_the_document_says_all_of_it() -> None:
    crossing, wishes = Crossing("1.13", "2.20.2"), Wishes(kernels=KERNEL, mlps=Mlps(fused=("*",)))
    made = document(plan(leaves_of(old_state()), crossing, wishes), crossing, wishes)
    assert (made["from"], made["to"], made["recipe"]["fp8_format"]) == ("1.13", "2.20.2", "HYBRID")
    assert len(made["changed"]) == 6 + 12 + 3
    assert made["dropped"] == [{"leaf": "params_axes/out/kernel_axes", "what": "dropped: gone since 2.4"}]
    assert made["untouched"] == len(leaves_of(old_state())) - 22
