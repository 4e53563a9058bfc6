"""The scripts of the layer that diverges first in a user's model: what they run, and what they never do."""

import ast
import dataclasses
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from mnist_fp8.cli.output import _forms, write_files
from mnist_fp8.core.capability import VARIABLE as CAPABILITY
from mnist_fp8.core.model import VARIABLE
from mnist_fp8.gate.reports.verdict.slices import Slice, slices
from mnist_fp8.gate.reports.verdict.view import View
from mnist_fp8.gate.verdict.changes import differ
from mnist_fp8.gate.verdict.comparison import Comparison
from mnist_fp8.record.calls import CALLS, LayerCall, LayerCalls, Operand, Option
from mnist_fp8.record.entries import Numbers, Quantity, Value
from mnist_fp8.te import program
from support.comparing import HOST, compared
from support.reports import CLEAN, NASTY, of_html, of_json, of_markdown
from support.subprocesses import run_python

PROGRAM = Path(program.__path__[0])
MODEL = "ours.model:case"
X, KERNEL = Operand("x", (64, 32), "bfloat16", 0.1, 2.0), Operand("kernel", (32, 96), "float32", 0.0, 0.2)
GAMMA, BETA = (Operand(name, (32,), "bfloat16", mean, 0.1) for name, mean in (("gamma", 1.0), ("beta", 0.0)))
DENSE = LayerCall(
    "d1 at model.py:7",
    "dense",
    quantized=True,
    operands=(X, KERNEL, Operand("bias", (96,), "bfloat16", 0.0, 1.0)),
    gradient=Operand("output", (64, 96), "bfloat16", 0.0, 1.0),
    options=(Option("contracting_dims", "((1,), (0,))"),),
)
NORM = dataclasses.replace(
    DENSE, function="layernorm_dense", operands=(X, KERNEL, GAMMA, BETA), options=(Option("epsilon", "0.01"),)
)
MLP = dataclasses.replace(
    DENSE,
    function="layernorm_mlp",
    operands=(
        *(X, GAMMA, Operand("kernel_1", (32, 2, 64), "float32", 0.0, 0.2)),
        *(Operand("kernel_2", (64, 32), "float32", 0.0, 0.2), Operand("bias_1", (2, 64), "bfloat16", 0.0, 1.0)),
        Operand("bias_2", (32,), "bfloat16", 0.0, 1.0),
    ),
    gradient=Operand("output", (64, 32), "bfloat16", 0.0, 1.0),
    options=(Option("norm_type", "'rmsnorm'"), Option("activation_type", "('silu', 'linear')")),
)
RECIPES = ["BF16", "Float8CurrentScaling", "DelayedScaling", "MXFP8BlockScaling"]


def entries(values: Mapping[str, float], calls: tuple[LayerCall, ...], mode: str) -> dict[str, Value]:
    key = f"layers/{MODEL}/model/{mode}"
    found = Numbers(tuple(values.values()), tuple(values), 0.0, Quantity.NORM)
    return {f"{key}/numerics/values layer by layer": found, f"{key}/{CALLS}": LayerCalls(calls)}


def comparison(*calls: LayerCall, mode: str = "BF16", new: tuple[LayerCall, ...] = (), **fields: Any) -> Comparison:
    """Of two records in which the first of some calls diverges, after one that does not."""
    values = {"d0 output": 1.0, f"{calls[0].site} output": 2.0}
    other = values | {f"{calls[0].site} output": 3.0}
    before = dataclasses.replace(calls[0], site="d0")
    sides = entries(values, (before, *calls), mode), entries(other, (before, *(new or calls)), mode)
    return compared(*sides, environment={**HOST, VARIABLE: MODEL}, **fields)


def sliced(*calls: LayerCall, **fields: Any) -> Slice:
    (found,) = slices(comparison(*calls, **fields))
    return found


def printed(found: Slice, folder: Path) -> dict[str, float]:
    """The norms that a script prints, by name."""
    file = folder / found.file
    file.write_text(found.source)
    lines = run_python(
        str(file), cwd=folder, first_on_path=PROGRAM, variables={"MNIST_FP8_TE": "host", "JAX_PLATFORMS": "cpu"}
    ).splitlines()
    assert lines[0] == found.layer
    return {name: float(norm) for name, _, norm in (line.rpartition(": ") for line in lines[1:])}


@pytest.mark.host
@pytest.mark.parametrize("mode", RECIPES)
def test_script_runs_every_kind_of_call_in_each_recipe(mode: str, tmp_path: Path) -> None:
    calls = [dataclasses.replace(call, quantized=mode != "BF16") for call in (DENSE, NORM, MLP)]
    norms = printed(sliced(*calls, mode=mode), tmp_path)
    steps = (1, 2) if mode == "DelayedScaling" else (1,)
    assert list(norms) == [
        f"{number} {call.function}, step {step}: {what}"
        for number, call in enumerate(calls, 1)
        for step in steps
        for what in ("output", *(f"gradient of {name}" for name in sorted(each.name for each in call.operands)))
    ]
    assert all(math.isfinite(norm) and norm > 0 for norm in norms.values())
    # A sum of 32 products and a bias, 64 x 96 times.
    size = math.sqrt(64 * 96 * (32 * (2.0**2 + 0.1**2) * 0.2**2 + 1))
    assert norms[f"1 dense, step {steps[-1]}: output"] == pytest.approx(size, rel=0.05)


# --- what is never code, and never elsewhere ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "site", ['../../x"""', "'; import os #", "\n\nraise SystemExit\n", NASTY, "{{ 7 * 7 }}", "é" * 300]
)
def test_hostile_name_stays_a_literal_and_in_the_folder(site: str, tmp_path: Path) -> None:
    found = sliced(dataclasses.replace(DENSE, site=site, options=(Option(site, repr(site)),)))
    assert re.fullmatch(r"slice_[A-Za-z0-9-]{0,60}_BF16\.py", found.file)
    (file,) = write_files(tmp_path / "out", {found.file: found.source})
    assert list((tmp_path / "out").iterdir()) == [file]
    written = ast.parse(file.read_bytes())
    assert [ast.literal_eval(value) for value in assigned(written, "LAYER")] == [site]
    plain = ast.parse(sliced(dataclasses.replace(DENSE, options=(Option("x", "'x'"),))).source)
    assert list(map(type, ast.walk(written))) == list(map(type, ast.walk(plain)))


def assigned(tree: ast.Module, name: str) -> list[ast.expr]:
    """What is assigned to a name of a module."""
    statements = [node for node in tree.body if isinstance(node, ast.Assign)]
    return [node.value for node in statements if ast.unparse(node.targets[0]) == name]


def test_file_and_commands_name_the_layer_the_recipe_and_the_jax_of_the_verdict() -> None:
    found = sliced(DENSE, mode="Float8CurrentScaling")
    assert found.file == "slice_d1-at-model-py-7_Float8CurrentScaling.py"
    assert found.commands == tuple(
        f"mnist-fp8 run --jax 0.10.2 {release} -- python {found.file}" for release in ("1.0.0", "2.0.0")
    )


def test_interpreter_runs_with_its_own_jax() -> None:
    whole = comparison(DENSE)
    new = dataclasses.replace(whole.new, te="python /x y/python", arguments=("/x y/python",))
    (found,) = slices(dataclasses.replace(whole, new=new))
    assert found.commands[1] == f"mnist-fp8 run '/x y/python' -- python {found.file}"


# --- where there is none -----------------------------------------------------------------------------------------


def test_releases_that_compute_the_same_have_no_script() -> None:
    same = entries({"d1 at model.py:7 output": 2.0}, (DENSE,), "BF16")
    other = entries({"d1 at model.py:7 output": 2.0}, (dataclasses.replace(DENSE, gradient=X),), "BF16")
    found = compared(same, other, environment={**HOST, VARIABLE: MODEL})
    assert not found.differences
    assert not slices(found)
    assert found.compared["layers"] == 1
    assert not any(differ(key, same[key], other[key]) for key in same)


def changed(**fields: Any) -> LayerCall:
    return dataclasses.replace(DENSE, **fields)


@pytest.mark.parametrize(
    ("call", "new", "why"),
    [
        (changed(function="grouped_dense"), None, "it calls grouped_dense; scripts are made of dense, "),
        (changed(operands=(X, KERNEL, BETA)), None, "dense is given beta, which scripts do not know"),
        (changed(options=(Option("f", None),)), None, "dense is given f that cannot be written down"),
        (changed(options=(Option("f", "g()"),)), None, "dense is given f that cannot be written down"),
        (changed(options=(Option("f", "-" * 100_000 + "1"),)), None, "dense is given f that cannot be written down"),
        (changed(gradient=Operand("output", (), "float32", math.nan, 0.0)), None, "are not finite: output"),
        (changed(operands=(X, KERNEL, Operand("bias", (), "x", 0.0, math.inf))), None, "are not finite: bias"),
        (DENSE, changed(site="d2"), "only the old release calls a function of its own for it"),
        (DENSE, changed(options=()), "the two releases call other functions there, or give them other arguments"),
        (DENSE, changed(operands=(X, KERNEL)), "the two releases call other functions there"),
    ],
)
def test_why_there_is_no_script_is_one_line_of_every_page(call: LayerCall, new: LayerCall | None, why: str) -> None:
    made = comparison(call, new=(new,) if new else ())
    (found,) = slices(made)
    assert why in found.problem
    assert (found.source, found.file, found.commands) == ("", "", ())
    for form in (of_markdown, of_html):
        assert f"The first layer that diverges in BF16: {call.site}" in form(made)
        assert f"No script could be made of it: {found.problem}." in form(made)
    assert found.problem in of_json(made)


def test_there_is_no_script_in_a_recipe_that_models_are_not_measured_in() -> None:
    assert sliced(DENSE, mode="..").problem == "scripts are not made for .."
    assert sliced(DENSE, mode="NVFP4BlockScaling").problem == "scripts are not made for NVFP4BlockScaling"


# --- pages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [of_markdown, of_html, of_json])
def test_pages_name_the_file_and_both_commands(form: Any) -> None:
    made = comparison(dataclasses.replace(DENSE, site=NASTY))
    (found,) = slices(made)
    assert CLEAN in form(made)
    assert all(command in form(made) for command in found.commands)


def test_commands_pretend_the_capability_that_was_asked_for() -> None:
    made = comparison(DENSE)
    asked = dataclasses.replace(made.old, environment={**made.old.environment, CAPABILITY: "10.0"})
    (found,) = slices(dataclasses.replace(made, old=asked))
    old, new = found.commands
    assert old == f"mnist-fp8 run --jax 0.10.2 --capability 10.0 1.0.0 -- python {found.file}"
    assert "--capability" not in new


def test_scripts_are_written_beside_the_report() -> None:
    made = comparison(DENSE)
    (found,) = slices(made)
    assert _forms(View.of(made))[found.file] == found.source
    (none,) = slices(comparison(changed(function="f")))
    assert none.file not in _forms(View.of(comparison(changed(function="f"))))
